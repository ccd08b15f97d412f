"""Checks of the consumers that the project declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning, register

from .. import conf
from ..protocol import arguments
from ..protocol.errors import DurableStreamsError, RegistryReadOnly
from ..protocol.globs import glob
from ..subscriptions.consumers.declarations import Consumer, duplicates, registered
from ..subscriptions.consumers.task_framework import backend_problem
from .requiring import needs_settings


@register()
def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E009: two consumers have one name."""
    return [
        Error(
            f"There are two consumers with the name {consumer.name!r}, so one of them would never run.",
            hint=f"Give another name to {_place(consumer)}.",
            id="durable_streams.E009",
        )
        for consumer in duplicates()
    ]


@register()
def check_paths(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E010: no stream can have a path that a consumer names, or its dead letters cannot be written there."""
    errors: list[CheckMessage] = []
    for consumer in [*registered(), *duplicates()]:
        try:
            glob(consumer.pattern)
            arguments.path(consumer.dead_letters)
            _check_writable(consumer.dead_letters)
        except DurableStreamsError as error:
            errors.append(
                Error(
                    f"The consumer {consumer.name!r} can never work: {error.detail}",
                    hint=f"Correct the pattern or the dead_letters of {_place(consumer)}.",
                    id="durable_streams.E010",
                )
            )
    return errors


def _check_writable(path: str) -> None:
    settings = conf.project_value()
    if isinstance(settings, Mapping) and path == settings.get("REGISTRY_PATH"):
        raise RegistryReadOnly("Only the server writes to the registry of streams, so it takes no dead letters.")


@register()
def check_dead_letters(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W027: consumers handle each other's dead letters."""
    return [
        Warning(
            f"The dead letters of the consumer {consumer.name!r} go to other consumers, and theirs come back to it. If "
            "all of them fail, they park each other's letters without end.",
            hint=f"Give another pattern to {_place(consumer)}, or other dead_letters to the others.",
            id="durable_streams.W027",
        )
        for consumer in registered()
        if _gets_back(consumer)
    ]


def _gets_back(consumer: Consumer) -> bool:
    """Return whether dead letters of dead letters of a consumer may come back to it."""
    reached: set[Consumer] = set()
    rest = [consumer]
    while rest:
        sender = rest.pop()
        new = {other for other in registered() if _follows(other, sender.dead_letters)} - reached
        reached |= new
        rest += new
    return consumer in reached


def _follows(consumer: Consumer, path: str) -> bool:
    try:
        return consumer.follows(path)
    except DurableStreamsError:  # E010
        return False


@register()
@needs_settings
def check_tasks(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E011: a consumer is to be run by a backend of Django's tasks that there is not."""
    problems = [(consumer, backend_problem(consumer.tasks_alias, consumer.task_queue)) for consumer in _run_by_tasks()]
    return [
        Error(
            f"Tasks have to run the consumer {consumer.name!r}, and cannot. {problem}",
            hint="Correct TASKS, or the consumer's task_backend and task_queue. Or let workers run it: set "
            "task_backend, or CONSUMER_TASK_BACKEND, to an empty text.",
            id="durable_streams.E011",
        )
        for consumer, problem in problems
        if problem
    ]


def _run_by_tasks() -> list[Consumer]:
    return [consumer for consumer in registered() if consumer.tasks_alias]


def _place(consumer: Consumer) -> str:
    handler = consumer.handler
    return f"{getattr(handler, '__module__', '?')}.{getattr(handler, '__qualname__', repr(handler))}"
