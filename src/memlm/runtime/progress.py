"""Consoles; and progress on standard error: on a terminal a bar, anywhere else, as in a worker, a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from multiprocessing import parent_process
from typing import Literal, Protocol

from rich.console import Console
from rich.filesize import pick_unit_and_suffix
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Unit = Literal["bytes", "tokens"]

_PLAIN_SECONDS = 10.0
_UNBOUNDED = 1_000_000
"""Columns of what is no terminal: more than any line has."""


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console on standard output or standard error; in a pipe or a file, no line is wrapped or cut."""
    made = Console(stderr=stderr, quiet=quiet)
    if not made.file.isatty():
        made.width = _UNBOUNDED
    return made


class Advance(Protocol):
    """Report `amount` more units of work done; a `note`, such as the loss, is shown after the time left."""

    def __call__(self, amount: int, note: str = "") -> None:  # noqa: D102
        ...


Watch = Callable[[str, int, int | None], None]
"""Hears of work: its title, what is done of it, and of how much, where that is known."""

_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Within this, and in this thread, `watch` hears of all that is tracked, and nothing is shown; what it raises ends
    the work."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


@contextmanager
def track(title: str, *, total: int | None, unit: Unit, completed: int = 0, quiet: bool = False) -> Iterator[Advance]:
    """Show the progress of a block of work.

    Without a `total`, which may be unknown, no time left is shown. Units that were `completed` before, by work that is
    now resumed, do not count for the speed.
    """
    shown = console(stderr=True, quiet=quiet)
    work = _Work(title, total, unit, completed, shown)
    if watch := _WATCH.get():
        work.show = lambda: watch(title, work.completed, total)
        work.show()
        yield work
        return
    if not shown.is_terminal or parent_process():  # several bars of several workers would write over one another
        yield work
        work.print_line(", done")
        return
    names = ("{task.description}", "{task.fields[amounts]}", "{task.fields[note]}")
    description, amounts, note = map(TextColumn, names)
    with Progress(description, BarColumn(), amounts, TimeRemainingColumn(), note, console=shown) as progress:
        task = progress.add_task(escape(title), total=total, completed=completed, amounts=work.amounts(), note="")
        work.show = lambda: progress.update(
            task, completed=work.completed, amounts=work.amounts(), note=escape(work.note)
        )
        yield work


class _Work:
    """How far the work is, and how to say it: by a plain line now and then, unless `show` does otherwise."""

    def __init__(self, title: str, total: int | None, unit: Unit, completed: int, console: Console) -> None:
        self.title, self.total, self.unit, self.console = title, total, unit, console
        self.completed = self._resumed_from = completed
        self.note = ""
        self.show: Callable[[], None] = self._now_and_then
        self._begin = self._last_line = time.monotonic()

    def __call__(self, amount: int, note: str = "") -> None:
        self.completed += amount
        self.note = note or self.note
        self.show()

    def amounts(self) -> str:
        """Such as `12.5 MB of 1.0 GB, 3.1 MB/s`."""
        done, of_total = self.completed, ""
        if self.total is not None:  # the last batch may be more than was left
            done, of_total = min(done, self.total), f" of {self._amount(self.total)}"
        return f"{self._amount(done)}{of_total}, {self._amount(self._speed())}/s"

    def print_line(self, end: str) -> None:
        note = f", {self.note}" if self.note else ""
        line = f"{self.title}: {self.amounts()}{end}{note}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _now_and_then(self) -> None:
        if time.monotonic() - self._last_line >= _PLAIN_SECONDS:
            self._last_line, speed = time.monotonic(), self._speed()
            if self.total is None or not speed:
                self.print_line("")
            else:
                self.print_line(f", {timedelta(seconds=round(max(0, self.total - self.completed) / speed))} left")

    def _speed(self) -> float:
        return (self.completed - self._resumed_from) / max(time.monotonic() - self._begin, 1e-9)

    def _amount(self, number: float) -> str:
        scale, letter = pick_unit_and_suffix(int(number), ["", "k", "M", "G", "T"], 1000)
        digits = f"{number / scale:.1f}" if letter else f"{number:.0f}"
        return f"{digits} {letter}{'B' if self.unit == 'bytes' else ' tokens' if letter else 'tokens'}"
