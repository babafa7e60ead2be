"""One writer at a time: a lock on the file itself, which ends with its holder, however that ends."""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from memlm.runtime.files import UNFINISHED

PATIENCE = 10.0
"""Seconds to wait for another writer."""
_PAUSE = 0.02
_LOCKS = Path("/proc/locks")


@contextmanager
def only_writer(path: Path) -> Iterator[int]:
    """A file open for writing (its descriptor), that nobody else writes within the block.

    Raises:
        OSError: it is not writable, or somebody else is writing it; says who, where the system tells.
    """
    handle = _locked(path, time.monotonic() + PATIENCE)
    try:
        remove_leftovers(path)
        yield handle
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # closing alone would leave it to processes forked meanwhile
        os.close(handle)


def remove_leftovers(path: Path) -> None:
    """Remove what `atomic_file` left beside a file because it was killed; not what somebody has locked."""
    ours = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{32}" + re.escape(UNFINISHED))
    for rest in path.parent.iterdir():
        if ours.fullmatch(rest.name) and rest.is_file():
            with suppress(OSError), rest.open("rb") as file:  # another may be cleaning up, too
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                rest.unlink()


def _locked(path: Path, deadline: float) -> int:
    while True:
        with ExitStack() as stack:
            handle = os.open(path, os.O_RDWR)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise OSError(f"{path} is being written by {_holder(handle)}; try again when it is done") from None
                time.sleep(_PAUSE)
                continue
            # The writer before may have put a new file in its place: then this one is nobody's.
            if os.path.samestat(os.fstat(handle), path.stat()):
                stack.pop_all()
                return handle


def _holder(handle: int) -> str:
    """Linux lists every lock, with the process that holds it and the file's inode."""
    inode = os.fstat(handle).st_ino
    with suppress(OSError):
        for line in _LOCKS.read_text(encoding="ascii").splitlines():
            match line.split():
                case [_, "FLOCK", _, _, process, file, *_] if file.endswith(f":{inode}") and int(process) > 0:
                    return f"process {process}"
    return "another process"
