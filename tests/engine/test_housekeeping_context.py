"""When housekeeping writes: in turn with requests, or in moments that they leave free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import pytest

from django_durable_streams.engine import housekeeping_context
from django_durable_streams.engine.housekeeping_context import HousekeepingContext
from django_durable_streams.runtime.connection import DedicatedConnection
from django_durable_streams.runtime.write_lock import WriteLock


class Connection(nullcontext[None]):
    using = "default"

    def open(self) -> bool:
        return False


class Lock:
    """A write lock that is busy for some attempts. Notes what is asked of it."""

    is_one = True

    def __init__(self, busy: int) -> None:
        self.busy = busy
        self.asked: list[str] = []

    def hold(self) -> Any:
        self.asked.append("hold")
        return nullcontext()

    @contextmanager
    def try_hold(self) -> Iterator[bool]:
        self.asked.append("try")
        yield self.is_free()

    def is_free(self) -> bool:
        self.busy -= 1
        return self.busy < 0


def context_of(lock: Lock) -> HousekeepingContext:
    return HousekeepingContext(cast(DedicatedConnection, Connection()), cast(WriteLock, lock), None)


@pytest.mark.parametrize("busy", [0, 1, 3])
def test_work_that_is_not_urgent_does_not_queue_in_front_of_requests(
    monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    monkeypatch.setattr(housekeeping_context, "POLITE_SECONDS", 60.0)
    lock = Lock(busy)
    done: list[int] = []
    context_of(lock).do_politely(done.append, 1)
    assert done == [1]
    assert lock.asked == ["try"] * (busy + 2)


def test_the_lock_must_be_free_at_two_attempts_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping_context, "POLITE_SECONDS", 60.0)
    lock = Lock(0)
    free = iter([True, False, True, False, False, True, True])
    monkeypatch.setattr(lock, "is_free", lambda: next(free))
    assert context_of(lock).do_politely(lambda: 7) == 7
    assert next(free, None) is None


def test_a_database_with_many_writers_is_always_free() -> None:
    lock = Lock(0)
    lock.is_one = False
    assert context_of(lock).do_politely(lambda: 7) == 7
    assert lock.asked == ["try"]


def test_it_queues_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping_context, "POLITE_SECONDS", 0.02)
    lock = Lock(10**9)
    assert context_of(lock).do_politely(lambda: 7) == 7
    assert lock.asked[0] == "try"
    assert lock.asked[-1] == "hold"
    assert lock.asked.count("hold") == 1


def test_other_work_queues_at_once() -> None:
    lock = Lock(0)
    assert context_of(lock).do(lambda: 7) == 7
    assert lock.asked == ["hold"]


def test_what_the_work_raises_is_raised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping_context, "POLITE_SECONDS", 60.0)
    lock = Lock(1)
    with pytest.raises(ZeroDivisionError):
        context_of(lock).do_politely(lambda: 1 // 0)
    assert lock.asked == ["try"] * 3
