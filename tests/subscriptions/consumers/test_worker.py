"""The worker thread, and the command that runs it."""

import os
import signal
import threading
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction
from django.test import override_settings

from django_durable_streams.consumers import Batch, consumer
from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.subscriptions.consumers.worker import Worker
from django_durable_streams.testing import run_consumers

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 20


def json_stream(path: str, *values: Any) -> Stream:
    stream = Stream.objects.create(path=path, content_type="application/json")
    stream.append_many(values)
    return stream


@pytest.mark.usefixtures("engines")
def test_a_worker_handles_what_is_there_and_what_comes() -> None:
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
        stream.append(2)
        assert second.wait(SECONDS)
    finally:
        worker.stop()
        assert worker.join(SECONDS)
    assert handled == [1, 2]
    assert SubscriptionLink.objects.get().holder == ""


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
