"""Checks of consumers."""

from types import SimpleNamespace
from typing import Any

import pytest

from django_durable_streams.checks.consumers import check_dead_letters, check_names, check_paths, check_tasks
from django_durable_streams.consumers import Batch, consumer
from django_durable_streams.subscriptions.consumers import task_framework
from tests.overriding import override_streams

pytestmark = pytest.mark.usefixtures("no_consumers")


def first(batch: Batch) -> None: ...


def second(batch: Batch) -> None: ...


def ids(check: Any) -> list[str]:
    return [message.id for message in check(None)]


def test_a_name_that_is_registered_twice_is_an_error() -> None:
    consumer("a/*", name="one")(first)
    consumer("a/*", name="one")(first)  # its module was imported under two names
    assert ids(check_names) == []
    consumer("b/*", name="one")(second)
    assert ids(check_names) == ["durable_streams.E009"]
    assert "tests.checks.test_consumers.second" in str(check_names(None)[0].hint)


@pytest.mark.parametrize("pattern", ["", "a/b*", "/a", "a//b", "__ds/x", "a/../b"])
def test_a_pattern_that_can_never_match_is_an_error(pattern: str) -> None:
    consumer(pattern, name="one")(first)
    assert ids(check_paths) == ["durable_streams.E010"]


def test_a_path_for_dead_letters_that_no_stream_can_have_is_an_error() -> None:
    consumer("a/*", name="one", dead_letters="a//b")(first)
    assert ids(check_paths) == ["durable_streams.E010"]


def test_dead_letters_that_go_to_the_registry_are_an_error() -> None:
    consumer("a/*", name="one", dead_letters="letters")(first)
    assert ids(check_paths) == []
    with override_streams(REGISTRY_PATH="letters"):
        assert ids(check_paths) == ["durable_streams.E010"]
    with override_streams(REGISTRY_PATH=["letters"]):  # E003
        assert ids(check_paths) == []


def test_dead_letters_that_come_back_are_a_warning() -> None:
    consumer("dead-letters/*", name="one")(first)
    assert ids(check_dead_letters) == []
    consumer("failed/**", name="two", dead_letters="dead-letters/two")(first)
    assert ids(check_dead_letters) == []
    consumer("dead-letters/**", name="three", dead_letters="failed/three")(second)
    assert ids(check_dead_letters) == ["durable_streams.W027"] * 3
    consumer("a//b", name="wrong")(second)
    assert ids(check_dead_letters) == ["durable_streams.W027"] * 3


def test_good_consumers_are_no_error() -> None:
    consumer("**", name="one")(first)
    consumer("a/*/**", name="two", dead_letters="letters")(second)
    assert ids(check_names) + ids(check_paths) == []


def ids_of(**settings: Any) -> list[str]:
    with override_streams(**settings):
        return [message.id for message in check_tasks(None)]


def test_tasks_without_a_framework_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer("a/*", name="one")(first)
    monkeypatch.setattr(task_framework, "framework", lambda: None)
    assert ids_of() == []
    assert ids_of(CONSUMER_TASK_BACKEND="default") == ["durable_streams.E011"]
    consumer("a/*", name="one", task_backend="")(first)
    assert ids_of(CONSUMER_TASK_BACKEND="default") == []
    consumer("a/*", name="one", task_backend="default")(first)
    with override_streams():
        (message,) = check_tasks(None)
    assert "from version 6.0 on" in message.msg


@pytest.mark.parametrize(
    ("backend", "queue", "problem"),
    [
        ("default", "default", ""),
        ("default", "mail", ""),
        ("few", "mail", ""),
        ("few", "default", "no queue 'default'"),
        ("other", "default", "no usable backend 'other'"),
    ],
)
def test_a_backend_has_to_have_the_queue(
    backend: str, queue: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends = {"default": SimpleNamespace(queues=set()), "few": SimpleNamespace(queues={"mail"})}
    monkeypatch.setattr(task_framework, "framework", lambda: SimpleNamespace(task_backends=backends))
    consumer("a/*", name="one", task_backend=backend, task_queue=queue)(first)
    messages = check_tasks(None)
    assert len(messages) == bool(problem)
    assert all(problem in message.msg for message in messages)


def test_a_setting_that_is_wrong_is_reported_elsewhere() -> None:
    consumer("a/*", name="one")(first)
    assert ids_of(CONSUMER_TASK_BACKEND=1) == []
