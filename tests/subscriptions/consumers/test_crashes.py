"""A fault at every statement and every commit of a worker: each message is applied once, in order, or parked once."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection

from django_durable_streams.consumers import Batch, Consumer, consumer
from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.subscriptions.consumers.runner import Runner
from tests.cluster.cluster import scaled
from tests.subscriptions.consumers.steps import json_stream, letters, subscribed, usernames
from tests.subscriptions.steps import USING, Clock

pytestmark = pytest.mark.django_db(transaction=True)

MAX_STEPS = 60

EVERY = scaled(7, 1)
"""One in so many statements and commits fails."""


class Killed(BaseException):
    """The process has ended."""


class Fault:
    """Fails once: at one of the statements and commits of this thread's connection, which it counts.

    Args:
        number: of the statement or commit.
        comes_after: whether the database still executes it.
        kills: whether the process ends, and not only the connection.
    """

    def __init__(self, number: int, *, comes_after: bool, kills: bool) -> None:
        self._rest = number
        self._comes_after = comes_after
        self._kills = kills
        self._commit: Callable[[], None] = connection._commit  # type: ignore[attr-defined]

    @property
    def has_come(self) -> bool:
        return self._rest <= 0

    @contextmanager
    def active(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patches, connection.execute_wrapper(self._execute):
            patches.setattr(connection, "_commit", lambda: self._do(self._commit))
            yield

    def _execute(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        return self._do(lambda: execute(*arguments))

    def _do(self, work: Callable[[], Any]) -> Any:
        self._rest -= 1
        if self._rest:
            return work()
        if self._comes_after:
            work()
        if connection.vendor != "sqlite":
            with socket.socket(fileno=os.dup(connection.connection.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
        elif connection.connection.in_transaction:  # as after an error of the disk
            connection.connection.rollback()
        if self._kills:
            raise Killed
        raise OperationalError("The connection was lost.")


def forget_connection() -> None:
    """Begin as another process does, or as a worker does after an error (`isolation.forget_connections`)."""
    if connection.connection is not None:
        connection.connection.close()
    connection.connection = None
    connection.in_atomic_block = connection.closed_in_transaction = connection.needs_rollback = False
    connection.atomic_blocks, connection.savepoint_ids, connection.run_on_commit = [], [], []


def declare(number: int) -> tuple[Consumer, Stream]:
    """Declare a consumer of a stream with five messages, of which its handler refuses one."""

    @consumer(f"in/{number}", name=f"c{number}", batch_size=2, max_attempts=1)
    def handle(batch: Batch) -> None:
        out = Stream.objects.get(path=f"out/{number}")
        for value in batch.messages:
            get_user_model().objects.create(username=f"{number} {value}")
            out.append(value)
        if "bad" in batch.messages:
            raise ValueError

    json_stream(f"out/{number}")
    return handle, json_stream(f"in/{number}", 1, 2, "bad", 3, 4)


def run_with(fault: Fault, one: Consumer, now: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers handle all messages. Another one begins when one is killed."""
    by_subscription = {subscribed(one): one}
    worker = Runner(by_subscription, USING)
    with fault.active(monkeypatch):
        for _ in range(MAX_STEPS):
            try:
                has_worked = worker.step()
            except Killed:
                forget_connection()
                worker = Runner(by_subscription, USING)
                has_worked = True
            except Exception:  # an error of the driver, too
                forget_connection()
                has_worked = True
            now.move(31)  # attempts are due, and leases have ended
            if not has_worked:
                return
    pytest.fail("The worker does not come to an end.")


@pytest.mark.parametrize("comes_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kills", [False, True], ids=["connection", "process"])
def test_a_fault_at_any_moment_neither_loses_nor_repeats_a_message(
    comes_after: bool, kills: bool, now: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor == "sqlite" and comes_after and not kills:
        pytest.skip("there is no connection that can be lost")
    for number in count(1, EVERY):
        one, _ = declare(number)
        fault = Fault(number, comes_after=comes_after, kills=kills)
        run_with(fault, one, now, monkeypatch)
        effects = [name.split()[1] for name in usernames() if name.startswith(f"{number} ")]
        link = SubscriptionLink.objects.get(path=f"in/{number}")
        assert effects == ["1", "2", "3", "4"], number
        assert list(Stream.objects.get(path=f"out/{number}").read()) == [1, 2, 3, 4], number
        assert letters(f"dead-letters/c{number}") == ["bad"], number
        assert (link.holder, link.is_pending, link.failures) == ("", False, 0), number
        if not fault.has_come:
            break
    assert number > 30
