"""Regenerated text checked against the original: exact or not by its length, and wrong or not by how sure it was.

This is what users see (`TextAutoencoder.regenerate`): lengths are the memories' own, and what could be set right is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from memlm.data.chunks import Chunks, excerpts
from memlm.data.token_store import TokenSplit
from memlm.evaluation.bootstrap import share_interval
from memlm.models.decoded import Decoded

FILLS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Lengths of text, in tokens, that are told apart."""
PIECES = 200
"""Pieces of each length."""
_BINS = (0.0, 1.0, 2.0, 4.0, 8.0, 12.0, np.inf)


class Checked(NamedTuple):
    """Chunks beside what came back of them. Positions up to the longer one's end count."""

    counted: Bool[np.ndarray, "chunk token"]
    wrong: Bool[np.ndarray, "chunk token"]
    """Another token, one too many, or a missing one."""
    unsure: Bool[np.ndarray, "chunk token"]
    """Marked as what may be wrong."""
    margin: Float[np.ndarray, "chunk token"]
    """By how many nats the token leads."""
    proven: Bool[np.ndarray, " chunk"]

    @property
    def exact(self) -> Bool[np.ndarray, " chunk"]:
        """Which came back without an error."""
        return ~np.any(self.wrong, axis=1)

    @classmethod
    def of(cls, chunks: Chunks, decoded: Decoded) -> "Checked":
        """Compare."""
        decoded = Decoded(*(part.cpu() for part in decoded))
        mask = decoded.mask.numpy()
        tokens = np.where(mask, decoded.tokens.numpy(), -1)
        wrong = tokens != np.where(chunks.mask, chunks.tokens, -1)
        parts = (decoded.unsure.numpy(), decoded.margin.numpy(), decoded.proven.numpy())
        return cls(mask | chunks.mask, wrong, *parts)

    @classmethod
    def concat(cls, parts: Sequence["Checked"]) -> "Checked":
        """Chunks after each other."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


def fill_pieces(split: TokenSplit, chunk_len: int) -> dict[int, Chunks]:
    """Pieces of documents, by their length in tokens; without lengths that no document has."""
    found = {fill: excerpts(split, chunk_len, fill, PIECES) for fill in FILLS if fill <= chunk_len}
    return {fill: some for fill, some in found.items() if len(some.tokens)}


def measures_by_length(checked: Mapping[int, Checked]) -> dict[str, Any]:
    """`exactness` by length in tokens, and `calibration` of all lengths together."""
    whole = Checked.concat([*checked.values()])
    return {**exactness({fill: some.exact for fill, some in checked.items()}), "calibration": calibration(whole)}


def exactness(exact: Mapping[int, Bool[np.ndarray, " chunk"]]) -> dict[str, Any]:
    """`exact_by_fill`, share of exact texts by their length in tokens, and `exact_by_fill_intervals`.

    The 95% intervals are of independent texts: a bootstrap says nothing where all of them are exact.
    """
    intervals = {str(fill): share_interval(int(some.sum()), len(some)) for fill, some in exact.items()}
    return {
        "exact_by_fill": {str(fill): float(some.mean()) for fill, some in exact.items()},
        "exact_by_fill_intervals": {fill: [*interval] for fill, interval in intervals.items()},
    }


def calibration(checked: Checked) -> dict[str, Any]:
    """How well marks and confidence tell what is wrong.

    Returns:
        `marked_wrong_fraction`: of the `num_wrong` wrong tokens, the share that is marked (1 where none is wrong);
        `marked_right_fraction`: of the right ones; `by_confidence`: tokens and the share of wrong ones, of proven
        chunks, and of others by how many nats a token leads.
    """
    counted, wrong, unsure = checked.counted, checked.wrong & checked.counted, checked.unsure
    proven = np.broadcast_to(checked.proven[:, None], counted.shape)
    groups = {"proven": counted & proven}
    for low, high in zip((-np.inf, *_BINS[1:-1]), _BINS[1:], strict=True):
        name = f"{max(low, 0):g} nats or more" if high == np.inf else f"{max(low, 0):g} to {high:g} nats"
        groups[name] = counted & ~proven & (checked.margin >= low) & (checked.margin < high)
    return {
        "marked_wrong_fraction": _fraction(unsure, wrong, none=1.0),
        "marked_right_fraction": _fraction(unsure, counted & ~wrong, none=0.0),
        "num_wrong": int(wrong.sum()),
        "by_confidence": [
            {"confidence": name, "tokens": int(group.sum()), "wrong_fraction": _fraction(wrong, group)}
            for name, group in groups.items()
        ],
    }


def _fraction(of: np.ndarray, among: np.ndarray, none: float | None = None) -> float | None:
    return float(of[among].mean()) if among.any() else none
