"""One thread that runs the models, and what waits for it: requests of one kind become one batch."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

Run = Callable[[Sequence[Any]], Sequence[Any]]
"""What is done with the jobs of a batch: one answer for each, in order; one that is an exception is raised."""


class FullError(Exception):
    """As many jobs wait as may."""


@dataclass(eq=False)
class _Job:
    run: Run
    what: Any
    size: int
    future: Future[Any] = field(default_factory=Future)


class Batches:
    """Jobs run in the order in which they came, but for those of later ones that fit into a batch of the same kind."""

    def __init__(
        self, *, most_waiting: int, most_size: int, observe: Callable[[int], None] = lambda number: None
    ) -> None:
        """A batch is no larger than `most_size`, unless one job is; `observe` hears of its number of jobs."""
        self.most_waiting, self._most_size, self._observe = most_waiting, most_size, observe
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="memlm batches", daemon=True)

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Return when all that was submitted is done."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, run: Run, what: Any, size: int) -> Future[Any]:
        """Let `run` be called with this and others; jobs of equal `run` may share a batch.

        Raises:
            FullError: too many wait already, or this has been stopped.
        """
        job = _Job(run, what, size)
        with self._changed:
            if len(self._waiting) >= self.most_waiting:
                self._waiting = deque(each for each in self._waiting if not each.future.cancelled())
            if self._stopping or len(self._waiting) >= self.most_waiting:
                raise FullError
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def _work(self) -> None:
        while batch := self._next():
            # False where nobody waits for it any more.
            if jobs := [job for job in batch if job.future.set_running_or_notify_cancel()]:
                self._observe(len(jobs))
                _answer(jobs)

    def _next(self) -> list[_Job]:
        """The next batch; empty when stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            batch: list[_Job] = []
            others: deque[_Job] = deque()
            room = self._most_size
            for job in self._waiting:
                if not batch or (job.run == batch[0].run and job.size <= room):
                    batch.append(job)
                    room -= job.size
                else:
                    others.append(job)
            self._waiting = others
            return batch


def _answer(jobs: Sequence[_Job]) -> None:
    try:
        answers = jobs[0].run([job.what for job in jobs])
    except Exception as error:
        if len(jobs) == 1:
            jobs[0].future.set_exception(error)
            return
        for job in jobs:  # one that fails must not take the others with it
            _answer([job])
    else:
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)
