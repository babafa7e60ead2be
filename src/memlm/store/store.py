"""What a store of memories can do, whatever its format; reading from any of them, and what is damaged in it."""

import operator
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

from memlm.store.block import About, Block, Part
from memlm.store.chunk import StoredChunk

READ_CHUNKS = 256
"""Chunks read, and copied, at once."""


class Document(NamedTuple):
    """A text of a store."""

    name: str
    start_chunk: int
    stop_chunk: int
    num_bytes: int


class Writer(Protocol):
    """A store that nobody else can write."""

    @property
    def store(self) -> "MemoryStore":
        """What is in it now."""

    def append(self, parts: list[Part]) -> None:
        """Add chunks: all of them or none, and all are on the disk when this returns.

        Raises:
            OSError: the disk is full or not writable; what was there still is.
        """

    def replace(self, parts: Iterator[Part]) -> None:
        """Store these chunks instead, all or nothing; same errors as `append`."""


class MemoryStore(Protocol):
    """Where chunks are stored: a snapshot, which later writers do not change. One class for each format."""

    path: Path
    about: About
    documents: tuple[Document, ...]
    numbers: Int[np.ndarray, "chunk 5"]
    """What is known of each chunk without reading it (`block`)."""
    file_bytes: int

    @property
    def torn_bytes(self) -> int:
        """At the end of the file, of an append that did not finish, or because the file was cut short."""

    @property
    def is_closed(self) -> bool:
        """Whether only its index can be read."""

    def block(self, start: int, stop: int) -> Block:
        """Some consecutive chunks; nothing else is read."""

    def writing(self) -> AbstractContextManager[Writer]:
        """Within this, nobody else writes.

        Raises:
            OSError: somebody else does, or it is not writable.
        """

    def close(self) -> None:
        """Let go of the file; what is in the index is still known."""


class DamagedChunkError(ValueError):
    """A chunk that cannot be given back."""

    def __init__(self, where: str, number: int, why: str) -> None:
        super().__init__(
            f"{where} is {why}; the others can be read: give a range without it, or skip it with on_damage"
        )
        self.where, self.number, self.why = where, number, why


OnDamage = Callable[[DamagedChunkError], object]
"""Called with each chunk that cannot be given back, which is then left out."""


def require_open(store: MemoryStore) -> None:
    """Raise ValueError where the store was closed."""
    if store.is_closed:
        raise ValueError(f"{store.path} is closed; open it again")


def read(
    store: MemoryStore, start: int = 0, stop: int | None = None, on_damage: OnDamage | None = None
) -> Iterator[list[tuple[int, StoredChunk]]]:
    """Chunks and their numbers, so many at a time.

    Raises:
        ValueError: there are no such chunks; the store is closed.
        DamagedChunkError: one of them is damaged, and there is no `on_damage`.
    """
    require_open(store)
    start, stop = chunk_ends(store, start, stop)
    for first in range(start, stop, READ_CHUNKS):
        block = store.block(first, min(first + READ_CHUNKS, stop))
        numbered = []
        for number, (chunk, is_whole) in enumerate(block.chunks(store.about), first):
            if is_whole:
                numbered.append((number, chunk))
            else:
                report(store, number, "damaged", on_damage)
        yield numbered


def report(store: MemoryStore, number: int, why: str, on_damage: OnDamage | None) -> None:
    """Tell of a chunk that cannot be given back, or raise."""
    document = next(one for one in store.documents if one.start_chunk <= number < one.stop_chunk)
    error = DamagedChunkError(f"{store.path}: chunk {number} (of {document.name!r})", number, why)
    if on_damage is None:
        raise error
    on_damage(error)


def damaged(store: MemoryStore) -> list[int]:
    """The chunks that are not as they were written."""
    damage: list[DamagedChunkError] = []
    for _ in read(store, on_damage=damage.append):
        pass
    return [error.number for error in damage]


def chunk_ends(store: MemoryStore, start: int, stop: int | None) -> tuple[int, int]:
    """Both ends of a range of chunks.

    Raises:
        ValueError: there are no such chunks.
        TypeError: these are not numbers.
    """
    num_chunks = len(store.numbers)
    stop = num_chunks if stop is None else stop
    try:
        start, stop = operator.index(start), operator.index(stop)
    except TypeError:
        raise TypeError(
            f"chunks are counted: start and stop are whole numbers, not {start!r} and {stop!r}; "
            "by its name a text is had as notes[name]"
        ) from None
    if not 0 <= start <= stop <= num_chunks:
        raise ValueError(f"{store.path} has chunks 0:{num_chunks}, not {start}:{stop}")
    return start, stop


def same_chunks(one: MemoryStore, other: MemoryStore, start: int, stop: int) -> bool:
    """Whether two stores have the same chunks in a range."""
    if stop > len(other.numbers):
        return False
    ranges = ((first, min(first + READ_CHUNKS, stop)) for first in range(start, stop, READ_CHUNKS))
    return one is other or all(one.block(*some).data == other.block(*some).data for some in ranges)


def parts_of(store: MemoryStore, *, without: tuple[int, int] = (0, 0)) -> Iterator[Part]:
    """All of a store, read as it is asked for, but for a range of chunks; documents stay, if empty."""
    start, stop = without
    for document in store.documents:
        continues = False
        before = document.start_chunk, min(document.stop_chunk, start)
        after = max(document.start_chunk, stop), document.stop_chunk
        for begin, end in (before, after):
            for first in range(begin, end, READ_CHUNKS):
                yield Part(document.name, store.block(first, min(first + READ_CHUNKS, end)), continues)
                continues = True
        if not continues:
            yield Part(document.name, Block.of([]))
