"""How well a reader predicts next tokens from memories, and regenerates them: cross-entropy by ratio."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from memlm.config import AS_TOKENS, MemoryReaderConfig
from memlm.data.chunks import Windows, all_windows, split_into_chunks
from memlm.data.token_store import TokenSplit
from memlm.models.memory_reader import MemoryReader, Reading
from memlm.text.readings import Readings

_ROWS_AT_ONCE = 8


def whole_windows(split: TokenSplit, cfg: MemoryReaderConfig, most: int) -> Windows:
    """At most so many windows from all over a split: a past of the most memories, and the chunk after it."""
    windows = all_windows(split_into_chunks(split, cfg.shape.chunk_len), cfg.window.max_memories + 1)
    whole = np.flatnonzero(windows.mask.all((1, 2)))
    if not len(whole):
        raise ValueError(f"no text has {cfg.window.max_memories + 1} chunks of {cfg.shape.chunk_len} tokens")
    return windows.rows(whole[np.linspace(0, len(whole) - 1, min(most, len(whole))).astype(int)])


def reader_losses(model: MemoryReader, readings: Readings, windows: Windows, terms: Sequence[str]) -> dict[str, float]:
    """Nats per token of each term of the loss, over all ratios and by ratio; of next tokens also with another text's
    memories (`shuffled`)."""
    found = readings.given_back(windows)
    rows, pasts = readings.continuations(windows, found), readings.stretches(found, np.random.default_rng(0))
    others = [row._replace(past=other.past) for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]
    measures: dict[str, float] = {}
    for term in terms:
        losses = []
        for ratio in readings.config.ratios or [None]:
            causal, given = term == "causal", AS_TOKENS if ratio is None else ratio
            reading = readings.predictions(rows, ratio) if causal else readings.regenerations(pasts, given)
            losses.append(mean_nats(model, reading))
            measures[f"{term}_nats_per_token_ratio_{ratio}"] = losses[-1]
            if causal and ratio is not None:
                shuffled = mean_nats(model, readings.predictions(others, ratio))
                measures[f"shuffled_nats_per_token_ratio_{ratio}"] = shuffled
        measures[f"{term}_nats_per_token"] = float(np.mean(losses))
    return measures


def mean_nats(model: MemoryReader, reading: Reading) -> float:
    """Nats per scored token."""
    return float(row_nats(model, reading).sum()) / max(int(reading.scored.sum()), 1)


@torch.no_grad()
def row_nats(model: MemoryReader, reading: Reading) -> Float[Tensor, " row"]:
    """Nats of each row's scored tokens, on the CPU; rows are read a few at a time."""
    portions = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(reading.tokens), _ROWS_AT_ONCE)]
    return torch.cat([model.nats(reading.rows(some, model.ask.device)).sum(1).cpu() for some in portions])
