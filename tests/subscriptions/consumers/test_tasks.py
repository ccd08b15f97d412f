"""Consumers run by the task framework: Django's own, or its backport. Skipped where neither is installed."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import override_settings
from django.utils.module_loading import import_string

from django_durable_streams import clock
from django_durable_streams.consumers import Batch, Consumer, consumer
from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.subscriptions.consumers.task_framework import framework
from django_durable_streams.subscriptions.consumers.task_queue import TaskQueue
from django_durable_streams.subscriptions.consumers.task_wakes import LOST_SECONDS, TaskWake
from django_durable_streams.subscriptions.pending import look_at_unseen
from tests.overriding import override_streams
from tests.subscriptions.steps import USING, Clock

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(framework() is None, reason="there is no task framework before Django 6.0"),
]

SECONDS = 60


def backends() -> dict[str, Any]:
    name = framework().__name__
    return {
        "default": {"BACKEND": f"{name}.backends.immediate.ImmediateBackend"},
        "dummy": {"BACKEND": f"{name}.backends.dummy.DummyBackend", "QUEUES": ["default", "streams"]},
    }


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    with override_settings(TASKS=backends()):
        yield


def results() -> list[Any]:
    """What was enqueued with the backend that runs nothing."""
    return list(framework().task_backends["dummy"].results)


def declared(handled: list[Any], **options: Any) -> Consumer:
    @consumer("s/*", name="c", start="beginning", **options)
    def handle(batch: Batch) -> None:
        handled.extend(batch.messages)

    return handle


def append(*values: Any) -> None:
    stream, _ = Stream.objects.ensure("s/1", content_type="application/json")
    stream.append_many(values)


def enqueue(queue: TaskQueue) -> list[TaskWake]:
    look_at_unseen(USING)
    wakes = queue.begin()
    for wake in wakes:
        queue._enqueue(wake)
    return wakes


def run(result: Any) -> Any:
    """Do what a worker of the framework does that has read the task from its database."""
    arguments = json.loads(json.dumps(list(result.args)))
    return import_string(result.task.module_path).call(*arguments)


def test_a_task_is_enqueued_for_each_wake() -> None:
    handled: list[Any] = []
    declared(handled, task_backend="dummy", task_queue="streams")
    queue = TaskQueue(USING)
    assert queue.is_needed
    assert enqueue(queue) == []
    append(1)
    (wake,) = enqueue(queue)
    append(2)
    assert enqueue(queue) == []
    (result,) = results()
    assert (list(result.args), result.task.queue_name) == (["c", wake.subscription_id, wake.id], "streams")
    assert run(result) == 2
    assert handled == [1, 2]
    append(3)
    assert len(enqueue(queue)) == 1
    assert [run(one) for one in results()] == [0, 1]  # the first one was delivered twice
    assert handled == [1, 2, 3]


def test_a_task_can_be_found_by_its_name_and_encoded() -> None:
    declared([], task_backend="dummy")
    queue = TaskQueue(USING)
    enqueue(queue)
    append(1)
    enqueue(queue)
    (result,) = results()
    task = import_string(result.task.module_path)
    assert task.func is result.task.func
    assert framework().task_backends["dummy"].validate_task(task) is None


def test_the_delivery_enqueues_and_the_immediate_backend_runs(engines: None) -> None:
    handled: list[Any] = []
    with override_streams(CONSUMER_TASK_BACKEND="default"):
        declared(handled)
        engine_for()
        append(1, 2)
        wait_for(lambda: handled == [1, 2])
        append(3)
        wait_for(lambda: handled == [1, 2, 3])
        wait_for(lambda: SubscriptionLink.objects.filter(is_pending=False, acked_position=6).exists())


def wait_for(condition: Any) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_task_that_cannot_be_enqueued_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moved = Clock()
    monkeypatch.setattr(clock, "now", moved)
    handled: list[Any] = []
    declared(handled)
    with override_streams(CONSUMER_TASK_BACKEND="nothing"):
        queue = TaskQueue(USING)
        enqueue(queue)
        append(1)
        with caplog.at_level(logging.ERROR):
            assert len(enqueue(queue)) == 1
        assert "no task could be enqueued" in caplog.text
        assert "no usable backend 'nothing'" in caplog.text
    with override_streams(CONSUMER_TASK_BACKEND="default"):
        assert enqueue(queue) == []
        moved.move(LOST_SECONDS + 1)
        assert len(enqueue(queue)) == 1
    assert handled == [1]


@pytest.mark.parametrize("error", [ServiceUnavailable(), ValueError("a bug")])
async def test_an_error_of_the_database_is_not_raised(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    declared([], task_backend="dummy")

    async def call(function: Any) -> Any:
        raise error

    await TaskQueue(USING).fill(call)
    assert ("No task of a consumer could begin" in caplog.text) is isinstance(error, ValueError)


def test_what_a_backend_has_written_is_committed_without_autocommit() -> None:
    declared([], task_backend="dummy")
    queue = TaskQueue(USING)
    enqueue(queue)
    append(1)
    look_at_unseen(USING)
    (wake,) = queue.begin()
    backend = framework().task_backends["dummy"]
    original = backend.enqueue

    def enqueue_in_a_database(task: Any, args: Any, kwargs: Any) -> Any:
        connections[USING].set_autocommit(False)
        User.objects.create(username="written by the backend")
        return original(task, args, kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(backend), "enqueue", staticmethod(enqueue_in_a_database))
        thread = threading.Thread(target=queue._enqueue, args=(wake,))
        thread.start()
        thread.join()
    assert User.objects.filter(username="written by the backend").exists()


def test_without_the_setting_workers_run_consumers() -> None:
    declared([])
    assert not TaskQueue(USING).is_needed
    with override_streams(CONSUMER_TASK_BACKEND="default"):
        assert TaskQueue(USING).is_needed
    with override_streams(CONSUMER_TASK_BACKEND="default"):
        declared([], task_backend="")
        assert not TaskQueue(USING).is_needed
