"""One writer at a time, who says who it is."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from memlm.files import remove_leftovers

PATIENCE = 10.0
"""Seconds to wait for another writer."""


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Nobody else writes `path` within the block; the lock is let go when its holder dies, too.

    Raises:
        OSError: somebody else is writing it; says who.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the lock, since whoever tries to take a lock may empty its file.
    holder = path.with_name(f".{path.name}.writer")
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        who = "another process"
        with suppress(OSError):
            who = holder.read_text(encoding="utf-8") or who
        raise OSError(f"{path} is being written by {who}; try again when it is done") from None
    try:
        with suppress(OSError):  # a full disk is for the file itself to report
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        remove_leftovers(path)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
