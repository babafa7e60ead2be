"""Losses and copies for `memlm bench reader`: a reader beside its two arms and what a user would do instead."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from memlm.config import AS_TOKENS, PER_MEMORY
from memlm.data.chunks import Windows
from memlm.data.token_store import TokenSplit
from memlm.evaluation.bootstrap import bootstrap_interval, ratio_interval, sums_by_unit
from memlm.models.layout import laid_out
from memlm.models.memory_reader import Groups, MemoryReader, Merger, Reading, pad
from memlm.nn.mixers import Hidden, Mask
from memlm.runtime.executor import Row
from memlm.text.memory_reader import TextMemoryReader
from memlm.text.past import Past, past_of
from memlm.text.reader_losses import after_other_pasts, token_nats, whole_windows
from memlm.text.readings import Continuation, GivenBack

PLACES = {"0-15": (0, 16), "16-31": (16, 32), "32-": (32, None)}
"""Predicted tokens by how many stand before them, after the past."""
_TRIPLE = ("last", "memory", "full")
_COPIES_AT_ONCE = 128


class Readers(NamedTuple):
    """A reader, and the same language model adapted alike that reads recent tokens alone, and all of the past."""

    memory: TextMemoryReader
    last: TextMemoryReader
    full: TextMemoryReader
    precision: Literal["bf16", "fp32"]
    """The type of the language model's matrix products; memories are made and decoded in fp32."""

    def computing(self) -> torch.autocast:
        """Where the language model reads."""
        return torch.autocast(self.memory.device.type, torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True)
class Texts:
    """Windows of one kind of text; those of a shorter past predict the same tokens."""

    readers: Readers
    split: TokenSplit
    number: int
    memories: tuple[int, ...]
    """Lengths of the past, from the shortest to the longest."""

    @cached_property
    def windows(self) -> Windows:
        """The windows, with the longest past."""
        return whole_windows(self.split, self.readers.memory.config, self.number, self.memories[-1])

    @cached_property
    def given_back(self) -> list[GivenBack]:
        """What their memories give back."""
        return self.readers.memory.readings.given_back(self.windows)

    def rows(self, memories: int) -> list[Continuation]:
        """The predicted tokens after so many memories.

        Raises:
            ValueError: their text is longer than the model's context.
        """
        tokens, mask, chunk, document = self.windows
        windows = Windows(tokens[:, -memories - 1 :], mask[:, -memories - 1 :], chunk[:, -memories - 1 :], document)
        found = [GivenBack(chunks[-memories:], vectors[-memories:]) for chunks, vectors in self.given_back]
        rows = self.readers.memory.readings.continuations(windows, found)
        longest = max(len(row.past.tokens) + len(row.recent) + len(row.next) for row in rows)
        if longest > (most := self.readers.full.model.decoder.max_positions):
            raise ValueError(
                f"the text of {memories} memories takes {longest} of the model's tokens, and its context {most}: "
                "give a smaller num_memories"
            )
        return rows

    def arms(self, memories: int) -> Row:
        """Nats of what reads no memories: the two arms, the reader without any, and the model as it was."""
        memory, last, full, _ = self.readers
        rows = self.rows(memories)
        found = {
            "last": self._nats(last, rows, None),
            "full": self._nats(full, rows, AS_TOKENS),
            "none": self._nats(memory, rows, None),
        }
        with memory.without_memory():
            found["base"] = self._nats(memory, rows, None)
        tokens = _by_place(memory.readings.predictions(rows, None).scored, None)
        return {"nats": found, "tokens": tokens, "document": self.windows.document.tolist()}

    def at(self, memories: int, ratio: int) -> Row:
        """Nats of what takes as many positions as memories do at a ratio."""
        memory, _, full, _ = self.readers
        rows = self.rows(memories)
        groups = memory.readings.predictions(rows, ratio).past.group
        positions = groups.amax(1) + 1
        others = after_other_pasts(rows, self.windows.document)
        cut = [_cut(row, int(number)) for row, number in zip(rows, positions, strict=True)]
        found = {
            "memory": self._nats(memory, rows, ratio),
            "shuffled": self._nats(memory, others, ratio),
            "cut": self._nats(full, cut, AS_TOKENS),
            "mean": self._mean_nats(rows, ratio),
        }
        return {"nats": found, "positions": float(positions.double().mean())}

    def copies(self, ratios: Sequence[int], number: int) -> Row:
        """Of so many memories, how many tokens there are, and how many the language model gives back at each ratio."""
        reader = self.readers.memory
        chosen = np.unique(np.linspace(0, len(self.given_back) - 1, number).astype(int))
        pasts = [
            past_of(chunks[-1:], vectors[-1:], reader.encoder.tokenizer, reader.model_tokenizer)
            for chunks, vectors in (self.given_back[place] for place in chosen)
        ]
        # All ratios at once: the steps of writing are what takes time. Tokens by themselves may be of another form.
        merged, as_tokens = [ratio for ratio in ratios if ratio != AS_TOKENS], [AS_TOKENS] * (AS_TOKENS in ratios)
        right = self._copied(pasts, merged) | self._copied(pasts, as_tokens)
        tokens = [len(past.tokens) for past in pasts]
        return {"right": right, "tokens": tokens, "document": self.windows.document[chosen].tolist()}

    @torch.no_grad()
    def _copied(self, pasts: list[Past], ratios: Sequence[int]) -> dict[str, list[int]]:
        """How many tokens of each past the language model itself gives back, greedily, by ratio."""
        reader, right = self.readers.memory, list[int]()
        readings = [reader.readings.regenerations(pasts, ratio) for ratio in ratios]
        rows = [reading.rows(slice(place, place + 1)) for reading in readings for place in range(len(pasts))]
        for start in range(0, len(rows), _COPIES_AT_ONCE):
            asked = _joined(rows[start : start + _COPIES_AT_ONCE]).rows(slice(None), reader.device)
            length = asked.tokens.shape[1]
            options: dict[str, Any] = {"min_new_tokens": length, "max_new_tokens": length, "do_sample": False}
            with self.readers.computing():
                inputs = reader.model.inputs(asked.past, asked.tokens[:, :0], regenerates=True)
                written = reader.model.decoder.generate(*inputs, pad_token_id=0, **options)
            right += ((written == asked.tokens) & asked.scored).sum(1).tolist()
        return {str(ratio): right[place * len(pasts) :][: len(pasts)] for place, ratio in enumerate(ratios)}

    def _nats(self, reader: TextMemoryReader, rows: list[Continuation], ratio: int | None) -> list[list[float]]:
        reading = reader.readings.predictions(rows, ratio)
        with self.readers.computing():
            return _by_place(reading.scored, token_nats(reader.model, reading))

    def _mean_nats(self, rows: list[Continuation], ratio: int) -> list[list[float]]:
        reader = self.readers.memory
        reading = reader.readings.predictions(rows, None)
        reading = reading._replace(past=equal_groups([row.past for row in rows], ratio))
        with self.readers.computing(), mean_pooled(reader.model):
            return _by_place(reading.scored, token_nats(reader.model, reading))


def _joined(rows: Sequence[Reading]) -> Reading:
    """Readings of the same pasts' size as the rows of one."""
    parts = zip(*(row.past for row in rows), strict=True)
    past = Groups._make(None if each[0] is None else torch.cat(each) for each in parts)
    tokens, scored = torch.cat([row.tokens for row in rows]), torch.cat([row.scored for row in rows])
    return Reading(past, tokens, scored, regenerates=True)


def equal_groups(pasts: Sequence[Past], ratio: int) -> Groups:
    """So many tokens of a past in each group, in order; or those of a memory."""
    layouts = [laid_out(past.chunk if ratio == PER_MEMORY else np.arange(len(past.tokens)) // ratio) for past in pasts]
    tokens, group = pad([past.tokens.tolist() for past in pasts]), pad([each.group.tolist() for each in layouts], -1)
    return Groups(tokens, group, pad([each.slot.tolist() for each in layouts]))


class Mean(Merger):
    """Makes of each group the plain mean of its tokens' embeddings."""

    def __init__(self) -> None:
        super(Merger, self).__init__()  # it has no weights

    def forward(
        self, embedded: Hidden, units: Hidden, weights: Float[Tensor, "row unit"], past: Groups
    ) -> tuple[Hidden, Mask]:
        """Means [row position dim], and where there are any."""
        rows, number = len(past.group), int(past.group.max()) + 1
        # Padding goes to a group of its own, which is dropped.
        group = torch.where(past.group < 0, number, past.group)[..., None].expand_as(embedded)
        means = embedded.new_zeros(rows, number + 1, embedded.shape[-1], dtype=torch.float)
        means = means.scatter_reduce(1, group, embedded.float(), "mean", include_self=False)[:, :-1]
        return means, torch.arange(number, device=means.device) <= past.group.amax(1, keepdim=True)


@contextmanager
def mean_pooled(model: MemoryReader) -> Iterator[None]:
    """Let a reader's language model read means of token embeddings, whatever it was trained to read."""
    own = model.merger, model.config
    model.merger, model.config = Mean(), replace(model.config, source="text")
    try:
        yield
    finally:
        model.merger, model.config = own


def loss_row(arms: Row, at: Row, copied: Row | None, ratio: int) -> dict[str, Any]:
    """Nats per token, what part of full text's gain is recovered, and copies; intervals are 95% over documents."""
    nats = {name: np.array(each) for name, each in {**arms["nats"], **at["nats"]}.items()}
    tokens, document = np.array(arms["tokens"]), np.array(arms["document"])
    losses = {name: float(each.sum() / tokens.sum()) for name, each in nats.items()}
    by_document = sums_by_unit([nats[name].sum(1) for name in _TRIPLE], document)
    by_document = by_document[by_document.any(1)]
    row: dict[str, Any] = {f"loss_{name}": loss for name, loss in losses.items()}
    row |= {"recovered_fraction": _number(_recovered(by_document.sum(0, keepdims=True))[0])}
    if len(by_document) > 1:
        row["recovered_interval"] = [*map(_number, bootstrap_interval(by_document, _recovered))]
    row["nats_by_position"] = {
        place: {name: float(nats[name][:, column].sum() / tokens[:, column].sum()) for name in _TRIPLE}
        for column, place in enumerate(PLACES)
        if tokens[:, column].any()
    }
    beside = {"irrelevant_loss_ratio": "none", "irrelevant_loss_ratio_to_base": "base"}
    row |= {name: losses["shuffled"] / losses[alone] for name, alone in beside.items()}
    return {
        **row,
        "positions": at["positions"],
        "documents": len(by_document),
        **(_copies(copied, ratio) if copied else {}),
    }


def _copies(found: Row, ratio: int) -> dict[str, Any]:
    right, tokens = np.array(found["right"][str(ratio)]), np.array(found["tokens"])
    row: dict[str, Any] = {"copy_accuracy": float(right.sum() / max(tokens.sum(), 1))}
    row["copy_exact"] = float((right == tokens).mean())
    counted = sums_by_unit([right, tokens], np.array(found["document"]))
    counted = counted[counted[:, 1] > 0]
    return row | ({"copy_interval": [*ratio_interval(counted)]} if len(counted) > 1 else {})


def _recovered(sums: Float[np.ndarray, "resample 3"]) -> Float[np.ndarray, " resample"]:
    """(last - memory) / (last - full)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (sums[:, 0] - sums[:, 1]) / (sums[:, 0] - sums[:, 2])


def _number(value: float) -> float | None:
    """JSON has no others than finite ones."""
    return float(value) if np.isfinite(value) else None


def _cut(row: Continuation, positions: int) -> Continuation:
    """The text cut to its last tokens, as many as memories would take positions."""
    start = max(0, len(row.past.tokens) - positions)
    return row._replace(past=replace(row.past, tokens=row.past.tokens[start:], chunk=row.past.chunk[start:]))


def _by_place(scored: Tensor, nats: Tensor | None) -> list[list[float]]:
    """Sums of each row's nats (or the number of its scored tokens, if None) in each of the `PLACES`."""
    place = scored.cumsum(1) - 1
    values = scored.double() if nats is None else nats.double()
    within = [scored & (place >= start) & (place < (end or place.numel())) for start, end in PLACES.values()]
    found: list[list[float]] = torch.stack([(values * some).sum(1) for some in within], 1).tolist()
    return found


def worst_irrelevant(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How much worse an irrelevant memory makes the same adapted model, and the model as it was, where it is worst."""
    names = ("irrelevant_loss_ratio", "irrelevant_loss_ratio_to_base")
    return {name: max(row[name] for row in rows) for name in names}
