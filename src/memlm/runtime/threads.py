"""Work side by side in threads, each with one thread of torch's: together faster than one work with all of them."""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from threading import Barrier
from typing import TypeVar

import torch

_AHEAD = 2
"""Results for each thread that may wait to be taken."""

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def side_by_side(
    work: Callable[[_Item], _Made], items: Iterable[_Item], device: torch.device | None = None
) -> Iterator[_Made]:
    """What is made of each item, in order and without gradients, by as many threads as torch has; never far ahead of
    what is taken. A single item is left to torch's threads together, and so is what is made on another `device`."""
    made, threads, items = torch.no_grad()(lambda item: work(item)), torch.get_num_threads(), iter(items)
    begin = [*islice(items, 2)]
    if threads < 2 or len(begin) < 2 or (device is not None and device.type != "cpu"):
        yield from map(made, chain(begin, items))
        return
    pool, waiting = _workers(threads), deque[Future[_Made]]()
    for item in chain(begin, items):
        waiting.append(pool.submit(made, item))
        if len(waiting) > _AHEAD * threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@functools.cache
def _workers(threads: int) -> ThreadPoolExecutor:
    """They stay, for each has memory of its own to warm up."""
    ready = Barrier(threads + 1)

    def get_ready() -> None:
        torch.get_num_threads()  # torch's first call in a thread sets what all others have
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(threads)
    for _ in range(threads):
        pool.submit(get_ready)
    ready.wait()
    torch.set_num_threads(threads)  # for threads to come
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)
