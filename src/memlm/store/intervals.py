"""Tokens as intervals of [0, 2^24), as wide as the decoder expects them, one behind the other."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memlm.models.exact import NO_SHARE, ExactDecoder
from memlm.nn.argmax import argmax

Scores = Float[Tensor, "row vocab"]
"""Of the decoder, in sixteenths of a bit."""
Whole = Int[Tensor, " row"]


class Divided:
    """What each token's interval is, and whose interval a place lies in.

    Where one token leads all others by 24 bits, they have an interval of one number each, and it has all others: then
    neither probabilities nor their sums are made.
    """

    def __init__(self, decoder: ExactDecoder, vocab_size: int) -> None:
        self._frequencies, self._last = decoder.frequencies, vocab_size - 1
        scores = torch.full((1, vocab_size), -float(NO_SHARE), device=decoder.device)
        scores[0, 0] = 0
        self._leading = int(self._frequencies(scores)[0, 0])

    def of_tokens(self, scores: Scores, tokens: Whole) -> tuple[Whole, Whole, Bool[Tensor, " row"]]:
        """Where the intervals of tokens begin, how wide they are, and whether other tokens are likelier."""
        place = tokens[:, None]
        lead = _lead(scores, place)
        starts, sizes = tokens.clone(), torch.full_like(tokens, self._leading)
        if len(rows := (lead < NO_SHARE).nonzero()[:, 0]):
            frequencies = self._frequencies(scores[rows])
            ends = frequencies.cumsum(dim=-1).gather(-1, place[rows])[:, 0].long()
            sizes[rows] = frequencies.gather(-1, place[rows])[:, 0].long()
            starts[rows] = ends - sizes[rows]
        return starts, sizes, lead < 0

    def rows(self, scores: Scores) -> list["Row"]:
        """Each row, to look up places in."""
        best = argmax(scores)
        rows = (_lead(scores, best[:, None]) < NO_SHARE).nonzero()[:, 0]
        found: list[Row] = [Leading(token, self._leading, self._last) for token in best.tolist()]
        ends = self._frequencies(scores[rows]).cumsum(dim=-1).long().cpu().numpy()
        for row, some in zip(rows.tolist(), ends, strict=True):
            found[row] = Ends(some)
        return found


class Leading(NamedTuple):
    """All but one token have an interval of one number each."""

    token: int
    size: int
    """Of its interval."""
    last: int
    """Token of the vocabulary."""

    def at(self, place: int) -> tuple[int, int, int]:
        """The token in whose interval a place lies, where that begins, and how wide it is."""
        behind = place - self.token
        if behind < 0:
            return place, place, 1
        if behind < self.size:
            return self.token, self.token, self.size
        token = min(place - self.size + 1, self.last)
        return token, token + self.size - 1, 1


class Ends(NamedTuple):
    """Of each token's interval."""

    ends: Int[np.ndarray, " token"]

    def at(self, place: int) -> tuple[int, int, int]:
        """As of `Leading`."""
        token = min(int(self.ends.searchsorted(place, side="right")), len(self.ends) - 1)
        start = int(self.ends[token - 1]) if token else 0
        return token, start, int(self.ends[token]) - start


Row = Leading | Ends


def _lead(scores: Scores, place: Int[Tensor, "row 1"]) -> Float[Tensor, " row"]:
    """By how much some token's score leads all others'."""
    own = scores.gather(-1, place)
    others = scores.scatter_(-1, place, -torch.inf).amax(dim=-1)
    scores.scatter_(-1, place, own)  # restored: a copy would take three times as long
    return own[:, 0] - others
