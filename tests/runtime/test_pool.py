"""The pool of executors, with threads of its own and an executor that only notices what is done to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime.pool import Pool

NO_LANDMARKS = np.zeros((1, 5, 2), np.float32)


class Doubling:
    """Gives twice its images, and fails when two threads are in it or it is closed."""

    def __init__(self, during: Callable[[], object] = lambda: None) -> None:
        self.during = during
        self.runs, self.closed = 0, 0
        self._inside = threading.Lock()

    def run(self, images: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        assert self._inside.acquire(blocking=False), "two threads in one executor"
        try:
            assert not self.closed
            self.during()
            self.runs += 1
            return images * 2
        finally:
            self._inside.release()

    def close(self) -> None:
        assert not self._inside.locked(), "closed while in use"
        self.closed += 1


def test_each_thread_has_an_executor_to_itself_and_gets_its_own_answer() -> None:
    pause = threading.Event()
    executors = [Doubling(lambda: pause.wait(0.002)) for _ in range(3)]
    pool = Pool(executors)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: pool.run(np.full(2, n), NO_LANDMARKS), range(60)))
    np.testing.assert_array_equal(found, [[2 * n] * 2 for n in range(60)])
    assert sum(executor.runs for executor in executors) == 60
    assert all(executor.runs for executor in executors), "an executor was never used"


def test_as_many_run_at_once_as_there_are_executors() -> None:
    meeting = threading.Barrier(3, timeout=10)  # breaks, and fails the runs, unless three come together
    pool = Pool([Doubling(meeting.wait) for _ in range(3)])
    with ThreadPoolExecutor(3) as threads:
        assert len(list(threads.map(lambda n: pool.run(np.zeros(1), NO_LANDMARKS), range(3)))) == 3


def test_one_thread_keeps_using_the_same_executor() -> None:
    executors = [Doubling(), Doubling()]
    pool = Pool(executors)
    for _ in range(5):
        pool.run(np.zeros(1), NO_LANDMARKS)
    assert sorted(executor.runs for executor in executors) == [0, 5]


def test_an_executor_that_failed_is_used_again() -> None:
    def fail() -> None:
        raise AmpnetError("out of luck")

    executor = Doubling(fail)
    pool = Pool([executor])
    with pytest.raises(AmpnetError, match="out of luck"):
        pool.run(np.zeros(1), NO_LANDMARKS)
    executor.during = lambda: None
    assert pool.run(np.ones(1), NO_LANDMARKS) == 2


def test_closing_waits_for_who_runs_and_turns_away_who_waits() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        assert go_on.wait(10)

    executor = Doubling(work)
    pool = Pool([executor])
    with ThreadPoolExecutor(3) as threads:
        running = threads.submit(pool.run, np.ones(1), NO_LANDMARKS)
        assert inside.wait(10)
        waiting = threads.submit(pool.run, np.ones(1), NO_LANDMARKS)
        closing = threads.submit(pool.close)
        with pytest.raises(AmpnetError, match="is closed"):
            waiting.result(10)
        assert not closing.done() and not executor.closed
        go_on.set()
        assert running.result(10) == 2
        closing.result(10)
    pool.close()
    assert executor.closed == 1
    with pytest.raises(AmpnetError, match="is closed; load it again"):
        pool.run(np.ones(1), NO_LANDMARKS)


def test_an_executor_that_fails_to_close_keeps_no_other_open() -> None:
    class Stuck(Doubling):
        def close(self) -> None:
            super().close()
            raise AmpnetError("CUDA failed: out of luck")

    executors = [Doubling(), Stuck(), Doubling()]
    pool = Pool(executors)
    with pytest.raises(AmpnetError, match="out of luck"):
        pool.close()
    pool.close()
    assert [executor.closed for executor in executors] == [1, 1, 1]


def test_a_call_that_ctrl_c_ended_gives_its_executor_back() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    executor = Doubling(interrupt)
    pool = Pool([executor])
    with pytest.raises(KeyboardInterrupt) as caught:
        pool.run(np.zeros(1), NO_LANDMARKS)
    executor.during = lambda: None
    assert caught.traceback and pool.run(np.ones(1), NO_LANDMARKS) == 2
    pool.close()
    assert executor.closed == 1
