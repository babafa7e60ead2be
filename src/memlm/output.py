"""Where output goes: to a terminal, which is so wide, or to a pipe or a file, which is not; and into folders."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_UNBOUNDED = 1_000_000
"""Columns of what is no terminal: more than any line has."""


def console(*, stderr: bool = False, quiet: bool = False) -> "Console":
    """A console on standard output or standard error; in a pipe or a file, no line is wrapped or cut."""
    from rich.console import Console

    made = Console(stderr=stderr, quiet=quiet)
    if not made.file.isatty():
        made.width = _UNBOUNDED
    return made


def require_folder(path: Path) -> None:
    """Raise ValueError where no folder can be made at `path`, because it, or something above it, is a file."""
    for place in (path, *path.parents):
        if place.is_dir():
            return
        if place.exists():
            beneath = "" if place == path else f", so there can be no folder {path}"
            raise ValueError(f"{place} is a file{beneath}; give the path of a folder, new or existing")
