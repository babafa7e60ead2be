"""Where output goes: to a terminal, which is so wide, or to a pipe or a file, which is not."""

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
