"""How a past's tokens share the positions of a soft prompt: equal parts of what they are worth, in order.

What a token is worth is its surprisal (a rare word has a position nearly to itself, common words share one), less the
further back it stands. Tokens that must be read exactly are worth a position each.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memlm.models.memory_reader import NUM_SLOTS

_HALVINGS = 40
_LEAST_SHARE = 1 / 64
"""Of what a token at the end is worth."""


class Layout(NamedTuple):
    """Where each token of a past goes."""

    group: NDArray[np.int64]
    """[token], its position in the soft prompt."""
    slot: NDArray[np.int64]
    """[token], its place from the group's end."""


def share_positions(worth: NDArray[np.float64], num_positions: int) -> Layout:
    """Consecutive groups of about equal worth, at most so many."""
    if not len(worth):
        return laid_out(np.zeros(0, np.int64))
    middle = worth.cumsum() - worth / 2
    if num_positions >= len(worth):
        return laid_out(np.arange(len(worth)))
    # With a smaller share, there are more groups: none is empty, for tokens worth more than a share leave gaps.
    least, most = 0.0, float(worth.sum()) * 2
    for _ in range(_HALVINGS):
        share = (least + most) / 2
        few = len(np.unique(middle // share)) <= num_positions
        least, most = (least, share) if few else (share, most)
    return laid_out(np.unique(middle // most, return_inverse=True)[1])


def worth(surprisal: NDArray[np.float64], recency_tokens: int) -> NDArray[np.float64]:
    """What tokens with this surprisal in nats, in order, are worth: less, the further back they stand."""
    if not recency_tokens:
        return surprisal
    distance = np.arange(len(surprisal), 0, -1)
    # What is far back still has positions, however long the past is.
    return surprisal * np.maximum((recency_tokens / (recency_tokens + distance)) ** 2, _LEAST_SHARE)


def laid_out(group: NDArray[np.int64]) -> Layout:
    """The layout of these groups, which are in order."""
    ends = np.searchsorted(group, group, side="right")
    return Layout(group, np.minimum(ends - 1 - np.arange(len(group)), NUM_SLOTS - 1))
