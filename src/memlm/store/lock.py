"""One writer at a time, who says who it is, and leaves nothing behind."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from memlm.runtime.files import make_folder, remove_leftovers

PATIENCE = 10.0
"""Seconds to wait for another writer."""
_PAUSE = 0.02


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Nobody else writes `path` within the block; the lock is let go when its holder dies, too.

    Raises:
        OSError: somebody else is writing it; says who.
    """
    make_folder(path.parent)
    lock = path.with_name(f".{path.name}.lock")
    handle = _acquired(lock, path)
    try:
        remove_leftovers(path)
        yield
    finally:
        try:
            lock.unlink(missing_ok=True)  # before it is let go: afterwards it might be another's
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)  # closing alone would leave it to processes forked meanwhile
            os.close(handle)


def _acquired(lock: Path, path: Path) -> int:
    deadline = time.monotonic() + PATIENCE
    while (handle := _tried(lock, path)) is None:
        if time.monotonic() >= deadline:
            raise OSError(f"{path} is being written by {_holder(lock)}; try again when it is done")
        time.sleep(_PAUSE)
    with suppress(OSError):  # a full disk is for the file itself to report
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return handle


def _tried(lock: Path, path: Path) -> int | None:
    """The lock's file, locked; None where somebody else has it."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise OSError(error.errno, f"cannot write beside this place: {error.strerror}", str(path)) from error
    with suppress(BlockingIOError), ExitStack() as stack:
        stack.callback(os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one before may just have removed it: then this is a file that nobody else finds, and locks nothing.
        if _is_at(lock, handle):
            stack.pop_all()
            return handle
    return None


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(lock: Path) -> str:
    with suppress(OSError):
        if holder := lock.read_text(encoding="utf-8", errors="replace"):
            return holder
    return "another process"
