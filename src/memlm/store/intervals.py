"""Tokens as intervals of [0, 2^24), as wide as the decoder expects them, one behind the other."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from memlm.models.exact import NO_SHARE, ExactDecoder, Ranked
from memlm.store.range_coder import Row

Whole = Int[Tensor, " row"]


class Divided:
    """What each token's interval is, and whose interval a place lies in.

    Where one token leads all others by 24 bits, they have an interval of one number each, and it has all others: then
    neither probabilities nor their sums are made.
    """

    def __init__(self, decoder: ExactDecoder, vocab_size: int) -> None:
        scores = torch.full((1, vocab_size), -float(NO_SHARE), device=decoder.device)
        scores[0, 0] = 0
        self._leading = int(decoder.frequencies(scores)[0, 0])
        self._leads = [Leading(token, self._leading, vocab_size - 1) for token in range(vocab_size)]

    def of_tokens(self, expected: Ranked, tokens: Whole) -> tuple[Whole, Whole, Bool[Tensor, " row"]]:
        """Where the intervals of tokens begin, how wide they are, and whether other tokens are likelier."""
        starts, sizes = tokens.clone(), torch.full_like(tokens, self._leading)
        wrong = torch.zeros_like(tokens, dtype=torch.bool)
        if len(rows := ((expected.best != tokens) | (expected.lead < NO_SHARE)).nonzero()[:, 0]):
            frequencies, place = expected.frequencies(rows), tokens[rows, None]
            ends = frequencies.cumsum(dim=-1).gather(-1, place)[:, 0].long()
            sizes[rows] = frequencies.gather(-1, place)[:, 0].long()
            starts[rows] = ends - sizes[rows]
            wrong[rows] = sizes[rows] < frequencies.amax(dim=-1).long()
        return starts, sizes, wrong

    def rows(self, expected: Ranked) -> list[Row]:
        """Each row, to look up places in."""
        found: list[Row] = [self._leads[token] for token in expected.best.tolist()]
        rows = (expected.lead < NO_SHARE).nonzero()[:, 0]
        ends = expected.frequencies(rows).cumsum(dim=-1).long().cpu().numpy()
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
        """As of `Row`."""
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
        """As of `Row`."""
        token = min(int(self.ends.searchsorted(place, side="right")), len(self.ends) - 1)
        start = int(self.ends[token - 1]) if token else 0
        return token, start, int(self.ends[token]) - start
