"""Memory files of version 2: a header, then segments. An append adds a segment, and never rewrites what is stored.

Each is a frame (`frames`). The header's index is JSON: the format version and `About`. A segment's index is a line of
JSON, `[name, chunks, continues]` of each document, then `Block.numbers` as int32; its body is `Block.data`. Damage in a
body is damage of one chunk; where an index is damaged, the chunks of its segment are lost, and no others.
"""

import fcntl
import itertools
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memlm.runtime.files import atomic_file, write_failed
from memlm.store.block import BYTES, FORMAT_VERSION, RAW, About, Block, Part, about_of, record_bytes
from memlm.store.frames import Frame, encoded, frames
from memlm.store.lock import only_writer
from memlm.store.store import Document, require_open

SEGMENT_CHUNKS = 256
"""Chunks after which a file that is written as a whole begins another segment."""
LOST = "(damaged)"
"""Stands for the documents of chunks whose segment has a damaged index."""
_Contents = tuple[Sequence[tuple[str, int, bool]], NDArray[np.int32], NDArray[np.int64]]
"""Each document's name, its chunks, and whether they continue the one before; all `numbers`; where records begin."""


class SegmentStore:
    """A file of version 2, opened: its indexes are in memory, its chunks are read when asked for."""

    def __init__(self, path: Path) -> None:
        """Open.

        Raises:
            ValueError: it is no such file, or of a newer version, or its header is damaged.
        """
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self._file)
        header = next(frames(self._file, 0, os.fstat(self._file).st_size), None)
        if header is None or header.index is None:
            raise ValueError(f"{path} is no memory file, or its header is damaged or it is cut short")
        self.about = about_of(path, json.loads(header.index))
        self.documents: tuple[Document, ...] = ()
        self.numbers = Block.of([]).numbers
        self._begins = np.zeros(0, np.int64)
        """[chunk], where its record begins in the file; -1 if that is not known any more."""
        self.end = header.end
        """Where the last whole segment ends."""
        self.read_on()

    def read_on(self) -> None:
        """Read the indexes of the segments after `end`."""
        documents, numbers, begins, count = [*self.documents], [self.numbers], [self._begins], len(self.numbers)
        self.file_bytes = os.fstat(self._file).st_size
        for frame in frames(self._file, self.end, self.file_bytes):
            for parts, rows, places in self._read_index(frame, count):
                numbers.append(rows)
                begins.append(places)
                sizes = iter(rows[:, BYTES].tolist())
                for name, num_chunks, continues in parts:
                    start, num_bytes = count, sum(itertools.islice(sizes, num_chunks))
                    if continues and documents and documents[-1].name == name:  # not where its beginning is lost
                        last = documents.pop()
                        start, num_bytes = last.start_chunk, last.num_bytes + num_bytes
                    count += num_chunks
                    documents.append(Document(name, start, count, num_bytes))
            self.end = frame.end
        self.documents = tuple(documents)
        self.numbers, self._begins = np.concatenate(numbers), np.concatenate(begins)

    def _read_index(self, frame: Frame, count: int) -> Iterator[_Contents]:
        """The chunks that are lost before or in this frame, the one after `count` others, and those that are not."""
        lost = 0 if frame.first_chunk is None else max(0, frame.first_chunk - count)
        if frame.index is None:
            lost += max(1, frame.num_chunks)  # one, where nothing was lost but empty documents
        if lost:
            rows = np.zeros((lost, 5), np.int32)
            rows[:, RAW] = 1
            yield [(LOST, lost, False)], rows, np.full(lost, -1)
        if frame.index is not None:
            line, _, rest = frame.index.partition(b"\n")
            rows = np.frombuffer(rest, "<i4").reshape(-1, 5)
            sizes = record_bytes(rows, self.about)
            yield json.loads(line), rows, frame.body + np.cumsum(sizes) - sizes

    @property
    def torn_bytes(self) -> int:
        """At the end of the file, of a segment that is not whole."""
        return self.file_bytes - self.end

    @property
    def is_closed(self) -> bool:
        """Whether only its index can be read."""
        return not self._close.alive

    def close(self) -> None:
        """Let go of the file."""
        self._close()

    def block(self, start: int, stop: int) -> Block:
        """Some chunks; a record that cannot be read is zeros, which its checksum tells."""
        require_open(self)
        numbers, begins = self.numbers[start:stop], self._begins[start:stop]
        ends = begins + record_bytes(numbers, self.about)
        runs = np.split(np.arange(stop - start), np.flatnonzero((begins[1:] != ends[:-1]) | (begins[1:] < 0)) + 1)
        return Block(numbers, b"".join(self._bytes(begins[run[0]], ends[run[-1]]) for run in runs if len(run)))

    def _bytes(self, begin: int, end: int) -> bytes:
        data = b"" if begin < 0 else os.pread(self._file, end - begin, begin)
        return data.ljust(end - begin, b"\0")

    @contextmanager
    def writing(self) -> Iterator["SegmentWriter"]:
        """Within this, nobody else writes the file; the writer's store is the file as it is then."""
        require_open(self)
        with only_writer(self.path) as file:
            is_this = os.path.samestat(os.fstat(self._file), os.fstat(file))
            store = self if is_this else SegmentStore(self.path)
            store.read_on()
            yield SegmentWriter(store, file)


class SegmentWriter:
    """Writes a file that is locked."""

    def __init__(self, store: SegmentStore, file: int) -> None:
        self.store, self._file = store, file

    def append(self, parts: Sequence[Part]) -> None:
        """Add a segment, all or nothing; it is on the disk when this returns.

        Raises:
            OSError: the disk is full or not writable; what was there still is.
        """
        data, end = memoryview(_segment(len(self.store.numbers), parts)), self.store.end
        try:
            os.ftruncate(self._file, end)  # without what an append that never finished has left
            done = 0
            while done < len(data):
                done += os.pwrite(self._file, data[done:], end + done)
            os.fsync(self._file)
        except BaseException as error:
            with suppress(OSError):
                os.ftruncate(self._file, end)
            if isinstance(error, OSError):
                raise write_failed(self.store.path, error) from error
            raise
        self.store.read_on()

    def replace(self, parts: Iterable[Part]) -> None:
        """Write another file in the place of this one, all or nothing; the last thing that this writer can do."""
        write_file(self.store.path, self.store.about, parts)
        self.store = SegmentStore(self.store.path)


def write_file(path: Path, about: About, parts: Iterable[Part]) -> None:
    """Write a file, all or nothing, in segments of about `SEGMENT_CHUNKS`.

    Raises:
        OSError: the disk is full or not writable; what was there still is.
    """
    header = {"format_version": FORMAT_VERSION, "memlm": metadata.version("memlm"), **asdict(about)}
    with atomic_file(path) as temporary, temporary.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # spares it from `remove_leftovers`
        file.write(encoded(0, 0, json.dumps(header).encode(), b""))
        first, group, count = 0, list[Part](), 0
        for part in parts:
            group.append(part)
            count += len(part.block.numbers)
            if count >= SEGMENT_CHUNKS:
                file.write(_segment(first, group))
                first, group, count = first + count, [], 0
        if group:
            file.write(_segment(first, group))


def _segment(first_chunk: int, parts: Sequence[Part]) -> bytes:
    documents = [[part.name, len(part.block.numbers), part.continues] for part in parts]
    numbers = np.concatenate([Block.of([]).numbers, *(part.block.numbers for part in parts)]).astype("<i4")
    index = json.dumps(documents).encode() + b"\n" + numbers.tobytes()
    return encoded(first_chunk, len(numbers), index, b"".join(part.block.data for part in parts))
