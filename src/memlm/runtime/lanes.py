"""Lanes: work that has an order, beside other such work, each in a process with a share of the cores."""

import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing import Pipe, get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread

import torch

Lane = Sequence[Callable[[], None]]
"""One task after the other."""


_KILLED = (
    "a worker ended with exit code {} (-9 is killed, as when memory runs out: then give fewer workers; of 1 it has "
    "told above); run it again to go on"
)
_LONGEST = 4000
"""Characters of a message, which a pipe holds without being read."""


def side_by_side(lanes: Sequence[Lane], num_workers: int = 1) -> None:
    """Do all lanes, at most so many at once, the first ones first; whatever fails ends all of them.

    Small models gain more from a core each than from all cores together.

    Args:
        lanes: what to do; pickled, where there are several workers.
        num_workers: processes at a time; 1 does everything in this one.

    Raises:
        OSError: a worker was killed, or what it says has gone wrong.
    """
    num_workers = min(num_workers, len(lanes))
    if num_workers <= 1:
        for lane in lanes:
            _work(lane)
        return
    # Not a pool: concurrent.futures' may not notice that one of its processes was killed.
    context, num_threads = get_context("spawn"), max(1, (os.cpu_count() or 1) // num_workers)
    left = list(lanes)
    running: dict[int, tuple[SpawnProcess, Connection]] = {}  # by sentinel
    try:
        while left or running:
            while left and len(running) < num_workers:
                failure, told = Pipe(duplex=False)
                worker = context.Process(target=_worker, args=(left.pop(0), num_threads, told))
                worker.start()
                told.close()
                running[worker.sentinel] = worker, failure
            for sentinel in set(running) & set(wait(running)):
                worker, failure = running.pop(sentinel)
                worker.join()
                if worker.exitcode:
                    raise ChildProcessError(_told(failure) or _KILLED.format(worker.exitcode))
    finally:
        for worker, _ in running.values():
            worker.kill()


def _told(failure: Connection) -> str:
    """What a worker has said of its end; nothing, if it could not."""
    try:
        return failure.recv()
    except EOFError:
        return ""


def begin_worker(num_threads: int) -> None:
    """Give this process so many threads, and end it with its parent: nobody else may find a folder free that it works
    on in."""
    torch.set_num_threads(num_threads)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()


def _worker(lane: Lane, num_threads: int, failure: Connection) -> None:
    begin_worker(num_threads)
    try:
        _work(lane)
    except (ValueError, OSError, FloatingPointError) as error:  # of users' making, and told in a line
        failure.send(str(error)[:_LONGEST])
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _work(lane: Lane) -> None:
    for task in lane:
        task()
