"""`memlm bench correction`."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.data.chunks import Chunks, split_into_chunks
from memlm.data.corpus import read_documents
from memlm.data.token_store import TokenSplit, tokenize_documents
from memlm.evaluation.bootstrap import ratio_intervals, share_interval
from memlm.evaluation.checked import Checked
from memlm.runtime.progress import Advance, track
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.evaluation_sets import foreign_texts
from memlm_evidence.benchmarks.measuring import Benchmark, made_here


@dataclass(frozen=True, kw_only=True)
class Correction(Benchmark, UsesModel, ReadsText):
    """Measure how much more a thorough search gives back of memories: tokens and whole chunks, and its time.

    memlm bench correction runs/dense/model --text held-out.txt --chunks 16

    Chunks that are called proven and are not right are counted too, with the search and without.
    """

    model: tyro.conf.Positional[str]
    """A checkpoint folder, an autoencoder that ships with memlm, or a Hugging Face hub name."""
    text: tuple[str, ...] = ()
    """The text to measure on: files, globs, or - for standard input. By default a novel, verse and
    source code, which come with memlm."""
    chunks: int = 16
    """Full chunks of each text, drawn at random."""
    seed: int = 0
    """Of the draw."""

    def run(self) -> Answer:
        """Regenerate full chunks, as usual and with a thorough search.

        Of `rows`, one for each text: `token_accuracy` and `exact_match` (the share of exact chunks) after the search,
        with 95% intervals over chunks, and `usual_token_accuracy` and `usual_exact_match` without it;
        `worst_token_accuracy` of a chunk; `proven_wrong` and `usual_proven_wrong`, the number of chunks that are
        called proven and are not right; seconds for each chunk.

        Raises:
            ValueError: a text has no full chunk; `chunks` is below 1.
        """
        if self.chunks < 1:
            raise ValueError(f"--chunks must be at least 1, not {self.chunks}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, not {self.seed}")
        model = TextAutoencoder.from_pretrained(self.model, device=self.device)
        drawn = {name: self._drawn(name, split, model) for name, split in self._splits(model)}
        rows = []
        total = sum(int(chunks.mask.sum()) for chunks in drawn.values())
        with track("Searching", total=total, unit="tokens") as advance:
            for name, chunks in drawn.items():
                row = _row(model, chunks, advance)
                self.say(
                    f"{name}: {row['token_accuracy']:.4f} of tokens ({row['usual_token_accuracy']:.4f} without the "
                    f"search), {row['exact_match']:.3f} of {row['chunks']} chunks exact, {row['proven_wrong']} "
                    f"wrongly proven; {row['seconds_per_chunk']:.1f} s a chunk"
                )
                rows.append({"text": name, **row})
        shape = model.config.shape
        return {
            "rows": rows,
            "chunk_len": shape.chunk_len,
            "memory_dim": shape.memory_dim,
            **made_here(seed=self.seed, model=model.provenance, encoder=model.encoder_fingerprint),
        }

    def _splits(self, model: TextAutoencoder) -> Iterator[tuple[str, TokenSplit]]:
        if not self.text:
            return foreign_texts(model.tokenizer)
        return iter([("text", tokenize_documents(model.tokenizer, read_documents(self.corpus(self.text))))])

    def _drawn(self, name: str, split: TokenSplit, model: TextAutoencoder) -> Chunks:
        chunks = split_into_chunks(split, model.config.shape.chunk_len)
        full = np.flatnonzero(chunks.mask.all(axis=1))
        if not len(full):
            raise ValueError(f"{name} has no full chunk of {model.config.shape.chunk_len} tokens: give a longer text")
        return chunks.rows(np.random.default_rng(self.seed).permutation(full)[: self.chunks])


def _row(model: TextAutoencoder, chunks: Chunks, advance: Advance) -> dict[str, Any]:
    usual, begin = model.check(chunks), time.perf_counter()
    parts = []
    for number in range(len(chunks.tokens)):
        parts.append(model.check(chunks.rows(slice(number, number + 1)), thorough=True))
        advance(chunks.tokens.shape[1])
    seconds, found = time.perf_counter() - begin, Checked.concat(parts)
    counted, exact = found.counted.sum(axis=1), found.exact
    right = counted - (found.wrong & found.counted).sum(axis=1)
    return {
        "token_accuracy": float(right.sum() / counted.sum()),
        "usual_token_accuracy": float(1 - (usual.wrong & usual.counted).sum() / usual.counted.sum()),
        "exact_match": float(exact.mean()),
        "usual_exact_match": float(usual.exact.mean()),
        "worst_token_accuracy": float((right / counted).min()),
        "proven": float(found.proven.mean()),
        "proven_wrong": int((found.proven & ~exact).sum()),
        "usual_proven_wrong": int((usual.proven & ~usual.exact).sum()),
        "chunks": len(exact),
        "seconds_per_chunk": seconds / len(exact),
        "intervals": {
            **ratio_intervals("token_accuracy", np.stack([right, counted], axis=1)),
            "exact_match": share_interval(int(exact.sum()), len(exact)),
        },
    }
