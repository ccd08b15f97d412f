"""Answers written by the task framework: Django's own, or its backport. Skipped where neither is installed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings
from django.utils.module_loading import import_string

from django_durable_streams.contrib.ai.answers import Answer, Run, start_answer_sync
from django_durable_streams.subscriptions.consumers.task_framework import framework
from tests.overriding import override_streams

pytestmark = [
    pytest.mark.usefixtures("engines", "tasks"),
    pytest.mark.skipif(framework() is None, reason="there is no task framework before Django 6.0"),
]


@pytest.fixture
def tasks() -> Iterator[None]:
    backends = {"default": {"BACKEND": f"{framework().__name__}.backends.dummy.DummyBackend"}}
    with override_settings(TASKS=backends), override_streams(AI_RUNS_IN="tasks"):
        yield


def run_task(result: Any) -> Any:
    """Do what a worker of the framework does that has read the task from its database."""
    return import_string(result.task.module_path).call(*json.loads(json.dumps(list(result.args))))


def test_a_task_writes_an_answer_once() -> None:
    run = start_answer_sync("chats/1", Answer("tests.ai.sources.scripted", {"count": 2}))
    assert run.state == "queued"
    (result,) = framework().task_backends["default"].results
    assert run_task(result)
    assert not run_task(result)  # it was delivered twice
    assert Run.objects.get().state == "done"


def test_a_task_comes_too_late_for_a_stopped_answer() -> None:
    run = start_answer_sync("chats/1", Answer("tests.ai.sources.scripted", {"count": 2}))
    assert run.stop()
    (result,) = framework().task_backends["default"].results
    assert not run_task(result)
