"""Chunks: fixed numbers of consecutive tokens of one document, the last padded, with a mask; and windows of chunks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memlm.data.token_store import TokenSplit


class Chunks(NamedTuple):
    """Chunks of one length; padding is token 0 where `mask` is False."""

    tokens: NDArray[np.int64]
    """[chunk token]"""
    mask: NDArray[np.bool_]
    """[chunk token], True for a real token."""
    document: NDArray[np.int64]
    """[chunk], the index of the document it comes from."""

    @property
    def chunk_len(self) -> int:
        """Positions of each chunk."""
        return self.tokens.shape[1]

    def rows(self, index: slice | NDArray[np.int64]) -> "Chunks":
        """Some of the chunks."""
        return Chunks(self.tokens[index], self.mask[index], self.document[index])


class LazyChunks(NamedTuple):
    """Chunks that are yet to be read: where each begins. A corpus larger than memory can be had so."""

    split: TokenSplit
    chunk_len: int
    document: NDArray[np.int64]
    """[chunk], the index of the document it comes from."""
    begin: NDArray[np.int64]
    """[chunk], its first token in the split."""

    def rows(self, index: slice | NDArray[np.int64]) -> Chunks:
        """Some of the chunks, read."""
        return gather(self.split, self.begin[index], self.chunk_len, self.chunk_len)


class Windows(NamedTuple):
    """Windows of consecutive chunks of a document, on one grid, so that what is known of a chunk serves every window.

    Where a document ends early, the rest is masked.
    """

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


def split_into_chunks(split: TokenSplit, chunk_len: int) -> Chunks:
    """All consecutive chunks of every document, in order."""
    return lazy_chunks(split, chunk_len).rows(slice(None))


def lazy_chunks(split: TokenSplit, chunk_len: int) -> LazyChunks:
    """The same, not yet read."""
    num_chunks = -(-np.diff(split.document_starts) // chunk_len)
    document = np.repeat(np.arange(len(num_chunks)), num_chunks)
    first_chunk = np.cumsum(num_chunks) - num_chunks
    place = np.arange(len(document)) - first_chunk[document]
    return LazyChunks(split, chunk_len, document, split.document_starts[document] + place * chunk_len)


def sample_chunks(
    split: TokenSplit,
    chunk_len: int,
    num_chunks: int,
    *,
    seed: int,
    step: int,
    short_fraction: float,
    shortest: int = 1,
    from_start: bool = False,
) -> Chunks:
    """Chunks that begin at uniformly random tokens; a function of `seed` and `step`, so resuming needs no state.

    A chunk that would pass its document's end is padded instead. A share of chunks, `short_fraction`, are shortened to
    a random length of `shortest` or more, as often to 1 or 2 tokens as to 32 to 64. With `from_start` they are the
    beginnings of random documents instead.
    """
    draw: Any = {"seed": seed, "step": step, "short_fraction": short_fraction, "shortest": shortest}
    return gather(split, *sample_spans(split, chunk_len, num_chunks, from_start=from_start, **draw), chunk_len)


def sample_spans(
    split: TokenSplit,
    chunk_len: int,
    num_chunks: int,
    *,
    seed: int,
    step: int,
    short_fraction: float,
    shortest: int = 1,
    from_start: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the chunks of `sample_chunks` begin, and how long they may be."""
    random = np.random.default_rng([seed, step])
    if from_start:
        begin = split.document_starts[random.integers(len(split.document_starts) - 1, size=num_chunks)]
    else:
        begin = random.integers(len(split.tokens), size=num_chunks)
    short = random.random(num_chunks) < short_fraction
    # Log-uniform: one more than a length lies anywhere between powers of two with the same probability.
    lowest, highest = np.log(shortest + 1), np.log(chunk_len + 2)
    lengths = np.exp(random.uniform(lowest, highest, size=num_chunks)).astype(int) - 1
    return begin, np.where(short, lengths.clip(shortest, chunk_len), chunk_len)


def excerpts(split: TokenSplit, chunk_len: int, length: int, most: int) -> Chunks:
    """Pieces of `length` tokens, at most so many, from all over the documents that are long enough."""
    lengths = np.diff(split.document_starts)
    starts_of = np.maximum(lengths - length + 1, 0)
    total = int(starts_of.sum())
    place = np.unique(np.linspace(0, max(total - 1, 0), min(most, total)).astype(np.int64))
    document = np.searchsorted(np.cumsum(starts_of), place, side="right")
    begin = split.document_starts[document] + place - (np.cumsum(starts_of) - starts_of)[document]
    return gather(split, begin, length, chunk_len)


def beginnings(split: TokenSplit, chunk_len: int, length: int) -> Chunks:
    """The first `length` tokens of each document that has so many."""
    document = np.flatnonzero(np.diff(split.document_starts) >= length)
    return gather(split, split.document_starts[document], length, chunk_len)


def scramble(chunks: Chunks, vocab_size: int, *, fraction: float, seed: int, step: int) -> Chunks:
    """Replace tokens by uniformly random ones in a `fraction` of the chunks; a function of `seed` and `step`.

    The share replaced is itself uniform in [0, 1] for each such chunk, from nearly prose to pure noise.
    """
    random = np.random.default_rng([seed, step, 1])
    chosen = random.random((len(chunks.tokens), 1)) < fraction
    replaced = random.random(chunks.tokens.shape) < chosen * random.random((len(chunks.tokens), 1))
    noise = random.integers(vocab_size, size=chunks.tokens.shape)
    return chunks._replace(tokens=np.where(replaced & chunks.mask, noise, chunks.tokens))


def insert_repetitions(chunks: Chunks, vocab_size: int, *, fraction: float, seed: int, step: int) -> Chunks:
    """Put repetitions into a `fraction` of the chunks; a function of `seed` and `step`.

    One to four random tokens, again and again: over all of the chunk in half of them, over any stretch in the others.
    """
    random = np.random.default_rng([seed, step, 2])
    rows, length = chunks.tokens.shape
    chosen, whole = random.random((rows, 1)) < fraction, random.random((rows, 1)) < 0.5
    begin, end = np.sort(random.integers(length + 1, size=(rows, 2)), axis=1).T[..., None]
    position = np.arange(length)
    there = chosen & chunks.mask & (whole | ((position >= begin) & (position < end)))
    cycle = random.integers(vocab_size, size=(rows, 4))
    repeated = np.take_along_axis(cycle, position % random.integers(1, 5, size=(rows, 1)), axis=1)
    return chunks._replace(tokens=np.where(there, repeated, chunks.tokens))


def concat_chunks(parts: Sequence[Chunks]) -> Chunks:
    """Chunks of one length, after each other; `document` tells documents apart within each part only."""
    return Chunks(*map(np.concatenate, zip(*parts, strict=True)))


def with_end_tokens(chunks: Chunks, end_token: int) -> Chunks:
    """Full chunks: what stood empty is the end token now."""
    return chunks._replace(tokens=np.where(chunks.mask, chunks.tokens, end_token), mask=np.ones_like(chunks.mask))


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


def gather(split: TokenSplit, begin: NDArray[np.int64], max_len: NDArray[np.int64] | int, chunk_len: int) -> Chunks:
    """Chunks [chunk token] that begin at given tokens [chunk] and end with their document, or after `max_len`."""
    document = np.searchsorted(split.document_starts, begin, side="right") - 1
    length = np.minimum(max_len, split.document_starts[document + 1] - begin)
    position = np.arange(chunk_len)
    mask = position < length[:, None]
    # Padding reads the split's last token, which always exists, and is then overwritten.
    index = np.minimum(begin[:, None] + position, len(split.tokens) - 1)
    tokens: NDArray[Any] = np.asarray(split.tokens)[index]
    return Chunks(np.where(mask, tokens, 0).astype(np.int64, copy=False), mask, document)
