"""Work in processes that can be killed, and what they say when they fail."""

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from memlm_evidence.campaign.part import REFUSALS
from memlm_evidence.campaign.works import Work

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
"""What processes are killed by."""
_FAILED = 3
"""How a process ends that has written down what went wrong."""


@dataclass(frozen=True)
class Surroundings:
    """What a process works in."""

    writer: int = 0
    """Of several that write at once."""
    clock_seed: int | None = None
    """With one, its clock jumps, forwards and back."""
    file_bytes: int | None = None
    """The largest file that it may write."""


USUAL = Surroundings()


@dataclass(frozen=True)
class Running:
    """A process at work."""

    process: BaseProcess
    report: Path

    def end(self) -> str | None:
        """Wait for its end; what went wrong, if anything.

        Raises:
            ChildProcessError: it crashed.
        """
        self.process.join()
        code = self.process.exitcode
        if code == _FAILED:
            return self.report.read_text(encoding="utf-8")
        if code:
            raise ChildProcessError(f"the process ended with {code}")
        return None

    def stop(self, after: float | None, number: signal.Signals) -> bool:
        """Kill it after so many seconds, or never; returns whether it was killed, rather than done.

        Raises:
            ChildProcessError: it failed, or crashed.
        """
        self.process.join(after)
        if self.process.is_alive():
            os.kill(self.process.pid or 0, number)
        self.process.join()
        if self.process.exitcode == -number:
            return True
        if fault := self.end():
            raise ChildProcessError(fault)
        return False


def begin(work: Work, folder: Path, surroundings: Surroundings = USUAL) -> Running:
    """Work in a process that forks from one that has everything imported."""
    report = work.base / f"report-{surroundings.writer}"
    return Running(_started(_child, work, folder, report, surroundings), report)


def warm_up() -> None:
    """Let the process that others fork from import everything, which takes seconds."""
    _started(len, "").join()


def _started(target: Callable[..., object], *given: object) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=given, daemon=True)
    process.start()
    return process


def _child(work: Work, folder: Path, report: Path, surroundings: Surroundings) -> None:
    torch.set_num_threads(1)
    os.environ["MEMLM_HOME"] = str(folder / "home")  # what is prepared is interrupted, too
    with (work.base / "stderr").open("a") as aside:
        os.dup2(aside.fileno(), 2)
    if surroundings.clock_seed is not None:
        _let_clock_jump(random.Random(surroundings.clock_seed))
    if surroundings.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (surroundings.file_bytes, surroundings.file_bytes))
    try:
        work.do(folder, surroundings.writer)
    except Exception as error:  # what it is, is judged by who reads it
        if surroundings.file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        kind = next((kind for kind in REFUSALS if isinstance(error, kind)), type(error)).__name__
        report.write_text(f"{kind}: {error}", encoding="utf-8")
        os._exit(_FAILED)


def _let_clock_jump(rng: random.Random) -> None:
    """Each look at the time shows another day; the monotonic clock, which no system sets, goes on."""
    true = time.time
    time.time = lambda: true() + rng.uniform(-1e8, 1e8)
    time.time_ns = lambda: int(time.time() * 1e9)
