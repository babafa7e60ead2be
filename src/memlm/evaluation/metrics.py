"""Regeneration measured: every token scored from the model's own parallel output, summed by document, then divided.

Parallel decoding sees no token of the chunk, so its argmax is never teacher-forced.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from memlm.data.chunks import Chunks
from memlm.evaluation.bootstrap import bootstrap_interval, sums_by_unit
from memlm.evaluation.information import entropy_ratio, retained_bits
from memlm.models.batch import Batch, batch_chunks, compute_in_batches, token_nats
from memlm.models.decoded import num_regenerated, token_mask
from memlm.nn.pooling import MemoryVectors
from memlm.runtime.results import Interval


class Scores(NamedTuple):
    """What a model made of chunks, token by token."""

    predicted: Int[np.ndarray, "chunk token"]
    """-1 where it wrote nothing: at the padding, if it knows of it."""
    nats: Float[np.ndarray, "chunk token"]
    """Of the tokens; those at the padding mean nothing."""
    chunks: Chunks

    @property
    def correct(self) -> Bool[np.ndarray, "chunk token"]:
        """Whether each token was regenerated, and nothing at the padding."""
        return self.predicted == np.where(self.chunks.mask, self.chunks.tokens, -1)


def score(
    model: nn.Module,
    chunks: Chunks,
    vocab_size: int,
    *,
    memory: MemoryVectors | None = None,
    only_nats: bool = False,
    advance: Callable[[int], None] | None = None,
) -> Scores:
    """Regenerate chunks and score every token; `advance` hears of each batch's tokens.

    A model that writes token by token regenerates with its own `greedy(memory)`; what it writes is scored, never what
    it would have written after the true beginning; that takes a pass for every token, and is left out (every prediction
    is -1) where `only_nats` are wanted. `memory` are the chunks' frozen memories, for a reader of such.
    """

    def compute(batch: Batch) -> tuple[Tensor, Tensor]:
        output = model(*batch)
        written = torch.full_like(batch.tokens, -1) if only_nats else _written(model, batch, output.logits, vocab_size)
        return written, token_nats(output.logits, batch)

    num_rows = batch_chunks(chunks.tokens.shape[1], vocab_size)
    predicted, nats = compute_in_batches(model, chunks, num_rows, compute, memory=memory, advance=advance)
    return Scores(predicted, nats, chunks)


def _written(model: nn.Module, batch: Batch, logits: Tensor, vocab_size: int) -> Tensor:
    """The tokens [chunk token] that a model regenerates, -1 where none; without an end token it is told where."""
    if logits.shape[-1] > vocab_size:
        mask = token_mask(num_regenerated(logits, vocab_size), logits.shape[1])
        return torch.where(mask, logits[..., :vocab_size].argmax(dim=-1), -1)
    greedy = getattr(model, "greedy", None)
    tokens = greedy(batch.memory) if greedy else logits.argmax(dim=-1)
    return torch.where(batch.mask, tokens, -1)


def quick_measures(scores: Scores) -> dict[str, float]:
    """Token accuracy, exact match and nats/token: what a training run watches."""
    mask, correct = scores.chunks.mask, scores.correct
    return {
        "token_accuracy": float(correct[mask].mean()),
        "exact_match": float(correct.all(axis=1).mean()),
        "nats_per_token": float(scores.nats[mask].mean()),
    }


class _Totals(NamedTuple):
    """Quantities summed over documents; each a number, or an array over resamples."""

    correct: np.ndarray
    exact: np.ndarray
    nats: np.ndarray
    unconditional_nats: np.ndarray
    tokens: np.ndarray
    chunks: np.ndarray
    bytes: np.ndarray

    @classmethod
    def of(cls, columns: Float[np.ndarray, "*resample quantity"], vocab_size: int) -> "_Totals":
        """No memory is credited with more than ln V nats/token: where the training text's frequencies mislead, a reader
        without a memory does better to guess uniformly."""
        totals = cls(*np.moveaxis(columns, -1, 0))
        uniform = totals.tokens * np.log(vocab_size)
        return totals._replace(unconditional_nats=np.minimum(totals.unconditional_nats, uniform))


_BITS = 1 / np.log(2)
_STATISTICS: dict[str, Callable[[_Totals], np.ndarray]] = {
    "token_accuracy": lambda t: t.correct / t.tokens,
    "exact_match": lambda t: t.exact / t.chunks,
    "nats_per_token": lambda t: t.nats / t.tokens,
    "bits_per_byte": lambda t: t.nats * _BITS / t.bytes,
    "unconditional_nats_per_token": lambda t: t.unconditional_nats / t.tokens,
    "retained_bits_per_token": lambda t: retained_bits(t.nats, t.unconditional_nats) / t.tokens,
    "retained_fraction": lambda t: 1 - t.nats / t.unconditional_nats,
}


def regeneration_measures(
    scores: Scores,
    unconditional_nats: Float[np.ndarray, "chunk token"],
    document_bytes: Num[np.ndarray, " document"],
    *,
    vocab_size: int,
    memory_dims: int,
) -> tuple[dict[str, object], dict[str, Interval]]:
    """Every measure of regeneration, and 95% intervals from a bootstrap over documents.

    A lone document says nothing of the spread between documents: then its chunks are resampled, and the measure
    `resampled` says "chunks". `unconditional_nats` are the same reader's without a memory; `memory_dims` is
    `num_slots · memory_dim`.
    """
    num_documents = len(document_bytes)
    columns = _sums(scores, unconditional_nats, document_bytes)
    total = _Totals.of(columns.sum(axis=0), vocab_size)
    values: dict[str, object] = {name: float(statistic(total)) for name, statistic in _STATISTICS.items()}

    def interval(statistic: Callable[[_Totals], np.ndarray]) -> Interval:
        return bootstrap_interval(columns, lambda rows: statistic(_Totals.of(rows, vocab_size)))

    resampled = _STATISTICS if len(columns) > 1 else {}
    intervals = {name: interval(statistic) for name, statistic in resampled.items()}
    tokens_per_chunk = total.tokens / total.chunks
    for derived, base, convert in (
        ("entropy_ratio", "nats_per_token", lambda nats: entropy_ratio(nats, vocab_size)),
        ("bits_per_dim", "retained_bits_per_token", lambda bits: bits * tokens_per_chunk / memory_dims),
    ):
        values[derived] = float(convert(values[base]))
        if base in intervals:
            intervals[derived] = Interval(*sorted(float(convert(end)) for end in intervals[base]))
    mask = scores.chunks.mask
    hits, seen = (scores.correct & mask).sum(axis=0), mask.sum(axis=0)
    values |= {
        "num_chunks": int(total.chunks),
        "num_tokens": int(total.tokens),
        "num_documents": num_documents,
        "resampled": "documents" if num_documents > 1 else "chunks",
        "bytes_per_token": float(total.bytes / total.tokens),
        "accuracy_by_position": [float(h / s) if s else None for h, s in zip(hits, seen, strict=True)],
    }
    return values, intervals


def _sums(
    scores: Scores, unconditional_nats: np.ndarray, document_bytes: np.ndarray
) -> Float[np.ndarray, "unit quantity"]:
    """The quantities of `_Totals`, of each document; of a lone one, of each chunk, with its share of the bytes."""
    mask, correct, unit = scores.chunks.mask, scores.correct, scores.chunks.document
    if len(document_bytes) == 1:
        tokens, unit = mask.sum(axis=1), np.arange(len(mask))
        document_bytes = document_bytes[0] * tokens / tokens.sum()
    per_chunk = (
        (correct & mask).sum(1),
        correct.all(1),
        (scores.nats * mask).sum(1, dtype=np.float64),
        (unconditional_nats * mask).sum(1, dtype=np.float64),
        mask.sum(1),
        np.ones(len(mask)),
    )
    return np.stack([*sums_by_unit(per_chunk, unit, len(document_bytes)).T, document_bytes.astype(np.float64)], axis=1)
