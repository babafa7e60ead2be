"""Windows: consecutive chunks of one document, on one grid, so that what is known of a chunk serves every window."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memlm.data.chunks import Chunks, LazyChunks


class Windows(NamedTuple):
    """Windows of consecutive chunks; where a document ends early, the rest is masked."""

    tokens: NDArray[np.int64]
    """[window chunk token]"""
    mask: NDArray[np.bool_]
    """[window chunk token], True for a real token."""
    chunk: NDArray[np.int64]
    """[window chunk], the chunk's row; of a masked chunk, any."""
    document: NDArray[np.int64]
    """[window]"""

    def rows(self, index: slice | NDArray[np.int64]) -> "Windows":
        """Some of the windows."""
        return Windows._make(part[index] for part in self)


def gather_windows(chunks: Chunks | LazyChunks, first: NDArray[np.int64], num_chunks: int) -> Windows:
    """The windows that begin with these of a text's chunks, which `split_into_chunks` has put in order."""
    index = np.minimum(first[:, None] + np.arange(num_chunks), len(chunks.document) - 1)
    follows = first[:, None] + np.arange(num_chunks) == index
    present = follows & (chunks.document[index] == chunks.document[first][:, None])
    tokens, mask, _ = chunks.rows(index.ravel())
    mask = mask.reshape(*index.shape, -1) & present[..., None]
    return Windows(np.where(mask, tokens.reshape(mask.shape), 0), mask, index, chunks.document[first])


def sample_windows(chunks: Chunks | LazyChunks, num_chunks: int, num_windows: int, *, seed: int, step: int) -> Windows:
    """Windows that begin at uniformly random chunks; a function of `seed` and `step`, so resuming needs no state."""
    first = np.random.default_rng([seed, step]).integers(len(chunks.document), size=num_windows)
    return gather_windows(chunks, first, num_chunks)


def all_windows(chunks: Chunks, num_chunks: int) -> Windows:
    """Windows that cover every chunk once, document after document."""
    starts = np.flatnonzero(np.diff(chunks.document, prepend=-1))
    place = np.arange(len(chunks.document)) - np.repeat(starts, np.diff(starts, append=len(chunks.document)))
    return gather_windows(chunks, np.flatnonzero(place % num_chunks == 0), num_chunks)
