"""Writing memory files: one writer at a time, and all or nothing."""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from memlm.runtime.files import atomic_file, write_failed
from memlm.store.chunk import About, Part
from memlm.store.lock import only_writer
from memlm.store.segments import file_frames, segment
from memlm.store.store import MemoryStore, file_version


class Writer:
    """Writes a file that is locked."""

    def __init__(self, store: MemoryStore, file: int) -> None:
        self.store, self._file = store, file

    def append(self, parts: Sequence[Part]) -> None:
        """Add a segment, all or nothing; it is on the disk when this returns.

        Raises:
            OSError: the disk is full or not writable; what was there still is.
        """
        data, end = memoryview(segment(len(self.store.numbers), parts)), self.store.end
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
        self.store = MemoryStore(self.store.path)


@contextmanager
def writing(store: MemoryStore) -> Iterator[Writer]:
    """Within this, nobody else writes the file; the writer's store is the file as it is then.

    A file of version 1 is converted first, once, all or nothing.

    Raises:
        ValueError: the store is closed.
        OSError: somebody else is writing, or the file is not writable.
    """
    store.require_open()
    if store.version == 1:
        with only_writer(store.path):
            if file_version(store.path) == 1:  # nobody has converted it since it was opened
                current = MemoryStore(store.path)
                write_file(store.path, current.about, current.parts())
    with only_writer(store.path) as file:
        now = store if store.is_of(file) else MemoryStore(store.path)
        now.read_on()
        yield Writer(now, file)


def write_file(path: Path, about: About, parts: Iterable[Part]) -> None:
    """Write a file, all or nothing.

    Raises:
        OSError: the disk is full or not writable; what was there still is.
    """
    with atomic_file(path) as temporary, temporary.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # spares it from `remove_leftovers`
        file.writelines(file_frames(about, parts))
