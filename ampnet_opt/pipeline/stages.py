"""Stages of a pipeline that run beside each other, each in a thread of its own, in order."""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Deque, Generic, Iterable, Iterator, Optional, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
ENDING = 10.0  # seconds that a stage gets to finish the item it is at


class Ahead(Generic[Item], Iterator[Item]):
    """Takes the items of an iterator in a thread, ahead of whoever takes them from here.

    No item is begun while `depth` others wait, so that memory is bounded and, with a depth of 1, what comes out is never
    older than one item's time. What the iterator raises is raised here, after the items before it.

    Args:
        items: the iterator; only the thread touches it from now on. Its `close`, if it has one, is called there at the end.
        depth: items that may be finished or begun and not yet taken.
        name: of the thread.
        stop: called by `close` to make an iterator return that waits for a device.
    """

    def __init__(
        self, items: Iterator[Item], depth: int, *, name: str = "stage", stop: Optional[Callable[[], None]] = None
    ) -> None:
        self._items, self._stop = items, stop
        self._changed = threading.Condition()
        self._waiting: Deque[Item] = deque()
        self._free = depth
        self._ended, self._closed = False, False
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        error: Optional[BaseException] = None
        try:
            while self._may_begin():
                item = next(self._items)
                with self._changed:
                    self._waiting.append(item)
                    self._changed.notify_all()
        except StopIteration:
            pass
        except BaseException as raised:
            error = raised
        try:
            getattr(self._items, "close", lambda: None)()
        except BaseException as raised:
            error = error or raised
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def _may_begin(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or self._closed)
            self._free -= 1
            return not self._closed

    def __next__(self) -> Item:
        with self._changed:
            while not (self._waiting or self._ended or self._closed):
                self._changed.wait(1.0)  # not for ever: Ctrl-C has to be heard on Windows too
            if self._waiting and not self._closed:
                self._free += 1
                self._changed.notify_all()
                return self._waiting.popleft()
            error, self._error = self._error, None
        if error is not None and not self._closed:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End the stage: what it is at is finished, what waits is dropped. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._stop is not None:
            self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join(ENDING)


class Begun(Protocol[Result_co]):
    """Work that runs, such as a Future."""

    def result(self) -> Result_co: ...

    def cancel(self) -> object: ...


def begun_ahead(begin: Callable[[Item], Begun[Result]], items: Iterable[Item], count: int) -> Iterator[Result]:
    """The result of each item, in order; no more than `count` of them are begun and not yet taken.

    begin: starts the work on an item. What is begun is cancelled where the iterator ends early.
    """
    begun: Deque[Begun[Result]] = deque()
    try:
        for item in items:
            begun.append(begin(item))
            if len(begun) == count:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for one in begun:
            one.cancel()
