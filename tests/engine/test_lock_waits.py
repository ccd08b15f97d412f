"""The lock wait queue's threads outlive any exception in them, and its end does not wait for one that hangs."""

import time
from collections.abc import Callable, Sequence
from threading import Event, Thread

import pytest

from django_durable_streams.engine import lock_waits
from django_durable_streams.engine.lock_waits import LockWaitQueue, PendingOperation
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime.backlog import Backlog
from django_durable_streams.runtime.connection import DedicatedConnection
from django_durable_streams.runtime.results import NO_LOOP
from django_durable_streams.store.operations import Append, Done, Operation

SECONDS = 10.0


class Outcome:
    """A callback that keeps its value."""

    def __init__(self) -> None:
        self.value: object = None
        self._arrived = Event()

    def prepare(self, value: object) -> None:
        raise AssertionError("nothing is prepared for an operation that waits")

    def resolve(self, value: object) -> None:
        self.value = value
        self._arrived.set()

    def wait(self) -> object:
        assert self._arrived.wait(SECONDS)
        return self.value


class FailingApplier:
    """Raises an exception once, and applies everything after it."""

    def __init__(self, error: BaseException) -> None:
        self.connection = DedicatedConnection("default")
        self._errors = [error]

    def apply(self, operations: Sequence[Operation]) -> Sequence[object]:
        if self._errors:
            raise self._errors.pop()
        return [Done()] * len(operations)

    def apply_when_free(
        self, path: str, operations: Callable[[], Sequence[Operation]], seconds: float
    ) -> Sequence[object]:
        return self.apply(operations())

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(1), GeneratorExit()], ids=repr)
def test_whatever_is_raised_in_a_thread_the_next_operation_on_the_stream_has_an_outcome(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    backlog = Backlog(10, 10)
    queue = LockWaitQueue("test", lambda: FailingApplier(error), backlog)
    try:
        outcomes = []
        for _ in range(2):
            backlog.add(1, 1)
            outcomes.append(Outcome())
            queue.add([PendingOperation(Append("a", "text/plain", b"x"), NO_LOOP, outcomes[-1], time.monotonic(), 1)])
            outcomes[-1].wait()
    finally:
        queue.stop()
    assert isinstance(outcomes[0].value, ServiceUnavailable)
    assert isinstance(outcomes[1].value, Done)
    assert (backlog.tasks, backlog.bytes) == (0, 0)
    assert "Waiting for the locked streams a failed" in caplog.text


class HangingApplier(FailingApplier):
    """Hangs in the database until the test ends, and says then that it has applied everything."""

    def __init__(self) -> None:
        super().__init__(RuntimeError())
        self.is_asked = Event()
        self.thaws = Event()

    def apply(self, operations: Sequence[Operation]) -> Sequence[object]:
        self.is_asked.set()
        assert self.thaws.wait(SECONDS)
        return [Done()] * len(operations)


def pending(backlog: Backlog) -> tuple[PendingOperation, Outcome]:
    backlog.add(1, 1)
    outcome = Outcome()
    return PendingOperation(Append("a", "text/plain", b"x"), NO_LOOP, outcome, time.monotonic(), 1), outcome


def test_the_end_does_not_wait_for_a_thread_that_hangs_in_the_database(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock_waits, "STOP_SECONDS", 0.1)
    applier, backlog = HangingApplier(), Backlog(10, 10)
    queue = LockWaitQueue("test-hanging", lambda: applier, backlog)
    operation, outcome = pending(backlog)
    queue.add([operation])
    assert applier.is_asked.wait(SECONDS)
    stopping = Thread(target=queue.stop, daemon=True)
    try:
        stopping.start()
        stopping.join(SECONDS)
        assert not stopping.is_alive()
        refusal = outcome.wait()
    finally:
        applier.thaws.set()
        for thread in queue._threads:
            thread.join(SECONDS)
    assert isinstance(refusal, ServiceUnavailable)
    assert "did not confirm" in refusal.detail
    assert outcome.value is refusal  # the thread's own outcome came too late
    assert (backlog.tasks, backlog.bytes) == (0, 0)
    assert [record.message for record in caplog.records] == [
        "The thread test-hanging does not end. The end of the process does not wait for it."
    ]


def test_an_operation_that_comes_after_the_end_is_refused() -> None:
    backlog = Backlog(10, 10)
    queue = LockWaitQueue("test", HangingApplier, backlog)
    queue.stop()
    operation, outcome = pending(backlog)
    queue.add([operation])
    assert isinstance(outcome.wait(), ServiceUnavailable)
    assert (backlog.tasks, backlog.bytes, queue._threads) == (0, 0, [])
