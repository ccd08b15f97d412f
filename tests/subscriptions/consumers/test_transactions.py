"""Consumers and the transactions of others, on databases with several writers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction

from django_durable_streams import clock
from django_durable_streams.consumers import Batch, consumer
from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.subscriptions.consumers import cursors
from django_durable_streams.subscriptions.consumers.isolation import read_committed
from django_durable_streams.subscriptions.consumers.worker import Worker
from django_durable_streams.subscriptions.pending import look_at_unseen
from tests.store.test_isolation import LEVELS, elsewhere, isolated
from tests.subscriptions.consumers.steps import SECONDS, json_stream, run, runner, usernames
from tests.subscriptions.steps import USING

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time"),
]


def test_effects_of_a_worker_whose_stream_was_taken_over_are_rolled_back() -> None:
    """The second worker handles the stream while the first one is in the middle of its transaction."""
    is_first = True

    @consumer("s/*", name="c")
    def handle(batch: Batch) -> None:
        nonlocal is_first
        name = "first" if is_first else "second"
        get_user_model().objects.create(username=name)
        if is_first:
            is_first = False
            elsewhere(take_over)

    def take_over() -> None:
        SubscriptionLink.objects.unguarded().update(lease_expires_at=clock.now())
        assert runner(handle).step()

    json_stream("s/1", 1)
    worker = runner(handle)
    assert worker.step()
    assert usernames() == ["second"]
    assert not worker.step()


def test_a_worker_whose_stream_was_replaced_commits_nothing_of_the_old_one() -> None:
    handled: list[int] = []

    @consumer("s/*", name="c")
    def handle(batch: Batch) -> None:
        get_user_model().objects.create(username=str(batch.messages))
        if not handled:
            elsewhere(replace)
        handled.extend(batch.messages)

    def replace() -> None:
        Stream.objects.all().delete()
        json_stream("s/1", 2)

    json_stream("s/1", 1)
    run(handle)
    assert handled == [1, 2]
    assert usernames() == ["[2]"]


def test_a_transaction_that_takes_a_path_again_stops_no_other_stream() -> None:
    handled: list[str] = []

    @consumer("s/*", name="c")
    def handle(batch: Batch) -> None:
        handled.append(batch.stream)

    old, other = json_stream("s/1", 1), json_stream("s/2", 1)
    elsewhere(lambda: run(handle))
    old.append(2)
    other.append(2)
    with transaction.atomic():
        old.delete()
        json_stream("s/1", 1)
        elsewhere(lambda: run(handle))
        assert handled[2:] == ["s/2"]
    run(handle)
    assert handled[3:] == ["s/1"]


def test_a_handler_may_run_for_longer_than_its_lease() -> None:
    started, may_end = threading.Event(), threading.Event()
    handled: list[int] = []

    @consumer("s/*", name="c", lease=1.0, start="beginning")
    def handle(batch: Batch) -> None:
        started.set()
        assert may_end.wait(SECONDS)
        handled.extend(batch.messages)

    json_stream("s/1", 1)
    worker = Worker([handle], USING)
    worker.start()
    try:
        assert started.wait(SECONDS)
        first = SubscriptionLink.objects.get().lease_expires_at
        assert first is not None
        until = time.monotonic() + SECONDS
        while SubscriptionLink.objects.get().lease_expires_at < first + timedelta(seconds=1):
            assert time.monotonic() < until
            assert cursors.claimable(SubscriptionLink.objects.get().subscription_id, USING, 0, 10) == []
            time.sleep(0.02)
        may_end.set()
    finally:
        may_end.set()
        worker.stop()
        assert worker.join(SECONDS)
    assert handled == [1]
    link = SubscriptionLink.objects.get()
    assert (link.acked_position, link.failures) == (2, 0)


def test_two_workers_share_streams_and_handle_each_message_once() -> None:
    lock, done = threading.Lock(), threading.Event()
    handled: list[tuple[str, int]] = []
    streams, count = 10, 20

    @consumer("s/*", name="c", batch_size=3, start="beginning")
    def handle(batch: Batch) -> None:
        get_user_model().objects.bulk_create(
            get_user_model()(username=f"{batch.stream} {value}") for value in batch.messages
        )
        with lock:
            handled.extend((batch.stream, value) for value in batch.messages)
            if len(handled) >= streams * count:
                done.set()

    workers = [Worker([handle], USING) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        created = [
            Stream.objects.create(path=f"s/{number}", content_type="application/json") for number in range(streams)
        ]
        for value in range(count):
            for stream in created:
                stream.append(value)
        assert done.wait(SECONDS)
    finally:
        for worker in workers:
            worker.stop()
        assert all(worker.join(SECONDS) for worker in workers)
    assert get_user_model().objects.count() == streams * count
    for number in range(streams):
        assert [value for path, value in handled if path == f"s/{number}"] == list(range(count))


@pytest.mark.parametrize("level", LEVELS)
def test_the_workers_own_transactions_are_read_committed_and_handlers_have_the_level_of_the_project(level: str) -> None:
    levels: list[str] = []

    @consumer("s/*", name="c")
    def handle(batch: Batch) -> None:
        levels.append(present_level())

    json_stream("s/1", 1)
    with isolated(level), as_configured(level):
        worker = runner(handle)
        with read_committed(USING), transaction.atomic():
            levels.append(present_level())
        with transaction.atomic():
            levels.append(present_level())
        assert worker.step()
    assert levels == ["READ COMMITTED", level, level]
    assert SubscriptionLink.objects.get().acked_position == 2


@contextmanager
def as_configured(level: str) -> Iterator[None]:
    """Have Django's connection say the same as that of the database."""
    if connection.vendor != "mysql":
        yield
        return
    previous, connection.isolation_level = connection.isolation_level, level.lower()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        connection.isolation_level = previous  # type: ignore[attr-defined]


def present_level() -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SHOW transaction_isolation")
            return str(cursor.fetchall()[0][0]).upper()
        cursor.execute("SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')")
        return str(cursor.fetchall()[0][1]).replace("-", " ")


@pytest.mark.parametrize("model", [Stream, SubscriptionLink])
def test_a_step_that_another_transaction_holds_up_is_repeated_soon(
    model: type[Stream] | type[SubscriptionLink],
) -> None:
    """Another process looks at the same append, and holds the row of the stream or the link for a moment."""
    example = json_stream("s/1", 1)
    handled: list[object] = []

    @consumer("s/*", name="c", start="beginning")
    def handle(batch: Batch) -> None:
        handled.extend(batch.messages)

    one = runner(handle)
    while one.step():
        pass
    example.append({"number": 2})
    if model is SubscriptionLink:
        look_at_unseen(USING)
    outcomes: list[tuple[bool, bool]] = []
    with transaction.atomic():
        assert model.objects.select_for_update().get()
        elsewhere(lambda: outcomes.append((one.step(), one.is_held_up)))
    assert outcomes == [(False, True)]
    handled.clear()
    assert one.step()
    assert handled == [{"number": 2}]
    assert not one.step()
    assert not one.is_held_up
