"""A memory file, opened: its indexes are in memory, its chunks are read when asked for, and what is damaged is told."""

import itertools
import operator
import os
import reprlib
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memlm.runtime.files import what_is
from memlm.runtime.untrusted import json_of
from memlm.store import chunk as version3
from memlm.store import version2
from memlm.store.chunk import CHECK_BYTES, FORMAT_VERSION, NUMBERS, About, Block, Coding, Part, StoredChunk
from memlm.store.segments import MAGIC, Frame, file_frames, frames
from memlm.store.version1 import read_version1

READ_CHUNKS = 256
"""Chunks read, and copied, at once."""
LOST = "(damaged)"
"""Stands for the documents of chunks whose segment has a damaged index."""
LOST_CHUNK = "lost"
"""Why a chunk of such a segment cannot be given back; all that is known of it is 0."""
_MOST_LOST = 1 << 22
"""Chunks that may be missing from a file besides those that its bytes could be."""
_EXPECTED = "not a memory file, which memlm remember makes"
_HEAD_BYTES = 1 << 16
"""Within which the copy of a header begins."""
_Contents = tuple[Sequence[tuple[str, int, bool | None, bool | None]], NDArray[np.void], NDArray[np.int64]]
"""Each document's name, its chunks, whether they continue the one before, and whether it goes on after them (None where
that is not known); all `numbers`; where records begin."""


class Document(NamedTuple):
    """A text of a file."""

    name: str
    start_chunk: int
    stop_chunk: int
    num_bytes: int


class DamagedChunkError(ValueError):
    """A chunk that cannot be given back."""

    def __init__(self, where: str, number: int, why: str) -> None:
        super().__init__(
            f"{where} is {why}; the others can be read: give a range without it, or skip it with on_damage"
        )
        self.where, self.number, self.why = where, number, why


OnDamage = Callable[[DamagedChunkError], object]
"""Called with each chunk that cannot be given back, which is then left out."""


class MemoryStore:
    """A snapshot of a memory file, which later writers do not change.

    Files of version 1 are read as a temporary copy in the present version; blocks of version 2 become present ones as
    they are read.

    Raises:
        ValueError: no such file, or it is no memory file, damaged, cut short, or of a newer version; says which.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = file_version(path)
        self._file = _converted(path) if self.version == 1 else os.open(path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size if self.version else 0
        header = next(frames(self._file, 0, size), None)
        if header is not None and header.index is None:
            copy = next(frames(self._file, header.body, size), None)
            header = copy if copy is not None and copy.end == 2 * header.body else None  # the two are equally long
        if header is None or header.index is None or b"\n" in header.index:
            if not self.version and (what := what_is(path)) != "a file":
                raise ValueError(f"{path} is {what}, {_EXPECTED}")
            raise ValueError(f"{path} is no memory file, or its header is damaged or it is cut short")
        try:
            about = json_of(header.index)
        except ValueError as error:
            raise ValueError(f"{path} is damaged in its header: {error}") from None
        self.about = About.of(path, about)
        self._layout = version2 if about["format_version"] == 2 else version3
        self.version = min(self.version, about["format_version"])
        self.documents: tuple[Document, ...] = ()
        self.numbers = np.zeros(0, NUMBERS)
        """[chunk], what is known of each without reading it."""
        self._begins = np.zeros(0, np.int64)
        """[chunk], where its record begins in the file; -1 if that is not known any more."""
        self._goes_on: bool | None = False
        """Whether there is more of the last document, if that is known."""
        self.end = header.end
        """Where the last whole segment ends."""
        self.read_on()

    def read_on(self) -> None:
        """Read the indexes of the segments after `end`."""
        documents, numbers, begins, count = [*self.documents], [self.numbers], [self._begins], len(self.numbers)
        size = os.fstat(self._file).st_size
        for parts, rows, places in self._contents(size):
            numbers.append(rows)
            begins.append(places)
            sizes = iter(rows["num_bytes"].tolist())
            for name, num_chunks, continues, goes_on in parts:
                start, num_bytes = count, sum(itertools.islice(sizes, num_chunks))
                if continues is None and self._goes_on is not False:  # lost, and perhaps of the document before
                    name, continues = documents[-1].name, True
                if continues and documents:
                    last = documents.pop()
                    if last.name == name:
                        start, num_bytes = last.start_chunk, last.num_bytes + num_bytes
                    else:  # its beginning is lost: at least the chunk before it
                        start -= 1
                        documents += [last._replace(stop_chunk=start)] if last.start_chunk < start else []
                count += num_chunks
                documents.append(Document(name, start, count, num_bytes))
                self._goes_on = goes_on
        self.documents = tuple(documents)
        self.numbers, self._begins = np.concatenate(numbers), np.concatenate(begins)
        self.torn_bytes = size - self.end
        """At the end of the file, of a segment that is not whole."""
        self.file_bytes = self.path.stat().st_size if self.version == 1 else size

    def _contents(self, size: int) -> Iterator[_Contents]:
        """Of the segments after `end`: the chunks that are lost before or in each, and those that are not."""
        count = len(self.numbers)
        most = size // CHECK_BYTES + _MOST_LOST
        for frame in frames(self._file, self.end, size):
            lost = 0 if frame.first_chunk is None else max(0, frame.first_chunk - count)
            if frame.index is None:
                lost += max(1, frame.num_chunks)  # one, where nothing was lost but empty documents
            if count + lost > most:
                raise ValueError(
                    f"{self.path} is damaged: its segment at byte {self.end} says that {lost} chunks are lost, more "
                    f"than a file of {size} bytes can have had"
                )
            if lost:
                yield _lost(lost)
            count += lost
            if frame.index is not None:
                parts, rows, begins = self._indexed(frame)
                yield parts, rows, begins
                count += len(rows)
            self.end = frame.end
        if self._goes_on:  # the file was cut short within the last document
            yield _lost(1)

    def _indexed(self, frame: Frame) -> _Contents:
        """What a segment's index says, if it can be: its checksum is right, but not everyone's files are ours."""
        assert frame.index is not None
        line, newline, rest = frame.index.partition(b"\n")
        if not newline:
            raise ValueError(
                f"{self.path} holds the header of another memory file, which begins at byte {self.end}: "
                "split them there, and join them with extend()"
            )
        body = frame.end - frame.body
        try:
            if frame.num_chunks > body // CHECK_BYTES:
                raise ValueError(f"{frame.num_chunks} chunks are more than {body} bytes hold")
            rows = self._layout.numbers_of(rest, frame.num_chunks)
            sizes = self._layout.record_bytes(rows, self.about)
            if len(rows) != frame.num_chunks or any((rows[name] < 0).any() for name in NUMBERS.names or ()):
                raise ValueError("its chunks are not as many as it says, or have numbers below 0")
            if int(sizes.sum()) != body:
                raise ValueError(f"its chunks take {sizes.sum()} bytes, not {body}")
            parts = [_part(each) for each in json_of(line)]
            if sum(part[1] for part in parts) != len(rows):
                raise ValueError(f"its documents have other chunks than the {len(rows)} that there are")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path} is damaged: its segment at byte {self.end} cannot be: {error}") from None
        return parts, rows, frame.body + np.cumsum(sizes) - sizes

    @property
    def is_closed(self) -> bool:
        """Whether only its index can be read."""
        return not self._close.alive

    def close(self) -> None:
        """Let go of the file; what is in the index is still known."""
        self._close()

    def require_open(self) -> None:
        """Raise ValueError where it was closed."""
        if self.is_closed:
            raise ValueError(f"{self.path} is closed; open it again")

    def is_of(self, file: int) -> bool:
        """Whether this is an opened file."""
        return os.path.samestat(os.fstat(self._file), os.fstat(file))

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Some consecutive chunks, at most `READ_CHUNKS` at once."""
        return (self._block(first, min(first + READ_CHUNKS, stop)) for first in range(start, stop, READ_CHUNKS))

    def _block(self, start: int, stop: int) -> Block:
        """Some chunks; a record that cannot be read is zeros, which its checksum tells."""
        self.require_open()
        numbers, begins = self.numbers[start:stop], self._begins[start:stop]
        ends = begins + self._layout.record_bytes(numbers, self.about)
        runs = np.split(np.arange(stop - start), np.flatnonzero((begins[1:] != ends[:-1]) | (begins[1:] < 0)) + 1)
        data = b"".join(self._bytes(begins[run[0]], ends[run[-1]]) for run in runs)
        return self._layout.present(Block(numbers, data), self.about)

    def _bytes(self, begin: int, end: int) -> bytes:
        data = b"" if begin < 0 else os.pread(self._file, end - begin, begin)
        return data.ljust(end - begin, b"\0")

    def read(
        self, start: int = 0, stop: int | None = None, on_damage: OnDamage | None = None
    ) -> Iterator[list[tuple[int, StoredChunk]]]:
        """Chunks and their numbers, so many at a time.

        Raises:
            ValueError: there are no such chunks; the store is closed.
            DamagedChunkError: one of them is damaged, and there is no `on_damage`.
        """
        self.require_open()
        start, stop = self.chunk_range(start, stop)
        for block in self.blocks(start, stop):
            numbered = []
            for number, (chunk, is_whole) in enumerate(block.chunks(self.about), start):
                if is_whole:
                    numbered.append((number, chunk))
                else:
                    self.report(number, "damaged" if chunk.num_bytes else LOST_CHUNK, on_damage)
            start += len(block.numbers)
            yield numbered

    def document_of(self, number: int) -> Document:
        """The document that a chunk is of."""
        return next(one for one in self.documents if one.start_chunk <= number < one.stop_chunk)

    def report(self, number: int, why: str, on_damage: OnDamage | None) -> None:
        """Tell of a chunk that cannot be given back, or raise."""
        of = repr(self.document_of(number).name)
        if why == LOST_CHUNK:
            known = np.r_[-1, np.flatnonzero(self.numbers["num_bytes"]), len(self.numbers)]
            after = np.searchsorted(known, number)
            of += f"; chunks {known[after - 1] + 1}:{known[after]} are lost"
        error = DamagedChunkError(f"{self.path}: chunk {number} (of {of})", number, why)
        if on_damage is None:
            raise error
        on_damage(error)

    def chunk_range(self, start: int, stop: int | None) -> tuple[int, int]:
        """Both ends of a range of chunks.

        Raises:
            ValueError: there are no such chunks.
            TypeError: these are not numbers.
        """
        num_chunks = len(self.numbers)
        stop = num_chunks if stop is None else stop
        try:
            start, stop = operator.index(start), operator.index(stop)
        except TypeError:
            raise TypeError(
                f"chunks are counted: start and stop are whole numbers, not {start!r} and {stop!r}; "
                "by its name a text is had as notes[name]"
            ) from None
        if not 0 <= start <= stop <= num_chunks:
            raise ValueError(f"{self.path} has chunks 0:{num_chunks}, not {start}:{stop}")
        return start, stop

    def has_chunks_of(self, other: "MemoryStore", start: int, stop: int) -> bool:
        """Whether a range of chunks is the same here as in another store."""
        if self is other or stop > len(self.numbers):
            return self is other
        pairs = zip(self.blocks(start, stop), other.blocks(start, stop), strict=True)
        return all(one.data == two.data for one, two in pairs)

    def parts(self, *, without: tuple[int, int] = (0, 0)) -> Iterator[Part]:
        """All of it, read as it is asked for, but for a range of chunks, and documents of which nothing is left."""
        start, stop = without
        for document in self.documents:
            before = self.blocks(document.start_chunk, min(document.stop_chunk, start))
            after = self.blocks(max(document.start_chunk, stop), document.stop_chunk)
            number = -1
            for number, block in enumerate(itertools.chain(before, after)):
                yield Part(document.name, block, continues=number > 0)
            if document.start_chunk == document.stop_chunk:
                yield Part(document.name, Block.of([], self.about))


def file_version(path: Path) -> int:
    """The version of a memory file by its first bytes, 1 or at most the present; 0 where it is none.

    Raises:
        ValueError: there is no such file.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, {_EXPECTED}")
    if not path.is_file():
        raise ValueError(f"there is no memory file {path}")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    # As safetensors files begin: with a length that fits, and a brace. No text does.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return 1
    return FORMAT_VERSION if MAGIC in head else 0  # in the header's copy, where the header itself is damaged


def _part(told: Any) -> tuple[str, int, bool | None, bool | None]:
    """What an index says of a document."""
    name, num_chunks, continues, goes_on = (*told, None)[:4]
    if type(name) is not str or type(num_chunks) is not int or num_chunks < 0:
        raise ValueError(f"{reprlib.repr(told)} is no document")
    if type(continues) is not bool or type(goes_on) not in (bool, type(None)):
        raise ValueError(f"{reprlib.repr(told)} is no document")
    return name, num_chunks, continues, goes_on


def _lost(num_chunks: int) -> _Contents:
    """Chunks of which nothing is known."""
    rows = np.zeros(num_chunks, NUMBERS)
    rows["coding"] = Coding.RAW
    return [(LOST, num_chunks, None, None)], rows, np.full(num_chunks, -1)


def _converted(path: Path) -> int:
    """A temporary file of the present version, opened."""
    about, parts = read_version1(path)
    with tempfile.TemporaryFile() as file:
        file.writelines(file_frames(about, parts))
        file.flush()
        return os.dup(file.fileno())
