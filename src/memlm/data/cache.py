"""The cache of prepared data: where it is, and folders in it that appear whole or not at all."""

import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from memlm.runtime.files import is_in_use, only_one_in

_TEMPORARY_PREFIX = ".partial-"
_STALE_SECONDS = 24 * 3600


def default_cache() -> Path:
    """`$MEMLM_HOME`, or `~/.cache/memlm`."""
    return Path(os.environ.get("MEMLM_HOME") or "~/.cache/memlm").expanduser()


def make_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Fill a folder of the cache, unless it is there; whoever asks for the same meanwhile waits.

    `make` fills a temporary folder, which is then renamed; same errors as `temporary_folder`.
    """
    if folder.exists():
        return
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir(), f"memlm-{os.getuid()}-{digest}.lock")):
        if not folder.exists():  # whoever waited finds it made
            with temporary_folder(folder.parent) as temporary:
                make(temporary)
                try:
                    temporary.rename(folder)
                except OSError:
                    if not folder.exists():  # as it does if another machine was first, with the same result
                        raise


@contextmanager
def temporary_folder(cache: Path) -> Iterator[Path]:
    """A folder in the cache that is gone after the block, unless it was renamed.

    Raises:
        OSError: the cache cannot be written; a full disk says so, with the folder.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_stale(cache)
        made = tempfile.TemporaryDirectory(prefix=_TEMPORARY_PREFIX, dir=cache, ignore_cleanup_errors=True)
        with made as folder, only_one_in(Path(folder)):
            yield Path(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = "no space left for prepared data; free some, or set MEMLM_HOME to a folder elsewhere"
        raise OSError(error.errno, message, str(cache)) from error


def _remove_stale(cache: Path) -> None:
    """Remove what processes that were killed have left: what nobody has locked, and, where there are no locks, what is
    old. A clock that jumps makes everything old."""
    for folder in cache.glob(f"{_TEMPORARY_PREFIX}*"):
        with suppress(FileNotFoundError):  # another process may be cleaning up too
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS and not is_in_use(folder):
                shutil.rmtree(folder, ignore_errors=True)
