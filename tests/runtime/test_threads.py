"""Work side by side is in order, not far ahead of what is taken, and done in full or with its error."""

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from memlm.runtime.threads import side_by_side

NUM_ITEMS = 40


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_what_is_made_comes_in_order_and_not_far_ahead(threads: int) -> None:
    taken = list[int]()

    def items() -> Iterator[int]:
        for item in range(NUM_ITEMS):
            assert item <= len(taken) + 2 * threads + 1
            yield item

    def work(item: int) -> tuple[int, int]:
        assert not torch.is_grad_enabled()
        return item, torch.get_num_threads()

    for item, own in side_by_side(work, items()):
        assert own == 1
        taken.append(item)
    assert taken == list(range(NUM_ITEMS))
    assert torch.get_num_threads() == threads


def test_one_alone_has_all_threads(threads: int) -> None:
    (made,) = side_by_side(lambda _: (torch.get_num_threads(), threading.get_ident()), [0])
    assert made == (threads, threading.get_ident())
    assert [*side_by_side(str, list[int]())] == []
    found = side_by_side(lambda _: threading.get_ident(), range(3), torch.device("meta"))
    assert {*found} == {threading.get_ident()}


def test_an_error_is_raised_and_the_next_work_is_done(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda item: 1 // (item - 5), range(NUM_ITEMS)))
    assert [*side_by_side(abs, range(-3, 0))] == [3, 2, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own(threads: int) -> None:
    assert [*side_by_side(abs, range(-3, 0))] == [3, 2, 1]
    if not (child := os.fork()):
        os._exit(0 if [*side_by_side(abs, range(-3, 0))] == [3, 2, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
