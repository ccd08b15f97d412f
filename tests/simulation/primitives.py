"""What threads wait for each other with, on top of the scheduler: the names and the behaviour of the standard library.

A thread that the scheduler does not know, such as the one that sets a run up, never waits here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, Full
from typing import Any

from .scheduler import Scheduler, Task

scheduler: Scheduler
"""Of the run that is under way."""


def use(current: Scheduler) -> None:
    """Begin a run."""
    global scheduler
    scheduler = current


class Waiters:
    """Tasks that wait for the same."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: list[Task] = []

    def wait(self, deadline: float | None) -> bool:
        """Wait; return whether somebody has woken this task."""
        task = scheduler.current
        assert task is not None, "only tasks wait"
        self._tasks.append(task)
        try:
            return scheduler.block(deadline)
        finally:
            if task in self._tasks:
                self._tasks.remove(task)

    def wake(self, count: int | None = None) -> None:
        """Wake all, or some, in no particular order."""
        while self._tasks and count != 0:
            place = int(scheduler.rng.random() * len(self._tasks)) if count is not None else 0
            scheduler.wake(self._tasks.pop(place))
            count = None if count is None else count - 1


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None or timeout < 0 else scheduler.now + timeout


class Lock:
    """threading.Lock."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiters = Waiters()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler.pause()
        deadline = _deadline(timeout)
        while self._is_held:
            if not blocking or not (self._waiters.wait(deadline) or self._is_held is False):
                return False
        self._is_held = True
        return True

    def release(self) -> None:
        if not self._is_held:
            raise RuntimeError("release unlocked lock")
        self._is_held = False
        self._waiters.wake(1)

    def locked(self) -> bool:
        return self._is_held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *args: object) -> None:
        self.release()


class RLock(Lock):
    """threading.RLock."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: Task | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._depth and self._owner is scheduler.current:
            self._depth += 1
            return True
        if not super().acquire(blocking, timeout):
            return False
        self._owner, self._depth = scheduler.current, 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            super().release()


class Condition:
    """threading.Condition."""

    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = lock if lock is not None else RLock()
        self._waiters = Waiters()
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *args: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        self._lock.release()
        try:
            return self._waiters.wait(_deadline(timeout))
        finally:
            self._lock.acquire()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        deadline = _deadline(timeout)
        while not (result := predicate()):
            if deadline is not None and scheduler.now >= deadline:
                break
            self.wait(None if deadline is None else deadline - scheduler.now)
        return result

    def notify(self, n: int = 1) -> None:
        self._waiters.wake(n)

    def notify_all(self) -> None:
        self._waiters.wake()


class Event:
    """threading.Event."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters = Waiters()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._waiters.wake()
        scheduler.pause()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        scheduler.pause()
        if not self._is_set:
            self._waiters.wait(_deadline(timeout))
        return self._is_set


class SimpleQueue:
    """queue.SimpleQueue, and queue.Queue with a bound."""

    def __init__(self, maxsize: int = 0) -> None:
        self._items: deque[Any] = deque()
        self._maxsize = maxsize
        self._waiters = Waiters()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if self._maxsize and len(self._items) >= self._maxsize:
            raise Full  # nobody here waits for that
        self._items.append(item)
        self._waiters.wake(1)
        scheduler.pause()

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        scheduler.pause()
        deadline = _deadline(timeout)
        while not self._items:
            if not block or not (self._waiters.wait(deadline) or self._items):
                raise Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


class Thread:
    """threading.Thread."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Any = (),
        kwargs: Any = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._target, self._args, self._kwargs = target, args, kwargs or {}
        self.name = name or "thread"
        self.daemon = bool(daemon)
        self._task: Task | None = None
        self._is_over = False
        self._waiters = Waiters()

    @property
    def ident(self) -> int | None:
        return self._task.number if self._task is not None else None

    def start(self) -> None:
        current = scheduler.current
        assert current is not None, "only tasks start threads"
        self._task = current.process.spawn(self.run, self.name)
        self._task.at_end.append(self._end)
        scheduler.pause()

    def run(self) -> None:
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def join(self, timeout: float | None = None) -> None:
        deadline = _deadline(timeout)
        while not self._is_over and self._waiters.wait(deadline):
            pass

    def is_alive(self) -> bool:
        return self._task is not None and not self._is_over

    def _end(self) -> None:
        self._is_over = True
        self._waiters.wake()


class Timer(Thread):
    """threading.Timer."""

    def __init__(self, interval: float, function: Callable[..., object], args: Any = (), kwargs: Any = None) -> None:
        super().__init__(target=function, args=args, kwargs=kwargs, name="timer")
        self.interval = interval
        self._cancelled = Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def run(self) -> None:
        if not self._cancelled.wait(self.interval):
            super().run()


def get_ident() -> int:
    """Return the number of the task, or the thread's own where it is none."""
    task = scheduler.current
    return task.number if task is not None else threading.get_ident()


def sleep(seconds: float) -> None:
    """Let virtual time pass. Short sleeps become longer ones at times, as they do on a busy machine."""
    if 0 < seconds < 0.005:
        seconds *= scheduler.rng.choice((1, 4, 20, 100))
    scheduler.sleep(seconds)
