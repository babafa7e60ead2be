"""What waits is put into batches; nothing is lost, and nothing is answered with another's answer."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlm.serve.batches import Batches, FullError


class Model:
    """Doubles numbers, when it is let; negative ones it cannot."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def double(self, numbers: Sequence[int]) -> list[int]:
        return self._worked(numbers)

    def double_again(self, numbers: Sequence[int]) -> list[int]:
        return self._worked(numbers)

    def _worked(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append([*numbers])
        self.begun.set()
        assert self.may_go_on.wait(30)
        if min(numbers) < 0:
            raise ValueError(f"{min(numbers)} is negative")
        return [2 * number for number in numbers]


@contextmanager
def busy(most_waiting: int = 100, most_size: int = 8) -> Iterator[tuple[Batches, Model]]:
    """Batches whose model is at work on 0, so that what comes waits."""
    batches, model = Batches(most_waiting=most_waiting, most_size=most_size), Model()
    batches.start()
    first = batches.submit(model.double, 0, 1)
    assert model.begun.wait(30)
    try:
        yield batches, model
    finally:
        model.may_go_on.set()
        batches.stop()
    assert first.result(0) == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12))))
def test_every_job_gets_its_own_answer_in_batches_of_one_kind_and_bounded_size(jobs: list[tuple[bool, int]]) -> None:
    with busy() as (batches, model):
        runs = {False: model.double, True: model.double_again}
        futures = [batches.submit(runs[kind], place, size) for place, (kind, size) in enumerate(jobs)]
        model.may_go_on.set()
        assert [future.result(30) for future in futures] == [2 * place for place in range(len(jobs))]
        ran = model.batches[1:]
    assert sorted(place for batch in ran for place in batch) == [*range(len(jobs))]
    assert all(len({jobs[place][0] for place in batch}) == 1 for batch in ran)
    assert all(len(batch) == 1 or sum(jobs[place][1] for place in batch) <= 8 for batch in ran)
    assert [batch[0] for batch in ran] == sorted(batch[0] for batch in ran), "the first that came is never passed over"


def test_what_waits_goes_together() -> None:
    with busy() as (batches, model):
        for number in range(1, 9):
            batches.submit(model.double, number, 1)
    assert model.batches == [[0], [*range(1, 9)]]


def test_more_than_may_wait_is_refused_and_who_left_makes_room() -> None:
    with busy(most_waiting=2) as (batches, model):
        left, stays = batches.submit(model.double, 1, 1), batches.submit(model.double, 2, 1)
        with pytest.raises(FullError):
            batches.submit(model.double, 3, 1)
        assert len(batches) == 2
        assert left.cancel()
        last = batches.submit(model.double, 4, 1)
        model.may_go_on.set()
        assert (stays.result(30), last.result(30)) == (4, 8)
        with pytest.raises(CancelledError):
            left.result()
    assert 1 not in [number for batch in model.batches for number in batch]


def test_one_that_fails_does_not_take_the_others_with_it() -> None:
    with busy() as (batches, model):
        good, bad, better = (batches.submit(model.double, number, 1) for number in (1, -2, 3))
        model.may_go_on.set()
        assert (good.result(30), better.result(30)) == (2, 6)
        with pytest.raises(ValueError, match="-2 is negative"):
            bad.result()


def test_an_answer_that_is_an_exception_is_raised_and_the_others_are_not_run_again() -> None:
    ran = []

    def halve(numbers: Sequence[int]) -> list[int | ValueError]:
        ran.append([*numbers])
        return [ValueError(f"{number} is odd") if number % 2 else number // 2 for number in numbers]

    with busy() as (batches, model):
        even, odd, last = (batches.submit(halve, number, 1) for number in (2, 3, 4))
        model.may_go_on.set()
        assert (even.result(30), last.result(30)) == (1, 2)
        with pytest.raises(ValueError, match="3 is odd"):
            odd.result(30)
    assert ran == [[2, 3, 4]]


def test_a_stop_loses_nothing_and_then_nothing_is_taken() -> None:
    with busy() as (batches, model):
        futures = [batches.submit(model.double, number, 5) for number in range(1, 20)]
        model.may_go_on.set()
        batches.stop()
        assert [future.result(0) for future in futures] == [2 * number for number in range(1, 20)]
        with pytest.raises(FullError):
            batches.submit(model.double, 1, 1)
