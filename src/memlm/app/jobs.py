"""Long work: it runs in a thread of its own, says how far it is, and ends where it is told to stop."""

import time
import traceback
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any, NamedTuple

from memlm.runtime.progress import watched

_EVERY = 0.15
"""Seconds between two looks at the work."""


class StoppedError(Exception):
    """The work was told to stop."""


class Done(NamedTuple):
    """What work has given."""

    value: Any


class Progress(NamedTuple):
    """How far work is."""

    title: str
    done: int
    total: int | None
    seconds: float
    """Since it began, or this part of it, if it has several titles."""

    @property
    def share(self) -> float | None:
        """From 0 to 1, if that is known."""
        return min(1.0, self.done / self.total) if self.total else None


def followed(work: Callable[[Event], Any], stop: Event, title: str) -> Generator[Progress | Done]:
    """Do work that may take long: yields now and then how far it is, and in the end what it gives.

    All that the library tracks is watched, and ends with its next step where it is stopped. Work that takes long
    without that looks at the event itself.

    Raises:
        StoppedError: it was told to stop, or nobody follows it any more.
        ValueError: as the work, or something went wrong in it that should not.
        OSError: as the work.
    """
    told: list[tuple[str, int, int | None]] = [(title, 0, None)]
    begin = [time.monotonic()]
    found: list[Any] = []
    failed: list[Exception] = []

    def watch(title: str, done: int, total: int | None) -> None:
        if title != told[0][0]:
            begin[0] = time.monotonic()
        told[0] = (title, done, total)
        if stop.is_set():
            raise StoppedError

    def do() -> None:
        try:
            with watched(watch):
                found.append(work(stop))
        except (StoppedError, ValueError, OSError) as error:
            failed.append(error)
        except Exception as error:  # a fault of ours: the page says so, and lives on
            traceback.print_exception(error)
            failed.append(ValueError(f"this went wrong: {type(error).__name__}: {error}"))

    # The process waits for its step: torch cannot be left in one.
    thread = Thread(target=do, daemon=False)
    thread.start()
    try:
        while thread.is_alive() and not stop.is_set():
            yield Progress(*told[0], time.monotonic() - begin[0])
            thread.join(_EVERY)
    except GeneratorExit:
        stop.set()
        raise
    if stop.is_set():
        raise StoppedError
    if failed:
        raise failed[0]
    yield Done(found[0])


@dataclass
class Jobs:
    """What runs for each open page, by name, so that its button can stop it; and what ends when the page is closed."""

    _running: dict[tuple[str | None, str], Event] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def begin(self, page: str | None, name: str) -> Event:
        """The event that stops a new piece of work; one of the same name that runs is stopped."""
        with self._lock:
            self.stop(page, name)
            event = self._running[page, name] = Event()
            return event

    def stop(self, page: str | None, name: str) -> None:
        """Tell work to stop."""
        with suppress(KeyError):
            self._running[page, name].set()

    def leave(self, page: str | None) -> None:
        """Stop all that runs for a page."""
        with self._lock:
            for key in [key for key in self._running if key[0] == page]:
                self._running.pop(key).set()

    def end(self) -> None:
        """Stop all that runs."""
        for page in {page for page, _ in [*self._running]}:
            self.leave(page)
