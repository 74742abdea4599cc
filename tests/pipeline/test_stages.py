"""A stage gives what its iterator gives, in order, never more of it than was asked for, and ends when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampnet_opt.pipeline.stages import Ahead


class Counted(Iterator[int]):
    """Whole numbers below `last`; fails instead of giving `fails`. begun: how many were asked for."""

    def __init__(self, last: int, fails: int = -1) -> None:
        self.begun, self.closed, self._last, self._fails = 0, False, last, fails

    def __next__(self) -> int:
        number, self.begun = self.begun, self.begun + 1
        if number == self._fails:
            raise ValueError("broken")
        if number >= self._last:
            raise StopIteration
        return number

    def close(self) -> None:
        self.closed = True


@given(last=st.integers(0, 20), depth=st.integers(1, 5), stages=st.integers(1, 3))
def test_items_come_in_order_and_the_iterator_is_closed_at_its_end(last: int, depth: int, stages: int) -> None:
    numbers = Counted(last)
    chain: Iterator[int] = numbers
    for _ in range(stages):
        chain = Ahead(chain, depth)
    assert list(chain) == list(range(last))
    assert numbers.closed


@given(depth=st.integers(1, 4), taken=st.integers(0, 6))
def test_no_more_items_are_begun_than_may_wait(depth: int, taken: int) -> None:
    numbers = Counted(100)
    stage = Ahead(numbers, depth)
    for _ in range(taken):
        next(stage)
    stage.close()  # after which the thread is gone
    assert taken <= numbers.begun <= taken + depth


@given(fails=st.integers(0, 6), depth=st.integers(1, 3))
def test_an_error_comes_after_the_items_before_it(fails: int, depth: int) -> None:
    stage = Ahead(Ahead(Counted(9, fails), depth), depth)
    for number in range(fails):
        assert next(stage) == number
    with pytest.raises(ValueError, match="broken"):
        next(stage)
    assert list(stage) == []


def test_closing_releases_an_iterator_that_waits_for_a_device_and_a_consumer_that_waits_for_it() -> None:
    released = threading.Event()

    def device() -> Iterator[int]:
        yield 1
        released.wait()

    stage = Ahead(device(), 2, stop=released.set)
    assert next(stage) == 1
    rest: list[int] = []
    consumer = threading.Thread(target=lambda: rest.extend(stage))
    consumer.start()
    stage.close()
    consumer.join(30)
    assert not consumer.is_alive() and rest == [] and list(stage) == []
