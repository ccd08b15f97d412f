"""Handlers that do what they should not: no message is lost, repeated or held up for ever by it."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import Error, IntegrityError, OperationalError, connection, connections, transaction

from django_durable_streams.consumers import Batch, consumer
from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.protocol.errors import TransactionConflict as ProtocolConflict
from django_durable_streams.subscriptions.consumers import cursors, failures
from django_durable_streams.subscriptions.consumers.replaying import replay
from django_durable_streams.subscriptions.consumers.worker import Worker
from django_durable_streams.subscriptions.selection import Selection
from django_durable_streams.testing import run_consumers
from tests.subscriptions.consumers.steps import (
    SECONDS,
    json_stream,
    letters,
    register,
    run,
    runner,
    usernames,
)
from tests.subscriptions.steps import USING, Clock

own_transactions = pytest.mark.django_db(transaction=True)


def create_user(name: str) -> None:
    get_user_model().objects.create(username=name)


# What a handler does to its batch.


def change_value(batch: Batch) -> None:
    for event in batch.messages:
        event.pop("name")


def change_nested_value(batch: Batch) -> None:
    for event in batch.messages:
        assert event["tags"].pop()


def change_list(batch: Batch) -> None:
    while batch.messages:
        batch.messages.pop().pop("name")


def upcast(value: Any) -> Any:
    value["type"] = "B"
    value["name"] += "!"
    assert value["name"].count("!") == 1
    return value


@pytest.mark.django_db
@pytest.mark.parametrize("spoil", [change_value, change_nested_value, change_list, None])
def test_what_a_failed_attempt_did_to_messages_does_not_reach_the_next_one(
    spoil: Callable[[Batch], None] | None,
) -> None:
    handled: list[str] = []

    def handle(batch: Batch) -> None:
        names = [event["name"] for event in batch.messages]
        if spoil is not None:
            spoil(batch)
        if any(name.startswith("bad") for name in names):
            raise ValueError
        handled.extend(names)

    upcasters = {} if spoil is not None else {"A": upcast}
    one = register(handle, max_attempts=2, upcasters=upcasters)
    json_stream("s/1", *({"type": "A", "name": name, "tags": [1]} for name in ("ann", "bad", "bob")))
    run(one, delay=lambda failures: 0)
    assert [name.strip("!") for name in handled] == ["ann", "bob"]
    assert [letter["name"] for letter in letters()] == ["bad"]


# What a handler returns or raises.


def lazy(batch: Batch) -> Any:
    yield batch


class LazyObject:
    def __call__(self, batch: Batch) -> Any:
        yield batch


async def lazy_coroutine(batch: Batch) -> Any:
    yield batch


@pytest.mark.django_db
@pytest.mark.parametrize("handler", [lambda batch: lazy(batch), LazyObject(), lambda batch: lazy_coroutine(batch)])
def test_a_handler_that_returns_a_generator_has_not_handled_its_messages(handler: Callable[[Batch], Any]) -> None:
    json_stream("s/1", 1)
    run(register(handler, max_attempts=1))
    assert letters() == [1]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class Unformattable(Exception):
    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise RuntimeError


@pytest.mark.django_db
@pytest.mark.parametrize("error", [Unprintable(), Unformattable("x"), ExceptionGroup("x", [Unprintable()])])
def test_errors_that_cannot_be_printed_are_parked(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(100)  # the log cannot print them either

    def fail(batch: Batch) -> None:
        raise error

    json_stream("s/1", 1)
    run(register(fail, max_attempts=1))
    assert letters() == [1]


class Ending(BaseException):
    """An exception of a library that nobody is to catch."""


@own_transactions
@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, SystemExit, Ending])
def test_no_exception_of_a_handler_ends_the_worker(kind: type[BaseException]) -> None:
    is_handled = threading.Event()

    def handle(batch: Batch) -> None:
        if batch.messages == ["bad"]:
            create_user("bad")
            raise kind
        is_handled.set()

    one = register(handle, max_attempts=1, batch_size=1, start="beginning")
    json_stream("s/1", "bad", "good")
    worker = Worker([one], USING)
    worker.start()
    try:
        assert is_handled.wait(SECONDS)
        assert worker.is_alive
    finally:
        worker.stop()
        assert worker.join(SECONDS)
    assert (letters(), usernames()) == (["bad"], [])


@pytest.mark.django_db
def test_an_interrupted_test_gives_the_stream_back() -> None:
    interrupts = True
    handled: list[Any] = []

    def handle(batch: Batch) -> None:
        if interrupts:
            raise KeyboardInterrupt
        handled.extend(batch.messages)

    json_stream("s/1", 1)
    worker = runner(register(handle))
    with pytest.raises(KeyboardInterrupt):
        worker.step()
    interrupts = False
    assert worker.step()
    assert handled == [1]


# Errors of the database.


def busy() -> Exception:
    return OperationalError("database is locked")


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


def in_context(outer: Exception, inner: BaseException) -> Exception:
    outer.__context__ = inner
    return outer


class Conflict(ProtocolConflict, OperationalError):
    """As `Stream.append` raises it where another transaction has taken a path."""


@pytest.mark.django_db
@pytest.mark.parametrize(
    "error",
    [
        busy(),
        Conflict("Run the whole transaction again."),
        caused(ValueError("a library's own error"), busy()),
        in_context(ValueError("an error in an except block"), busy()),
        ExceptionGroup("of a task group", [ValueError(), caused(RuntimeError(), busy())]),
    ],
)
def test_a_conflict_with_another_transaction_is_never_the_fault_of_a_message(error: Exception, now: Clock) -> None:
    attempts = 0

    def handle(batch: Batch) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 12:
            raise error

    json_stream("s/1", 1)
    worker = runner(register(handle, max_attempts=1))
    while attempts < 12:
        assert worker.step()
        now.move(2)
    assert (letters(), SubscriptionLink.objects.get().failures) == ([], 0)


@pytest.mark.django_db
def test_an_error_that_hides_a_conflict_on_purpose_counts() -> None:
    def handle(batch: Batch) -> None:
        try:
            raise busy()
        except OperationalError:
            raise ValueError from None

    json_stream("s/1", 1)
    run(register(handle, max_attempts=1))
    assert letters() == [1]


def lose_connection() -> None:
    connection.connection.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@own_transactions
@pytest.mark.skipif(connection.vendor == "sqlite", reason="no connection that can be lost")
@pytest.mark.parametrize("lose", [connection.close, lose_connection])
def test_a_message_that_loses_the_connection_is_excused_for_some_time_only(
    lose: Callable[[], None], now: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    def handle(batch: Batch) -> None:
        nonlocal attempts
        if batch.messages == ["bad"]:
            attempts += 1
            lose()
        create_user(batch.messages[0])

    json_stream("s/1", "bad", "good")
    worker = runner(register(handle, max_attempts=2, batch_size=1))
    for _ in range(30):
        worker.step()
        now.move(61)
    assert (letters(), usernames()) == (["bad"], ["good"])
    assert attempts == failures.MAX_LOST + 2


@own_transactions
@pytest.mark.skipif(connection.vendor == "sqlite", reason="no connection that can be lost")
def test_a_connection_that_is_lost_now_and_then_is_no_fault_of_a_message(now: Clock) -> None:
    attempts = 0

    def handle(batch: Batch) -> None:
        nonlocal attempts
        attempts += 1
        create_user(str(attempts))
        if attempts < failures.MAX_LOST:
            lose_connection()

    json_stream("s/1", 1)
    worker = runner(register(handle, max_attempts=1))
    for _ in range(20):
        worker.step()
        now.move(2)
    assert (letters(), usernames()) == ([], [str(failures.MAX_LOST)])


@own_transactions
@pytest.mark.usefixtures("engines")
@pytest.mark.skipif(connection.vendor == "sqlite", reason="no connection that can be lost")
def test_a_worker_goes_on_after_it_has_lost_its_connection_right_after_a_commit() -> None:
    is_done = threading.Event()

    def handle(batch: Batch) -> None:
        create_user(f"user {batch.messages[0]}")
        if batch.messages == [1]:
            lose_at_commit()
        else:
            transaction.on_commit(is_done.set)

    def lose_at_commit() -> None:
        wrapper = connections[USING]
        switch = wrapper._set_autocommit  # type: ignore[attr-defined]

        def lose_and_switch(autocommit: bool) -> None:
            wrapper._set_autocommit = switch  # type: ignore[attr-defined]
            with socket.socket(fileno=os.dup(wrapper.connection.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
            switch(autocommit)

        wrapper._set_autocommit = lose_and_switch  # type: ignore[attr-defined]

    one = register(handle, batch_size=1, start="beginning", lease=1.0)
    json_stream("s/1", 1, 2)
    worker = Worker([one], USING)
    worker.start()
    try:
        assert is_done.wait(SECONDS)
    finally:
        worker.stop()
        assert worker.join(SECONDS)
    assert usernames() == ["user 1", "user 2"]


@own_transactions
@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite has such triggers")
def test_effects_that_sqlite_has_undone_are_not_lost() -> None:
    def handle(batch: Batch) -> None:
        create_user("ann")
        try:
            create_user("refused")
        except IntegrityError:
            pass
        try:
            with transaction.atomic():  # begins another transaction
                create_user("bob")
        except Error:
            pass

    json_stream("s/1", 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON auth_user WHEN NEW.username = 'refused' "
            "BEGIN SELECT RAISE(ROLLBACK, 'refused'); END"
        )
    try:
        run(register(handle, max_attempts=1))
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER refuse")
    assert letters() == [1]


@own_transactions
@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")
@pytest.mark.parametrize("swallows", [False, True])
def test_effects_that_a_deadlock_has_undone_are_not_lost(swallows: bool, now: Clock) -> None:
    """MySQL begins another transaction after a deadlock, and the handler may not notice."""
    ids = [get_user_model().objects.create(username=name).pk for name in ("a", "b")]
    deadlocks = 0

    def handle(batch: Batch) -> None:
        nonlocal deadlocks
        create_user("effect")
        lock(ids[0])
        if not deadlocks:
            rival.start()
            assert has_b.wait(SECONDS)
        try:
            lock(ids[1])
        except OperationalError:
            deadlocks += 1
            if not swallows:
                raise

    def oppose() -> None:
        try:
            with transaction.atomic():
                if connection.vendor == "postgresql":
                    with connection.cursor() as cursor:
                        cursor.execute("SET LOCAL deadlock_timeout = '20s'")  # the handler finds the deadlock
                for number in range(100):  # MySQL ends the transaction that has changed less
                    create_user(f"0 {number}")  # far from the rows of the handler in the index
                lock(ids[1])
                has_b.set()
                lock(ids[0])
                transaction.set_rollback(True)
        finally:
            connection.close()

    def lock(user_id: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT username FROM auth_user WHERE id = %s FOR UPDATE", [user_id])

    has_b = threading.Event()
    rival = threading.Thread(target=oppose)
    json_stream("s/1", 1)
    worker = runner(register(handle, max_attempts=5))
    for _ in range(3):
        worker.step()
        rival.join(SECONDS)  # otherwise the second attempt may meet it again
        now.move(61)
    assert deadlocks == 1
    assert usernames() == ["a", "b", "effect"]
    assert SubscriptionLink.objects.get().acked_position == 2
    assert letters() == []


@own_transactions
@pytest.mark.skipif(connection.vendor != "mysql", reason="other databases cannot have such a column")
def test_a_failure_counts_although_the_database_cannot_store_its_error() -> None:
    def fail(batch: Batch) -> None:
        raise ValueError("5 € fehlen")

    json_stream("s/1", 1)
    worker = runner(register(fail, max_attempts=2, on_failure="stop"), delay=lambda failures: 0)
    column = (
        "ALTER TABLE durable_streams_subscriptionlink MODIFY last_error LONGTEXT CHARACTER SET {} NOT NULL DEFAULT ''"
    )
    with connection.cursor() as cursor:
        cursor.execute(column.format("ascii"))
    try:
        while worker.step():
            pass
        link = SubscriptionLink.objects.get()
    finally:
        SubscriptionLink.objects.unguarded().update(last_error="")
        with connection.cursor() as cursor:
            cursor.execute(column.format("utf8mb4"))
    assert link.is_stopped
    assert "5 \\u20ac fehlen" in link.last_error


# What a handler does to its own stream and cursor.


@pytest.mark.django_db
def test_a_handler_that_replaces_its_own_stream_fails() -> None:
    def replace(batch: Batch) -> None:
        Stream.objects.get(path="s/1").delete()
        json_stream("s/1", 2)

    def replay_itself(batch: Batch) -> None:
        from django_durable_streams.protocol.offsets import Sentinel

        replay(one, Sentinel.START, Selection(), USING)

    for handler in (replace, replay_itself):
        Stream.objects.filter(path__in=["s/1", "dead-letters/c"]).delete()
        stream = json_stream("s/1", 1)
        one = register(handler, max_attempts=1)
        run(one)
        assert letters() == [1]
        assert Stream.objects.get(path="s/1").pk == stream.pk
        assert SubscriptionLink.objects.get(path="s/1").holder == ""


@pytest.mark.django_db
@pytest.mark.parametrize("act", [Stream.delete, Stream.close, lambda stream: stream.fork("other")])
def test_a_handler_may_delete_close_or_fork_its_own_stream(act: Callable[[Stream], Any]) -> None:
    handled: list[Any] = []

    def handle(batch: Batch) -> None:
        handled.extend(batch.messages)
        if 2 in batch.messages:
            act(Stream.objects.get(path="s/1"))

    json_stream("s/1", 1, 2)
    run(register(handle, batch_size=1))
    assert handled == [1, 2]
    assert letters() == []


# Locks that others hold for long.


@contextmanager
def held_by_another(link_id: int) -> Iterator[None]:
    """Have another transaction hold the row of a link, as one does that creates a stream again."""
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                list(SubscriptionLink.objects.select_for_update().filter(pk=link_id))
                is_held.set()
                assert may_end.wait(3 * SECONDS)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert is_held.wait(SECONDS)
        yield
    finally:
        may_end.set()
        holder.join(SECONDS)


@own_transactions
@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")
def test_a_lock_on_a_cursor_delays_a_handler_for_a_limited_time_and_no_other_stream(
    monkeypatch: pytest.MonkeyPatch, now: Clock
) -> None:
    monkeypatch.setattr(cursors, "ADVANCE_LOCK_MS", 200)
    handled: list[str] = []
    lock: list[Any] = []

    def handle(batch: Batch) -> None:
        create_user(batch.stream)
        if batch.stream == "s/1" and not lock:
            lock.append(held_by_another(SubscriptionLink.objects.get(path="s/1").pk))
            lock[0].__enter__()
        handled.append(batch.stream)

    for number in (1, 2):
        json_stream(f"s/{number}", number)
    worker = runner(register(handle, max_attempts=1))
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
    began = time.monotonic()
    while "s/2" not in usernames() or "s/1" not in handled:
        try:
            worker.step()
        except Error:
            pass  # the worker closes its connections, and goes on
        now.move(2)
    assert time.monotonic() - began < SECONDS
    lock[0].__exit__(None, None, None)
    while "s/1" not in usernames():
        worker.step()
        now.move(2)
    assert sorted(usernames()) == ["s/1", "s/2"]
    assert not SubscriptionLink.objects.exclude(failures=0).exists()
    connection.close()


@own_transactions
def test_a_stream_that_could_not_be_given_back_is_given_back_later(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[Any] = []
    errors = [OperationalError("the database does not answer")] * 4

    def fail_first(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if errors:
                raise errors.pop()
            return work(*arguments, **options)

        return call

    json_stream("s/1", 1)
    worker = runner(register(lambda batch: handled.extend(batch.messages)))
    for name in ("finish", "release", "release_unless_locked"):
        if hasattr(cursors, name):
            monkeypatch.setattr(cursors, name, fail_first(getattr(cursors, name)))
    for _ in range(6):
        try:
            worker.step()
        except OperationalError:
            pass
    link = SubscriptionLink.objects.get()
    assert (handled, link.holder, link.is_pending, link.failures) == ([1], "", False, 0)


# Handlers and the end of their worker.


@pytest.mark.django_db
def test_a_worker_that_ends_stops_between_messages_that_are_tried_alone() -> None:
    handled: list[Any] = []

    def handle(batch: Batch) -> None:
        if len(batch) > 1:
            raise ValueError
        handled.extend(batch.messages)
        worker.is_stopping = True

    one = register(handle, max_attempts=1)
    json_stream("s/1", 1, 2, 3)
    worker = runner(one)
    assert worker.step()
    link = SubscriptionLink.objects.get()
    assert (handled, link.holder, link.acked_position, link.failures) == ([1], "", 2, 1)
    run(one)
    assert (handled, letters()) == ([1, 2, 3], [])


# In tests.


@pytest.mark.django_db
def test_a_test_learns_that_a_dead_letter_cannot_be_appended() -> None:
    @consumer("s/*", name="c", max_attempts=1)
    def fail(batch: Batch) -> None:
        raise ValueError

    json_stream("s/1", 1)
    Stream.objects.create(path="dead-letters/c", content_type="application/json", closed=True)
    with pytest.raises(RuntimeError, match="could not be appended"):
        run_consumers(raise_errors=False)
