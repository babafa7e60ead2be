"""`memlm bench reader`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from jaxtyping import Float

from memlm.cli.command import Answer, ReadsText, UsesModel
from memlm.config import AS_TOKENS
from memlm.data.chunks import Windows, gather_windows, split_into_chunks
from memlm.data.documents import Document
from memlm.data.texts import evaluation_documents
from memlm.data.token_store import TokenSplit, prepare, tokenize_documents
from memlm.evaluation.bootstrap import bootstrap_interval, ratio_interval, sums_by_unit
from memlm.recipes.reader import reader as reader_recipe
from memlm.runtime.progress import track
from memlm.runtime.results import Interval
from memlm.text.memory_reader import TextMemoryReader
from memlm.text.past import Past
from memlm.text.reader_losses import row_nats
from memlm.text.readings import Continuation
from memlm_evidence.benchmarks.measuring import Benchmark, made_here
from memlm_evidence.benchmarks.reader_needles import needle_rows
from memlm_evidence.benchmarks.reader_times import time_rows


@dataclass(frozen=True, kw_only=True)
class ReaderBenchmark(Benchmark, UsesModel, ReadsText):
    """What a language model makes of memories, beside the same model adapted alike that sees recent tokens or all text.

    memlm bench reader runs/smollm2/model --last runs/last/model --full runs/full/model
    """

    reader: tyro.conf.Positional[str]
    """A reader: a checkpoint folder, or one that ships with memlm."""
    last: str
    """The same language model, adapted alike to see recent tokens alone (memlm adapt --arm last)."""
    full: str
    """The same, adapted to see all of the past as tokens (memlm adapt --arm full)."""
    text: tuple[str, ...] = ()
    """Files, globs, or - for standard input; without any, addresses kept apart, a novel and source code."""
    ratios: tuple[int, ...] = (2, 4, 8, 16, 0)
    """Tokens of the past for each position; 0 is one position for each memory."""
    num_windows: int = 64
    """Texts of each kind: a past of memories and what follows it."""
    num_copies: int = 16
    """Memories of each kind that the language model itself gives back, at each ratio."""
    num_needles: int = 5
    """Needles of each kind at each length of the past; 0 for none."""
    needle_tokens: tuple[int, ...] = (1024, 2048, 4096, 8192)
    """Lengths of the past in the language model's tokens."""
    time_tokens: tuple[int, ...] = (1024, 2048, 4096, 8192)
    """Lengths of the past in the language model's tokens; none to leave times out."""

    def run(self) -> Answer:
        """Measure; intervals are 95% over documents."""
        readers = {
            name: TextMemoryReader.from_pretrained(path, device=self.device)
            for name, path in (("memory", self.reader), ("last", self.last), ("full", self.full))
        }
        names = {name: reader.config.decoder.name for name, reader in readers.items()}
        if len(set(names.values())) > 1:
            raise ValueError(f"these adapt different language models: {names}")
        rows: list[dict[str, Any]] = []
        kinds = self._kinds(readers["memory"])
        with track("Reading", total=self.num_windows * len(kinds) * len(self.ratios), unit="tokens") as advance:
            for kind, split in kinds.items():
                for ratio, row in losses(readers, split, self.ratios, self.num_windows).items():
                    copied = copies(readers["memory"], split, ratio, self.num_copies)
                    rows.append({"kind": kind, "ratio": ratio, **row, **copied})
                    advance(self.num_windows)
        memory = readers["memory"]
        return {
            "rows": rows,
            "needles": needle_rows(memory, self.needle_tokens, self.num_needles) if self.num_needles else [],
            "times": time_rows(memory, self.time_tokens),
            **kept(memory, kinds),
            "reader": asdict(memory.config),
            **made_here(reader=memory.provenance, last=readers["last"].provenance, full=readers["full"].provenance),
        }

    def _kinds(self, reader: TextMemoryReader) -> dict[str, TokenSplit]:
        """Kinds of text that the reader has not seen, as tokens of its encoder."""
        tokenizer = reader.encoder.tokenizer
        if self.text:
            documents = [Document(f"text {number}", text) for number, text in enumerate(self.documents(self.text))]
            return {"text": tokenize_documents(tokenizer, documents)}
        held_out = prepare(reader_recipe(encoder=reader.config.encoder).data).splits["test"]
        others = {kind: tokenize_documents(tokenizer, evaluation_documents(kind)) for kind in ("novel", "code")}
        return {"addresses": held_out, **others}


class Sums(NamedTuple):
    """Of windows: the nats of their scored tokens, and how many there are."""

    nats: Float[np.ndarray, " window"]
    tokens: Float[np.ndarray, " window"]


def windows_of(reader: TextMemoryReader, split: TokenSplit, number: int) -> Windows:
    """So many windows from all over a split: as many memories as the reader was trained on, and the chunk after."""
    length = reader.config.window.max_memories + 1
    chunks = split_into_chunks(split, reader.config.shape.chunk_len)
    windows = gather_windows(chunks, np.arange(len(chunks.document)), length)
    whole = np.flatnonzero(windows.mask.all((1, 2)))
    if not len(whole):
        raise ValueError(f"no text has {length} chunks of {reader.config.shape.chunk_len} tokens: give longer texts")
    return windows.rows(np.unique(whole[np.linspace(0, len(whole) - 1, number).astype(int)]))


def losses(
    readers: dict[str, TextMemoryReader], split: TokenSplit, ratios: Sequence[int], number: int
) -> dict[int, dict[str, Any]]:
    """Nats per next token at each ratio, of readers and controls; and what part of full text's gain is recovered."""
    memory, full = readers["memory"], readers["full"]
    windows = windows_of(memory, split, number)
    readings = memory.readings
    rows = readings.continuations(windows, readings.given_back(windows))
    others = [row._replace(past=other.past) for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]
    last = _sums(readers["last"], rows, None)
    whole = _sums(full, rows, AS_TOKENS)
    unread = _sums(memory, rows, None)
    found: dict[int, dict[str, Any]] = {}
    for ratio in ratios:
        sums = {
            "last": last,
            "full": whole,
            "none": unread,
            "memory": _sums(memory, rows, ratio),
            "shuffled": _sums(memory, others, ratio),
            "cut": _sums(full, [_cut(memory, row, ratio) for row in rows], AS_TOKENS),
        }
        found[ratio] = {f"loss_{name}": float(each.nats.sum() / each.tokens.sum()) for name, each in sums.items()}
        by_document = sums_by_unit([sums[name].nats for name in ("last", "memory", "full")], windows.document)
        by_document = by_document[by_document.any(1)]
        recovered = _recovered(by_document.sum(0, keepdims=True))[0]
        found[ratio] |= {"recovered_fraction": float(recovered), "documents": len(by_document)}
        if len(by_document) > 1:
            found[ratio]["recovered_interval"] = asdict_interval(bootstrap_interval(by_document, _recovered))
    return found


def _recovered(sums: Float[np.ndarray, "resample 3"]) -> Float[np.ndarray, " resample"]:
    """(last - memory) / (last - full)."""
    return (sums[:, 0] - sums[:, 1]) / (sums[:, 0] - sums[:, 2])


def asdict_interval(interval: Interval) -> list[float]:
    """An interval as JSON has it."""
    return [interval.low, interval.high]


def _cut(reader: TextMemoryReader, row: Continuation, ratio: int) -> Continuation:
    """The text cut to as many of its last tokens as memories would take positions."""
    layout = row.past.layout(reader.config, reader.surprisal, ratio)
    positions = int(layout.group[-1]) + 1 if len(layout.group) else 0
    past = row.past
    return row._replace(past=Past(past.tokens[-positions:], past.chunk[-positions:], past.vectors))


def _sums(reader: TextMemoryReader, rows: list[Continuation], ratio: int | None) -> Sums:
    reading = reader.readings.predictions(rows, ratio)
    nats = row_nats(reader.model, reading).double().numpy()
    return Sums(nats, reading.scored.sum(1).double().numpy())


def copies(reader: TextMemoryReader, split: TokenSplit, ratio: int, number: int) -> dict[str, Any]:
    """How much of single memories the language model gives back, greedily: of tokens, and exactly."""
    chunks = split_into_chunks(split, reader.config.shape.chunk_len)
    whole = np.flatnonzero(chunks.mask.all(1))
    chunks = chunks.rows(np.unique(whole[np.linspace(0, len(whole) - 1, number).astype(int)]))
    decode, encode = reader.encoder.tokenizer.decode, reader.model_tokenizer.encode
    memory = reader.encoder.encode([decode(tokens) for tokens in chunks.tokens])
    # A text that is tokenized anew may be a token longer than its chunk.
    single = [number for number, count in enumerate(memory.num_chunks) if count == 1]
    first = memory[single]
    pasts = [past.only(0) for past in reader.pasts(first)]
    written = [encode(text) for text in reader.regenerate(first, ratio=ratio)]
    right, total, exact = [], [], []
    for past, tokens in zip(pasts, written, strict=True):
        common = min(len(past.tokens), len(tokens))
        right.append(int((past.tokens[:common] == tokens[:common]).sum()))
        total.append(len(past.tokens))
        exact.append(right[-1] == total[-1])
    sums = sums_by_unit([right, total], chunks.document[single])
    counted = sums[sums[:, 1] > 0]
    found: dict[str, Any] = {"copy_accuracy": sum(right) / sum(total), "copy_exact": float(np.mean(exact))}
    if len(counted) > 1:
        found["copy_interval"] = asdict_interval(ratio_interval(counted))
    return found


@torch.no_grad()
def kept(reader: TextMemoryReader, kinds: dict[str, TokenSplit]) -> dict[str, Any]:
    """What the language model still is: without memories bit for bit, and beside an irrelevant one."""
    from memlm.models.load_pretrained import load_causal

    cfg = reader.config.decoder
    base = load_causal(cfg.name, cfg.revision).eval().to(reader.device)
    first = next(iter(kinds.values()))
    rows = reader.readings.continuations(windows := windows_of(reader, first, 16), reader.readings.given_back(windows))
    length = min(len(row.next) for row in rows)
    ids = torch.tensor([row.next[:length] for row in rows], device=reader.device)
    with reader.without_memory() as unread:
        unchanged = bool(torch.equal(unread(ids).logits, base(ids).logits))
        options = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0}
        unchanged &= bool(torch.equal(unread.generate(ids[:4], **options), base.generate(ids[:4], **options)))
    others = [row._replace(past=other.past) for row, other in zip(rows, [*rows[8:], *rows[:8]], strict=True)]
    beside = _sums(reader, others, 8)
    with reader.without_memory():
        alone = _sums(reader, rows, None)
    return {"base_unchanged": unchanged, "irrelevant_loss_ratio": float(beside.nats.sum() / alone.nats.sum())}
