"""Writing that is all or nothing: a crash or a full disk leaves the old state, never half of the new."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

_FAILED = "could not write {path}: {error}; nothing was changed there; free some space, or choose another place"


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` (replacing what was there) when the block ends without error.

    Raises:
        OSError: the disk is full or not writable; says which folder, and that what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir()  # unlike mkdtemp, with the permissions that the user's umask gives to a folder
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        if path.exists():
            # A folder cannot be renamed over a full one; the old one steps aside for an instant.
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-old-"))
            path.rename(old / path.name)
            try:
                temporary.rename(path)
            except BaseException:
                (old / path.name).rename(path)
                old.rmdir()
                raise
            shutil.rmtree(old)
        else:
            temporary.rename(path)
        _sync(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # safetensors reports a full disk as an error of its own; to the user both are one.
        if isinstance(error, OSError) or "I/O error" in str(error):
            raise OSError(_FAILED.format(path=path, error=error)) from error
        raise


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """The name of a file that becomes `path` (replacing what was there) when the block, which writes it, ends well.

    Raises:
        OSError: as `atomic_folder`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        if path.exists():
            shutil.copymode(path, temporary)
        _sync(temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) or "I/O error" in str(error):
            raise OSError(_FAILED.format(path=path, error=error)) from error
        raise
    with contextlib.suppress(OSError):  # it is written; some file systems cannot make sure of a folder
        _sync(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove what writers of a file that were killed have left beside it."""
    prefix = f".{path.name}."
    for rest in path.parent.iterdir():
        if rest.name.startswith(prefix) and rest.name.removeprefix(prefix).isdecimal():
            rest.unlink(missing_ok=True)


def atomic_write(path: Path, text: str) -> None:
    """Write a text file, all or nothing.

    Raises:
        OSError: as `atomic_folder`.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
