"""The cache of prepared data: where it is, what tells one corpus from another, and folders that appear whole or not."""

import errno
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from memlm.config import Corpus, FileCorpus, HubCorpus, NamedCorpus
from memlm.data.corpus import list_files, speech_files

_TEMPORARY_PREFIX = ".partial-"
_STALE_SECONDS = 24 * 3600


def default_cache() -> Path:
    """`$MEMLM_HOME`, or `~/.cache/memlm`."""
    return Path(os.environ.get("MEMLM_HOME") or "~/.cache/memlm").expanduser()


@contextmanager
def temporary_folder(cache: Path) -> Iterator[Path]:
    """A folder in the cache that is gone after the block, unless `publish` has renamed it.

    Raises:
        OSError: the cache cannot be written; a full disk says so, with the folder.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_stale(cache)
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=cache))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = "no space left for prepared data; free some, or set MEMLM_HOME to a folder elsewhere"
        raise OSError(error.errno, message, str(cache)) from error


def alone(folder: Path) -> AbstractContextManager[object]:
    """Within this, no other process on this machine makes the same folder; whoever comes second waits."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir(), f"memlm-{os.getuid()}-{digest}.lock"))


def publish(temporary: Path, folder: Path) -> None:
    """Give a finished folder its name; if another process was first, its result stays, being the same."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():
            raise


@contextmanager
def identified(corpus: Corpus, cache: Path) -> Iterator[tuple[Corpus, list[str]]]:
    """The corpus, readable as often as needed within the block, and words that change when its content does.

    Standard input and pipes are copied to a file for the block.
    """
    match corpus:
        case NamedCorpus(name=name):
            speech_files(corpus)  # refuses a name we do not know, or whose package is not installed
            yield corpus, [metadata.version(name)]
        case HubCorpus(name=name):
            yield corpus, folder_stamps(name)
        case FileCorpus():
            files = list_files(corpus)
            pipes = [file for file in files if not Path(file).is_file()]
            with temporary_folder(cache) if pipes else nullcontext(cache) as folder:
                copies = {pipe: _copy(pipe, folder / str(number)) for number, pipe in enumerate(pipes)}
                identity = [copies[file].name if file in copies else _stamp(Path(file)) for file in files]
                paths = tuple(str(copies.get(file, file)) for file in files)
                yield replace(corpus, paths=paths), identity


def folder_stamps(name: str) -> list[str]:
    """What tells the state of a local folder; nothing for a name on the hub, which is taken to stay the same."""
    return [_stamp(path) for path in sorted(Path(name).rglob("*")) if path.is_file()]


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def _copy(pipe: str, path: Path) -> Path:
    """Copy a pipe into a file that is then named after its content."""
    digest = hashlib.sha256()
    with path.open("wb") as copy, _open_pipe(pipe) as stream:
        while block := stream.read(1 << 20):
            copy.write(block)
            digest.update(block)
    return path.rename(path.with_name(digest.hexdigest()))


def _open_pipe(pipe: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if pipe == "-" else Path(pipe).open("rb")


def _remove_stale(cache: Path) -> None:
    """Remove what preparations that were killed have left, once nobody can be at work on it any more."""
    for folder in cache.glob(f"{_TEMPORARY_PREFIX}*"):
        with suppress(FileNotFoundError):  # another process may be cleaning up too
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
