"""Progress on standard error: a bar on a terminal, a plain line now and then anywhere else, as in a worker process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import parent_process
from typing import Literal, Protocol

from rich.console import Console
from rich.filesize import pick_unit_and_suffix
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from memlm.runtime.output import console

Unit = Literal["bytes", "tokens"]

_PLAIN_SECONDS = 10.0


class Advance(Protocol):
    """Report `amount` more units of work done; a `note`, such as the loss, is shown after the time left."""

    def __call__(self, amount: int, note: str = "") -> None:  # noqa: D102
        ...


@contextmanager
def track(title: str, *, total: int | None, unit: Unit, completed: int = 0, quiet: bool = False) -> Iterator[Advance]:
    """Show the progress of a block of work.

    Args:
        title: what is being done, such as "Tokenizing".
        total: all of the work, in units; None when it cannot be known, and then no time left is shown.
        unit: what is counted.
        completed: units done before, by work that is now resumed; they do not count for the speed.
        quiet: show nothing.
    """
    shown = console(stderr=True, quiet=quiet)
    meter = _Meter(title, total=total, unit=unit, completed=completed)
    if shown.is_terminal and not parent_process():  # several bars of several workers would write over one another
        yield from _bar(shown, meter)
    else:
        yield from _plain_lines(shown, meter)


class _Meter:
    """How far the work is, and how to say it."""

    def __init__(self, title: str, *, total: int | None, unit: Unit, completed: int) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.completed = self._resumed_from = completed
        self.note = ""
        self._begin = time.monotonic()

    def advance(self, amount: int, note: str) -> None:
        self.completed += amount
        self.note = note or self.note

    def amounts(self) -> str:
        """Such as `12.5 MB of 1.0 GB, 3.1 MB/s`."""
        of_total = "" if self.total is None else f" of {_amount(self.total, self.unit)}"
        return f"{_amount(self.completed, self.unit)}{of_total}, {_amount(self._speed(), self.unit)}/s"

    def time_left(self) -> str:
        if self.total is None or not self._speed():
            return ""
        return f", {timedelta(seconds=round(max(0, self.total - self.completed) / self._speed()))} left"

    def _speed(self) -> float:
        return (self.completed - self._resumed_from) / max(time.monotonic() - self._begin, 1e-9)


def _amount(number: float, unit: Unit) -> str:
    letters = ["", "k", "M", "G", "T"]
    scale, letter = pick_unit_and_suffix(int(number), letters, 1000)
    digits = f"{number / scale:.1f}" if letter else f"{number:.0f}"
    return f"{digits} {letter}{'B' if unit == 'bytes' else ' tokens' if letter else 'tokens'}"


def _bar(shown: Console, meter: _Meter) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amounts]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=shown) as progress:
        task = progress.add_task(
            escape(meter.title), total=meter.total, completed=meter.completed, amounts=meter.amounts(), note=""
        )

        def advance(amount: int, note: str = "") -> None:
            meter.advance(amount, note)
            progress.update(task, advance=amount, amounts=meter.amounts(), note=escape(meter.note))

        yield advance


def _plain_lines(shown: Console, meter: _Meter) -> Iterator[Advance]:
    last_line = time.monotonic()

    def say(end: str) -> None:
        note = f", {meter.note}" if meter.note else ""
        line = f"{meter.title}: {meter.amounts()}{end}{note}"
        shown.print(line, markup=False, highlight=False, soft_wrap=True)

    def advance(amount: int, note: str = "") -> None:
        nonlocal last_line
        meter.advance(amount, note)
        if time.monotonic() - last_line >= _PLAIN_SECONDS:
            last_line = time.monotonic()
            say(meter.time_left())

    yield advance
    say(", done")
