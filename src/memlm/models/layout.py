"""How a past's tokens share the positions of a soft prompt.

The last tokens have a position each: most of what a past is worth to the next tokens is there. The tokens before them
are put in groups of about equal surprisal: a rare word has a position nearly to itself, common words share one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memlm.models.memory_reader import NUM_SLOTS

_HALVINGS = 40


class Layout(NamedTuple):
    """Where each token of a past goes."""

    group: NDArray[np.int64]
    """[token], its position in the soft prompt."""
    slot: NDArray[np.int64]
    """[token], its place from the group's end."""


def share_positions(surprisal: NDArray[np.float64], num_positions: int, recent_share: float = 0.0) -> Layout:
    """At most so many consecutive groups of tokens of which these are the nats; the last tokens have a group each, as
    many as that share of the positions."""
    if num_positions >= len(surprisal):
        return laid_out(np.arange(len(surprisal)))
    recent = int(recent_share * num_positions)
    before = surprisal[: len(surprisal) - recent]
    middle = before.cumsum() - before / 2
    # With a smaller sum, there are more groups: none is empty, for tokens that are more than a sum leave gaps.
    least, most = 0.0, float(before.sum()) * 2
    for _ in range(_HALVINGS):
        nats = (least + most) / 2
        few = len(np.unique(middle // nats)) <= num_positions - recent
        least, most = (least, nats) if few else (nats, most)
    group = np.unique(middle // most, return_inverse=True)[1]
    return laid_out(np.concatenate([group, group[-1] + 1 + np.arange(recent)]))


def laid_out(group: NDArray[np.int64]) -> Layout:
    """The layout of these groups, which are in order."""
    ends = np.searchsorted(group, group, side="right")
    return Layout(group, np.minimum(ends - 1 - np.arange(len(group)), NUM_SLOTS - 1))
