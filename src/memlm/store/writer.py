"""Writing memory files, all or nothing, one writer at a time: a lock on the file itself ends with its holder."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from memlm.runtime.files import atomic_file, locked, remove_leftovers, write_failed
from memlm.store.chunk import FORMAT_VERSION, About, Part
from memlm.store.segments import file_frames, segment
from memlm.store.store import MemoryStore

_LOCKS = Path("/proc/locks")
_ANOTHER = "is being written by {}; try again when it is done"


class Writer:
    """Writes a file that is locked."""

    def __init__(self, store: MemoryStore, file: int) -> None:
        self.store, self._file = store, file

    def append(self, parts: Sequence[Part], goes_on: bool | None = False) -> None:
        """Add a segment, all or nothing; it is on the disk when this returns.

        `goes_on` is whether more of the last document follows; None where that is not known.

        Raises:
            OSError: the disk is full or not writable; what was there still is.
        """
        data, end = memoryview(segment(len(self.store.numbers), parts, goes_on)), self.store.end
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

    A file of an earlier version is converted first, once, all or nothing.

    Raises:
        ValueError: the store is closed.
        OSError: somebody else is writing, or the file is not writable.
    """
    store.require_open()
    if store.version < FORMAT_VERSION:
        with only_writer(store.path):
            current = MemoryStore(store.path)
            if current.version < FORMAT_VERSION:  # nobody has converted it since it was opened
                write_file(store.path, current.about, current.parts())
    with only_writer(store.path) as file:
        now = store if store.is_of(file) else MemoryStore(store.path)
        now.read_on()
        yield Writer(now, file)


def write_file(path: Path, about: About, parts: Iterable[Part], *, new: bool = False) -> None:
    """Write a file, all or nothing; a new one only where nobody else has made one meanwhile.

    Raises:
        OSError: the disk is full or not writable; what was there still is.
    """
    try:
        with atomic_file(path, new=new) as temporary, temporary.open("xb") as file:
            file.writelines(file_frames(about, parts))
    except FileExistsError:
        refuse_existing(path)
        raise


def refuse_existing(path: Path) -> None:
    """Raise ValueError where a new file is to be, and one is there."""
    if path.exists():
        raise ValueError(f"{path} exists; open it and append to it, or choose another name")


@contextmanager
def only_writer(path: Path) -> Iterator[int]:
    """A file open for writing (its descriptor), that nobody else writes within the block.

    Raises:
        OSError: it is not writable, or somebody else is writing it; says who, where the system tells.
    """

    def taken(handle: int) -> OSError:
        return OSError(f"{path} {_holder(handle)}")

    while True:
        with path.open("r+b", buffering=0) as file, locked(file.fileno(), taken):
            # The writer before may have put a new file in its place: then this one is nobody's.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                remove_leftovers(path)
                yield file.fileno()
                return


def _holder(handle: int) -> str:
    """Linux lists every lock, with the process that holds it and the file's inode."""
    inode = os.fstat(handle).st_ino
    with suppress(OSError):
        for line in _LOCKS.read_text(encoding="ascii").splitlines():
            match line.split():
                case [_, "FLOCK", _, _, process, where, *_] if where.endswith(f":{inode}") and int(process) > 0:
                    if int(process) == os.getpid():
                        return "has an open session in this process; append to that one, or end it first"
                    return _ANOTHER.format(f"process {process}")
    return _ANOTHER.format("another process")
