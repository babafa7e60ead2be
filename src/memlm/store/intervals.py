"""Tokens as intervals of [0, 2^24), as wide as the decoder expects them, one behind the other."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from memlm.models.exact import NO_SHARE, ExactDecoder, Ranked

Whole = Int[Tensor, " row"]


class Expected(NamedTuple):
    """What is expected of some tokens, as intervals."""

    best: Int[np.ndarray, " row"]
    """The likeliest token."""
    divided: Int[np.ndarray, " row"]
    """Which of the `ends` are the row's; -1 where the likeliest leads: then others have intervals of one number."""
    ends: Int[np.ndarray, "some token"]
    """Where each token's interval ends."""
    leading: int
    """How wide the interval of a leading token is."""
    last: int
    """Token of the vocabulary."""


class Divided:
    """What each token's interval is.

    Where one token leads all others by 24 bits, they have an interval of one number each, and it has all others: then
    neither probabilities nor their sums are made.
    """

    def __init__(self, decoder: ExactDecoder, vocab_size: int) -> None:
        scores = torch.full((1, vocab_size), -float(NO_SHARE), device=decoder.device)
        scores[0, 0] = 0
        self._leading, self._last = int(decoder.frequencies(scores)[0, 0]), vocab_size - 1

    def of_tokens(self, ranked: Ranked, tokens: Whole) -> tuple[Whole, Whole]:
        """Where the intervals of tokens begin, and how wide they are."""
        starts, sizes = tokens.clone(), torch.full_like(tokens, self._leading)
        rows = ((ranked.best != tokens) | (ranked.lead < NO_SHARE)).nonzero()[:, 0]
        ends, tokens = ranked.ends(rows), tokens[rows, None]
        starts[rows] = ends.gather(-1, (tokens - 1).clamp_min(0))[:, 0].long() * (tokens[:, 0] > 0)
        sizes[rows] = ends.gather(-1, tokens)[:, 0] - starts[rows]
        return starts, sizes

    def expected(self, ranked: Ranked) -> Expected:
        """What is expected, to look up places in."""
        rows = (ranked.lead < NO_SHARE).nonzero()[:, 0]
        divided = torch.full_like(ranked.best, -1)
        divided[rows] = torch.arange(len(rows), device=rows.device)
        best, number, ends = (each.cpu().numpy() for each in (ranked.best, divided, ranked.ends(rows)))
        return Expected(best, number, ends, self._leading, self._last)
