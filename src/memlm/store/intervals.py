"""Tokens as intervals of [0, 2^24), as wide as the decoder expects them, one behind the other."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memlm.models.exact import NO_SHARE, ExactDecoder
from memlm.nn.argmax import argmax

Scores = Float[Tensor, "row vocab"]
"""Of the decoder, in sixteenths of a bit."""
Whole = Int[Tensor, " row"]


class Intervals(NamedTuple):
    """Of some tokens."""

    tokens: Whole
    starts: Whole
    sizes: Whole


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

    def of_tokens(self, scores: Scores, tokens: Whole) -> tuple[Intervals, Bool[Tensor, " row"]]:
        """The intervals of tokens, and whether others are likelier."""
        place = tokens[:, None]
        lead = _lead(scores, place)
        starts, sizes = tokens.clone(), torch.full_like(tokens, self._leading)
        if len(rows := (lead < NO_SHARE).nonzero()[:, 0]):
            frequencies = self._frequencies(scores[rows])
            ends = frequencies.cumsum(dim=-1).gather(-1, place[rows])[:, 0].long()
            sizes[rows] = frequencies.gather(-1, place[rows])[:, 0].long()
            starts[rows] = ends - sizes[rows]
        return Intervals(tokens, starts, sizes), lead < 0

    def at(self, scores: Scores, places: Whole) -> Intervals:
        """The tokens in whose intervals places lie."""
        best = argmax(scores)
        lead = _lead(scores, best[:, None])
        more = self._leading - 1
        is_best = (places >= best) & (places <= best + more)
        behind = places > best + more
        tokens = torch.where(is_best, best, places - more * behind).clamp_max_(self._last)
        starts, sizes = tokens + more * behind, torch.where(is_best, self._leading, 1)
        if len(rows := (lead < NO_SHARE).nonzero()[:, 0]):
            frequencies = self._frequencies(scores[rows])
            ends = frequencies.cumsum(dim=-1)
            found = torch.searchsorted(ends, places[rows, None].float(), right=True).clamp_max_(self._last)
            tokens[rows], sizes[rows] = found[:, 0], frequencies.gather(-1, found)[:, 0].long()
            starts[rows] = ends.gather(-1, found)[:, 0].long() - sizes[rows]
        return Intervals(tokens, starts, sizes)


def _lead(scores: Scores, place: Int[Tensor, "row 1"]) -> Float[Tensor, " row"]:
    """By how much some token's score leads all others'."""
    own = scores.gather(-1, place)
    others = scores.scatter_(-1, place, -torch.inf).amax(dim=-1)
    scores.scatter_(-1, place, own)  # restored: a copy would take three times as long
    return own[:, 0] - others
