"""How well a reader predicts next tokens from memories, and regenerates them: cross-entropy by ratio."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from memlm.config import AS_TOKENS, MemoryReaderConfig
from memlm.data.chunks import Windows, all_windows, split_into_chunks
from memlm.data.token_store import TokenSplit
from memlm.models.memory_reader import MemoryReader, Reading
from memlm.text.readings import Continuation, Readings

_POSITIONS_AT_ONCE = {"cpu": 4096}
"""Of the language model, that are read in one go; on a GPU more."""
_POSITIONS_ON_GPU = 65536


def whole_windows(split: TokenSplit, cfg: MemoryReaderConfig, most: int, num_memories: int | None = None) -> Windows:
    """At most so many windows from all over a split: a past of so many memories (if None, the most that it is trained
    on), and the chunk after it.

    Raises:
        ValueError: no document is that long.
    """
    length = (num_memories or cfg.window.max_memories) + 1
    windows = all_windows(split_into_chunks(split, cfg.shape.chunk_len), length)
    whole = np.flatnonzero(windows.mask.all((1, 2)))
    if not len(whole):
        raise ValueError(f"no text has {length} chunks of {cfg.shape.chunk_len} tokens: give longer texts")
    return windows.rows(whole[np.linspace(0, len(whole) - 1, min(most, len(whole))).astype(int)])


def reader_losses(model: MemoryReader, readings: Readings, windows: Windows, terms: Sequence[str]) -> dict[str, float]:
    """Nats per token of each term of the loss, over all ratios and by ratio; of next tokens also with another text's
    memories (`shuffled`)."""
    found = readings.given_back(windows)
    rows, pasts = readings.continuations(windows, found), readings.stretches(found, np.random.default_rng(0))
    others = after_other_pasts(rows, windows.document)
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


def after_other_pasts(rows: Sequence[Continuation], document: NDArray[np.int64]) -> list[Continuation]:
    """Each row after the past of one of another document, where there is another."""
    number, others = len(rows), []
    for place, row in enumerate(rows):
        far = [(place + number // 2 + step) % number for step in range(number)]
        other = next((each for each in far if document[each] != document[place]), far[0])
        others.append(row._replace(past=rows[other].past))
    return others


def mean_nats(model: MemoryReader, reading: Reading) -> float:
    """Nats per scored token."""
    return float(token_nats(model, reading).sum()) / max(int(reading.scored.sum()), 1)


@torch.no_grad()
def token_nats(model: MemoryReader, reading: Reading) -> Float[Tensor, "row token"]:
    """Nats of each scored token, 0 elsewhere, on the CPU; a few rows are read at a time."""
    device = model.ask.device
    positions = (int(reading.past.group.max()) + 1 if reading.past.group.numel() else 0) + reading.tokens.shape[1]
    at_once = max(1, _POSITIONS_AT_ONCE.get(device.type, _POSITIONS_ON_GPU) // positions)
    portions = [slice(start, start + at_once) for start in range(0, len(reading.tokens), at_once)]
    return torch.cat([model.nats(reading.rows(some, device)).cpu() for some in portions])
