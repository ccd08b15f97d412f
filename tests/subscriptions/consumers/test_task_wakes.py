"""Consumers that tasks run: one wake at a time, whatever becomes of its task."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections

from django_durable_streams import clock
from django_durable_streams.consumers import Batch, Consumer, consumer
from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.subscriptions.consumers import task_run, task_wakes
from django_durable_streams.subscriptions.consumers.subscribing import subscribe
from django_durable_streams.subscriptions.consumers.task_wakes import LOST_SECONDS, TaskWake, begin_wakes, end, extend
from django_durable_streams.subscriptions.pending import look_at_unseen
from tests.subscriptions.consumers.steps import subscribed
from tests.subscriptions.steps import USING, Clock

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def moved_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(clock, "now", moved)
    return moved


class Example:
    """A consumer that notes what it handles, and its subscription."""

    def __init__(self, pattern: str = "s/*", **options: Any) -> None:
        self.handled: list[Any] = []

        def handle(batch: Batch) -> None:
            self.handled.extend(batch.messages)

        self.consumer: Consumer = consumer(pattern, name="c", start="beginning", **options)(handle)
        self.key = subscribed(self.consumer, from_beginning=None)

    def begin(self) -> list[TaskWake]:
        while look_at_unseen(USING).through:
            pass
        return begin_wakes({self.key: self.consumer}, USING)


def append(path: str, *values: Any) -> None:
    stream, _ = Stream.objects.ensure(path, content_type="application/json")
    stream.append_many(values)


def run(wake: TaskWake) -> int:
    return task_run.run("c", wake.subscription_id, wake.id)


def test_a_wake_begins_once_however_much_is_appended() -> None:
    example = Example()
    assert example.begin() == []
    append("s/1", 1)
    (wake,) = example.begin()
    append("s/2", 2, 3)
    assert example.begin() == []
    assert run(wake) == 3
    assert sorted(example.handled) == [1, 2, 3]
    subscription = Subscription.objects.get()
    assert (subscription.wake_id, subscription.lease_expires_at, subscription.generation) == ("", None, 1)
    assert example.begin() == []
    append("s/2", 4)
    (after,) = example.begin()
    assert after.id != wake.id


def test_a_lost_task_is_followed_by_another_one(moved_clock: Clock) -> None:
    example = Example()
    append("s/1", 1)
    (lost,) = example.begin()
    moved_clock.move(LOST_SECONDS - 1)
    assert example.begin() == []
    moved_clock.move(2)
    (wake,) = example.begin()
    assert run(lost) == 0  # it comes late
    assert example.handled == []
    assert run(wake) == 1
    assert run(wake) == 0  # it was enqueued twice
    assert example.handled == [1]


def test_a_wake_at_work_is_kept(moved_clock: Clock) -> None:
    example = Example()
    append("s/1", 1)
    (wake,) = example.begin()
    moved_clock.move(LOST_SECONDS - 1)
    assert extend(wake, USING)
    moved_clock.move(LOST_SECONDS - 1)
    assert example.begin() == []
    end(wake, USING)
    assert not extend(wake, USING)
    assert len(example.begin()) == 1


def test_a_late_end_ends_no_other_wake(moved_clock: Clock) -> None:
    example = Example()
    append("s/1", 1)
    (lost,) = example.begin()
    moved_clock.move(LOST_SECONDS + 1)
    (wake,) = example.begin()
    end(lost, USING)
    assert extend(wake, USING)


def test_what_comes_before_the_end_of_a_wake_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    example = Example()
    append("s/1", 1)
    (wake,) = example.begin()
    late = [2]

    def end_late(ended: TaskWake, using: str) -> None:
        if late:
            append("s/1", late.pop())
            assert example.begin() == []  # the delivery sees a wake in flight
        end(ended, using)

    monkeypatch.setattr(task_run, "end", end_late)
    assert run(wake) == 2
    assert example.handled == [1, 2]


def test_a_task_has_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    example = Example(batch_size=1)
    append("s/1", 1, 2)
    (wake,) = example.begin()
    monkeypatch.setattr(task_run, "RUN_SECONDS", 0.0)
    assert run(wake) == 0
    (wake,) = example.begin()  # the rest gets another task
    monkeypatch.undo()
    assert run(wake) == 2


def test_a_task_that_is_stopped_ends_after_its_batch() -> None:
    stopped: list[int] = []

    @consumer("s/*", name="c", start="beginning", batch_size=1)
    def handle(batch: Batch) -> None:
        stopped.append(1)
        task_run.stop()

    key = subscribe(handle, USING)
    append("s/1", 1, 2)
    look_at_unseen(USING)
    (wake,) = begin_wakes({key: handle}, USING)
    assert run(wake) == 1
    assert len(begin_wakes({key: handle}, USING)) == 1
    assert SubscriptionLink.objects.get().acked_position == 2


def test_a_failure_gets_a_task_when_its_next_attempt_is_due(moved_clock: Clock) -> None:
    fails = [True]

    @consumer("s/*", name="c", start="beginning")
    def handle(batch: Batch) -> None:
        if fails:
            fails.pop()
            raise ValueError

    key = subscribe(handle, USING)
    append("s/1", 1)
    look_at_unseen(USING)
    (wake,) = begin_wakes({key: handle}, USING)
    assert run(wake) == 0
    assert begin_wakes({key: handle}, USING) == []
    moved_clock.move(2)
    (wake,) = begin_wakes({key: handle}, USING)
    assert run(wake) == 1


def test_streams_that_a_consumer_passes_over_get_no_task() -> None:
    example = Example("**")
    for number in range(task_wakes.CANDIDATES + 1):
        consumer("other/*", name=f"o{number}")(lambda batch: None)
        append(f"dead-letters/o{number}", 1)
    assert example.begin() == []
    append("s/1", 1)
    assert len(example.begin()) == 1


def test_a_paused_consumer_gets_no_task() -> None:
    example = Example()
    append("s/1", 1)
    Subscription.objects.unguarded().update(is_paused=True)
    assert example.begin() == []


def test_a_deleted_subscription_gets_no_task_and_its_task_does_nothing() -> None:
    example = Example()
    append("s/1", 1)
    (wake,) = example.begin()
    Subscription.objects.unguarded().update(name=None)
    assert example.begin() == []
    assert run(wake) == 0


def test_processes_that_look_at_the_same_time_begin_one_wake() -> None:
    example = Example()
    append("s/1", 1)
    while look_at_unseen(USING).through:
        pass
    barrier = threading.Barrier(4)

    def begin() -> list[TaskWake]:
        try:
            barrier.wait(10)
            return begin_wakes({example.key: example.consumer}, USING)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        begun = [wake for future in [threads.submit(begin) for _ in range(4)] for wake in future.result()]
    assert len(begun) == 1
    assert Subscription.objects.get().generation == 1


def test_tasks_that_run_twice_at_once_handle_each_message_once() -> None:
    example = Example(batch_size=1)
    append("s/1", *range(20))
    append("s/2", *range(20, 40))
    (wake,) = example.begin()

    def work() -> int:
        try:
            return run(wake)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        counts = [future.result() for future in [threads.submit(work) for _ in range(2)]]
    assert sum(counts) == 40
    assert sorted(example.handled) == list(range(40))


def test_the_wake_of_a_long_handler_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    if connections[USING].vendor == "sqlite":
        pytest.skip("a handler's transaction has the only write lock, so no wake can begin meanwhile")
    monkeypatch.setattr(task_wakes, "LOST_SECONDS", 0.4)
    monkeypatch.setattr(task_run, "LOST_SECONDS", 0.4)
    begun: list[TaskWake] = []

    @consumer("s/*", name="c", start="beginning")
    def handle(batch: Batch) -> None:
        time.sleep(1.0)
        begun.extend(begin_wakes({key: handle}, USING))

    key = subscribe(handle, USING)
    append("s/1", 1)
    append("s/2", 2)
    look_at_unseen(USING)
    (wake,) = begin_wakes({key: handle}, USING)
    assert run(wake) == 2
    assert begun == []


@pytest.mark.parametrize("how", ["autocommit off", "autocommit switched off"])
def test_a_task_leaves_the_connection_and_the_transaction_of_its_process_as_they_were(how: str) -> None:
    """The next task of the project goes on in this thread."""
    example = Example()
    append("s/1", 1)
    (wake,) = example.begin()
    results: list[Any] = []

    def work() -> None:
        connection = connections[USING]
        if how == "autocommit off":
            connection.settings_dict = {**connection.settings_dict, "AUTOCOMMIT": False}
        else:
            connection.set_autocommit(False)
        User.objects.count()  # with a server, a transaction has begun
        settings = connection.settings_dict
        results.append(run(wake))
        results.append(connections[USING] is connection and connection.settings_dict is settings)
        User.objects.create(username="not committed")
        connection.rollback()
        results.append(User.objects.count())
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [1, True, 0]
    assert example.handled == [1]


def test_a_task_without_autocommit_that_fails_gives_the_connection_back(monkeypatch: pytest.MonkeyPatch) -> None:
    example = Example()
    append("s/1", 1)
    (wake,) = example.begin()
    monkeypatch.setattr(task_run, "extend", lambda *args: 1 / 0)
    seen: list[bool] = []

    def work() -> None:
        connection = connections[USING]
        connection.set_autocommit(False)
        with pytest.raises(ZeroDivisionError):
            run(wake)
        seen.append(connections[USING] is connection and not connection.get_autocommit())
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
