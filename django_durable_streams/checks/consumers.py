"""Checks of the consumers that the project declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register

from ..protocol import arguments
from ..protocol.errors import DurableStreamsError
from ..protocol.globs import glob
from ..subscriptions.consumers.declarations import Consumer, duplicates, registered


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
    """E010: no stream can have a path that a consumer names."""
    errors: list[CheckMessage] = []
    for consumer in [*registered(), *duplicates()]:
        try:
            glob(consumer.pattern)
            arguments.path(consumer.dead_letters)
        except DurableStreamsError as error:
            errors.append(
                Error(
                    f"The consumer {consumer.name!r} can never work: {error.detail}",
                    hint=f"Correct the pattern or the dead_letters of {_place(consumer)}.",
                    id="durable_streams.E010",
                )
            )
    return errors


def _place(consumer: Consumer) -> str:
    handler = consumer.handler
    return f"{getattr(handler, '__module__', '?')}.{getattr(handler, '__qualname__', repr(handler))}"
