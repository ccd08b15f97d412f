"""The worker thread, and the command that runs it."""

import os
import signal
import threading
import time
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, transaction
from django.test import override_settings

from django_durable_streams.consumers import Batch, Consumer, consumer
from django_durable_streams.engine.wakeup.base import (
    DELIVERY_CHANNEL,
    InProcessWakeup,
    Subscriber,
    WakeUpListener,
    WakeUpMessage,
)
from django_durable_streams.management.commands.streams_worker import Command
from django_durable_streams.models import Subscription, SubscriptionLink
from django_durable_streams.subscriptions import registry
from django_durable_streams.subscriptions.consumers import cursors, subscribing
from django_durable_streams.subscriptions.consumers import runner as runner_module
from django_durable_streams.subscriptions.consumers import worker as worker_module
from django_durable_streams.subscriptions.consumers.subscribing import subscribe
from django_durable_streams.subscriptions.consumers.worker import Worker
from django_durable_streams.subscriptions.pending import look_at_unseen
from django_durable_streams.testing import run_consumers
from tests.subscriptions.consumers.steps import SECONDS, json_stream

pytestmark = pytest.mark.django_db(transaction=True)


def handle_two(meanwhile: Callable[[Consumer], object]) -> None:
    """Let a worker handle a message, call a function with its consumer, and let it handle another message."""
    handled: list[Any] = []
    first, second = threading.Event(), threading.Event()

    @consumer("s/*", name="c", start="beginning")
    def handle(batch: Batch) -> None:
        handled.extend(batch.messages)
        (second if 2 in handled else first).set()

    stream = json_stream("s/1", 1)
    worker = Worker([handle], "default")
    worker.start()
    try:
        assert first.wait(SECONDS)
        meanwhile(handle)
        stream.append(2)
        assert second.wait(SECONDS)
    finally:
        worker.stop()
        assert worker.join(SECONDS)
    assert handled == [1, 2]


@pytest.mark.usefixtures("engines")
def test_a_worker_handles_what_is_there_and_what_comes() -> None:
    handle_two(lambda handle: None)
    assert SubscriptionLink.objects.get().holder == ""


@pytest.mark.usefixtures("engines")
def test_a_worker_sets_its_pattern_again_after_another_version_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PATTERN_INTERVAL", 0.01)
    handle_two(lambda handle: subscribe(consumer("other/*", name="c")(handle.handler), "default"))


@pytest.mark.usefixtures("engines")
def test_a_worker_does_not_begin_anew_after_its_cursors_were_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PATTERN_INTERVAL", 0.0)
    handled: list[Any] = []
    is_handled, was_checked = threading.Event(), threading.Event()

    @consumer("s/*", name="c", start="beginning")
    def handle(batch: Batch) -> None:
        handled.extend(batch.messages)
        is_handled.set()

    def check(*arguments: Any) -> Any:
        result = subscribing.unlinked(*arguments)
        was_checked.set()
        return result

    monkeypatch.setattr(worker_module, "unlinked", check)
    json_stream("s/1", 1)
    worker = Worker([handle], "default")
    worker.start()
    try:
        assert is_handled.wait(SECONDS)
        registry.delete(handle.stored_name, "default")
        for _ in range(2):
            was_checked.clear()
            assert was_checked.wait(SECONDS)
    finally:
        worker.stop()
        assert worker.join(SECONDS)
    assert handled == [1]
    assert not Subscription.objects.filter(name__isnull=False).exists()


@pytest.mark.usefixtures("engines")
def test_a_worker_that_is_stopped_ends_its_batch_first() -> None:
    started, may_end = threading.Event(), threading.Event()
    handled: list[Any] = []

    @consumer("s/*", name="c", start="beginning", batch_size=1)
    def handle(batch: Batch) -> None:
        started.set()
        assert may_end.wait(SECONDS)
        handled.extend(batch.messages)

    json_stream("s/1", 1, 2)
    worker = Worker([handle], "default")
    worker.start()
    assert started.wait(SECONDS)
    worker.stop()
    assert not worker.join(0.05)
    may_end.set()
    assert worker.join(SECONDS)
    assert handled == [1]
    link = SubscriptionLink.objects.get()
    assert (link.acked_position, link.holder, link.is_pending) == (2, "", True)


@pytest.mark.usefixtures("engines")
@override_settings(DURABLE_STREAMS={"SUBSCRIPTION_DELIVERY": False})
def test_the_command_runs_consumers_until_sigterm() -> None:
    @consumer("s/*", name="c", start="beginning")
    def handle(batch: Batch) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    json_stream("s/1", 1, 2)
    output = StringIO()
    call_command("streams_worker", verbosity=2, stdout=output)
    lines = output.getvalue().splitlines()
    assert lines[0] == "Delivering the wakes of subscriptions and running c. Quit with Ctrl-C."
    assert lines[1].startswith("c: handled 2 of s/1 in ")
    assert SubscriptionLink.objects.get().acked_position == 4


def test_the_command_refuses_what_it_cannot_do() -> None:
    with pytest.raises(CommandError, match="no consumer 'x'"):
        call_command("streams_worker", consumers="x")
    with pytest.raises(CommandError, match="nothing to do"):
        call_command("streams_worker", no_delivery=True)
    with pytest.raises(CommandError, match="processes"):
        call_command("streams_worker", processes=0)


def test_the_command_leaves_to_tasks_what_they_run() -> None:
    consumer("s/*", name="c", task_backend="default")(lambda batch: None)
    with pytest.raises(CommandError, match="nothing to do"):
        call_command("streams_worker", no_delivery=True)
    other = consumer("s/*", name="other")(lambda batch: None)
    assert Command()._consumers({"consumers": None}) == [other]
    assert [one.name for one in Command()._consumers({"consumers": "c"})] == ["c"]


@pytest.mark.usefixtures("engines")
def test_a_function_that_fails_after_the_commit_does_not_repeat_the_message() -> None:
    handled: list[Any] = []

    @consumer("s/*", name="c", max_attempts=1, on_failure="stop")
    def handle(batch: Batch) -> None:
        handled.extend(batch.messages)
        transaction.on_commit(lambda: 1 // 0)

    json_stream("s/1", 1)
    assert run_consumers(raise_errors=False) == 1
    assert handled == [1]
    link = SubscriptionLink.objects.get()
    assert (link.failures, link.is_stopped, link.is_pending, link.last_error) == (0, False, False, "")


class FakeWakeup(InProcessWakeup):
    """Carries messages that the test sends."""

    carries_messages = True

    def __init__(self) -> None:
        super().__init__("default")
        self.listener: WakeUpListener | None = None
        self.channels: list[int] = []
        self.is_closed = False

    def subscriber(self, listener: WakeUpListener) -> Subscriber:
        self.listener = listener
        return FakeSubscriber(self)


class FakeSubscriber(Subscriber):
    is_receiving = True

    def __init__(self, wakeup: FakeWakeup) -> None:
        self._wakeup = wakeup

    async def subscribe(self, stream_id: int) -> None:
        self._wakeup.channels.append(stream_id)

    def unsubscribe(self, stream_id: int) -> None: ...

    def close(self) -> None:
        self._wakeup.is_closed = True


@pytest.mark.usefixtures("engines")
def test_a_worker_is_woken_by_messages_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    wakeup = FakeWakeup()
    monkeypatch.setattr(worker_module, "wakeup_for", lambda using: wakeup)
    monkeypatch.setattr(worker_module, "RECEIVING_INTERVAL", 3600)
    handled = threading.Event()
    is_idle = threading.Event()

    def note_rest(*arguments: Any) -> float | None:
        is_idle.set()
        return cursors.seconds_until_due(*arguments)

    monkeypatch.setattr(worker_module, "seconds_until_due", note_rest)

    @consumer("s/*", name="c", start="beginning")
    def handle(batch: Batch) -> None:
        handled.set()

    worker = Worker([handle], "default")
    worker.start()
    try:
        assert is_idle.wait(SECONDS)
        json_stream("s/1", 1)
        assert wakeup.listener is not None
        until = time.monotonic() + SECONDS
        while not handled.wait(0.05):  # it may have looked before the append
            assert time.monotonic() < until
            wakeup.listener.receive(DELIVERY_CHANNEL, WakeUpMessage(0, 0, 0, False, False, None, []))
    finally:
        worker.stop()
        assert worker.join(SECONDS)
    assert wakeup.channels == [DELIVERY_CHANNEL]
    assert wakeup.is_closed


@pytest.mark.usefixtures("engines")
def test_a_worker_goes_on_after_errors_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "FAILURE_PAUSE", 0.001)
    errors: list[Exception] = [OperationalError("the database does not answer"), RuntimeError("a bug")]
    handled = threading.Event()

    def look_or_fail(*arguments: Any) -> Any:
        if errors:
            raise errors.pop()
        return look_at_unseen(*arguments)

    monkeypatch.setattr(runner_module, "look_at_unseen", look_or_fail)

    @consumer("s/*", name="c", start="beginning")
    def handle(batch: Batch) -> None:
        handled.set()

    json_stream("s/1", 1)
    worker = Worker([handle], "default")
    worker.start()
    try:
        assert handled.wait(SECONDS)
    finally:
        worker.stop()
        assert worker.join(SECONDS)
    assert errors == []
