"""The formats of memory files, told apart by their first bytes."""

from collections.abc import Callable
from pathlib import Path

from memlm.store.frames import MAGIC
from memlm.store.segments import SegmentStore
from memlm.store.store import MemoryStore
from memlm.store.version1 import Version1Store

_HEAD_BYTES = 9
FORMATS: dict[Callable[[bytes, int], bool], Callable[[Path], MemoryStore]] = {
    (lambda head, size: head.startswith(MAGIC)): SegmentStore,
    # As safetensors files begin: with a length that fits, and a brace. No text does.
    (lambda head, size: head[8:] == b"{" and int.from_bytes(head[:8], "little") < size): Version1Store,
}
"""Whether a file's first bytes, and its size, are of a format → what opens it."""


def open_store(path: Path) -> MemoryStore:
    """Open a file of any format.

    Raises:
        ValueError: no such file, or it is no memory file, damaged, cut short, or of a newer version; says which.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a memory file")
    if not path.is_file():
        raise ValueError(f"there is no memory file {path}")
    opener = _opener(path)
    if opener is None:
        raise ValueError(f"{path} is no memory file, or its header is damaged or it is cut short")
    return opener(path)


def is_memory_file(path: Path) -> bool:
    """Whether it looks like one."""
    return _opener(path) is not None


def _opener(path: Path) -> Callable[[Path], MemoryStore] | None:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    size = path.stat().st_size
    return next((opens for is_of_format, opens in FORMATS.items() if is_of_format(head, size)), None)
