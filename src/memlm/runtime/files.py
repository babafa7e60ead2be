"""Writing that is all or nothing: a crash or a full disk leaves the old state, never half of the new."""

import codecs
import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

Kind = Literal["file", "folder"]
UNFINISHED = ".memlm-unfinished"
"""How the names end of folders in which something is written, after a point, the name to come, a point and 8 digits."""

_PATIENCE = 10.0
"""Seconds to wait for somebody else who has locked a file or a folder."""
_PAUSE = 0.02
_HEAD_BYTES = 1 << 12
"""By which a file of text is known."""
_HERE, _NO_REPLACE, _EXCHANGE = -100, 1, 2
"""Linux's numbers for a path as it is, and for two ways to rename."""


def place_for(kind: Kind, path: Path) -> Path:
    """Where a file or a folder of this name is written: what a link leads to, else the path itself.

    Nothing is made or changed yet, so that a job can ask before it begins.

    Raises:
        ValueError: something of another kind is there and would be lost, or stands where a folder above should be.
    """
    path = followed(path)
    if os.path.lexists(path) and not (path.is_file() if kind == "file" else path.is_dir()):
        raise ValueError(f"cannot write a {kind} at {path}: {_what(path)} is there; give another path, or remove it")
    above = next(filter(os.path.lexists, path.parents), path.parent)
    if not above.is_dir():
        raise ValueError(f"cannot write {path}: {above} is {_what(above)}, not a folder; give another path")
    return path


def followed(path: Path) -> Path:
    """What a link leads to: written in the link's place, something new would leave the old one behind."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def make_folder(path: Path) -> Path:
    """A folder that may be there already, and those above it; same errors as `place_for`."""
    path = place_for("folder", path)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` (replacing the folder that was there) when the block ends without error.

    Raises:
        ValueError: as `place_for`, before the block begins.
        OSError: the disk is full or not writable; says which folder, and that what was there before still is.
    """
    path = place_for("folder", path)
    if path.name in ("", ".."):  # what others are in is not replaced
        raise ValueError(f"{str(path)!r} is no name for a new folder; give it one")
    with _beside(path) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        if not _renamed(temporary, path, _NO_REPLACE) and not _renamed(temporary, path, _EXCHANGE):
            _replace_folder(temporary, path)
        sync(path.parent)


def _renamed(one: Path, other: Path, how: int) -> bool:
    """Rename in one instant, to a name that nobody has, or by exchange; False where that cannot be done so."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), how) == 0


def _replace_folder(temporary: Path, path: Path) -> None:
    """The same where two folders cannot be exchanged: the old one steps aside for an instant."""
    if not path.is_dir():
        temporary.rename(path)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-old-"))
    path.rename(old / path.name)
    try:
        temporary.rename(path)
    except BaseException:
        (old / path.name).rename(path)
        old.rmdir()
        raise
    shutil.rmtree(old)


@contextlib.contextmanager
def atomic_file(path: Path, *, new: bool = False) -> Iterator[Path]:
    """The name of a file that becomes `path` (replacing the one that was there) when the block, which writes it, ends.

    Same errors as `atomic_folder`.

    Raises:
        FileExistsError: it is to be `new`, and by now there is one, which stays.
    """
    path = place_for("file", path)
    with _beside(path) as folder:
        temporary = folder / path.name
        yield temporary
        if path.exists():
            shutil.copymode(path, temporary)
        sync(temporary)
        if not new or not _renamed(temporary, path, _NO_REPLACE):
            if new and path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            temporary.replace(path)
        with contextlib.suppress(OSError):  # it is written; some file systems cannot make sure of a folder
            sync(path.parent)


@contextlib.contextmanager
def only_one_in(folder: Path) -> Iterator[None]:
    """A block that no other process is in for the same folder; where folders cannot be locked, it may be.

    It waits a little, since what was killed may have left processes that end soon. The lock ends with its holder, and
    leaves nothing.

    Raises:
        ValueError: another is.
    """

    def taken(_: int) -> ValueError:
        return ValueError(f"somebody else is at work in {folder}; wait for it, or give another folder")

    with _opened(folder) as handle, locked(handle, taken):
        yield


@contextlib.contextmanager
def locked(handle: int, taken: Callable[[int], Exception]) -> Iterator[None]:
    """A block in which an open file or folder is locked; waits a little for who has locked it.

    Raises:
        Exception: what `taken` makes of the handle, if somebody still has.
        OSError: this file cannot be locked.
    """
    deadline = time.monotonic() + _PATIENCE
    while not _locked(handle):
        if time.monotonic() >= deadline:
            raise taken(handle)
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # closing alone would leave it to processes forked meanwhile


def is_in_use(folder: Path) -> bool:
    """Whether somebody is in a block of `only_one_in` for it."""
    with _opened(folder) as handle:
        return not _locked(handle)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Lock an open file or folder; False if somebody else has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):  # some network file systems lock no folders
            raise
    return True


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A new folder, gone after the block, that writes there what becomes `path`; what was killed at that is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary, lock = _new_and_locked(path)
        with lock:
            try:
                yield temporary
            finally:  # which may be what was there before, after an exchange
                shutil.rmtree(temporary, ignore_errors=True)
    except BaseException as error:
        if isinstance(error, FileExistsError):
            raise
        # safetensors reports a full disk as an error of its own; to the user both are one.
        if isinstance(error, OSError) or "I/O error" in str(error):
            raise write_failed(path, error) from error
        raise


def _new_and_locked(path: Path) -> tuple[Path, contextlib.ExitStack]:
    """A new folder beside a path, and the lock on it, which ends with the stack."""
    while True:
        folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
        folder.mkdir()  # unlike mkdtemp, with the permissions that the user's umask gives to a folder
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            stack.enter_context(only_one_in(folder))
            if folder.exists():  # nobody took it for a leftover before it was locked
                return folder, stack.pop_all()


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left beside a path that they were writing; not what anybody is at work in.

    Where folders cannot be locked, nothing is removed.
    """
    ours = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{8}" + re.escape(UNFINISHED))
    with contextlib.suppress(OSError):  # a folder whose names cannot be read, or somebody else who is cleaning up
        for name in filter(ours.fullmatch, os.listdir(path.parent)):  # noqa: PTH208  # a path of each takes long
            rest = path.with_name(name)
            with contextlib.suppress(OSError), _opened(rest) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(rest)


def write_failed(path: Path, error: BaseException) -> OSError:
    """What to raise where a full disk or the like has kept something from being written."""
    full = getattr(error, "errno", None) in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space, or choose another place" if full else "choose another place"
    return OSError(f"could not write {path}: {error}; nothing was changed there; {remedy}")


def atomic_write(path: Path, text: str) -> None:
    """Write a text file, all or nothing; same errors as `atomic_folder`."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _what(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a file" if path.is_file() else "neither file nor folder"


def what_is(path: Path) -> str:
    """What stands there, in words; of a file also whether it is empty or begins as text in UTF-8 does."""
    if not path.is_file():
        return _what(path)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "an empty file"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # its last character may be cut
    except UnicodeDecodeError:
        return "a file"
    return "a file" if b"\0" in head else "a text file"


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


BOX = Path(str(resources.files("memlm") / "checkpoints"))
"""Where the checkpoints are that ship with memlm."""
BOXED_READER = "smollm2-english"
"""The reader that ships with memlm: SmolLM2-135M reads memories of `english`."""
BOXED_SEARCH = "english-search"
"""The model that ships with memlm whose memories can be searched; their text is in memories of `english`."""


def boxed_folder(name: str) -> Path | None:
    """The folder of the checkpoint of this name that ships with memlm, if there is one."""
    named = Path(name).name == name not in ("", "..") and (BOX / name).is_dir()  # no path that leads elsewhere
    return BOX / name if named else None
