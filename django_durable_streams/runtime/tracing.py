"""The place where a tracer is plugged in, such as that of OpenTelemetry (`contrib.otel`).

Without a tracer, each place that could be traced pays one comparison with None. Knows no kind of tracer and no request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Tracer(Protocol):
    """What is told of requests, batches and transactions. Its methods must not raise, and must not block."""

    def start_request(self, request: Any) -> object:
        """Begin the span of a request, and return it."""

    def end_request(self, span: Any, request: Any, status: int) -> None:
        """End the span of a request, whose response has this status."""

    def batch(self, name: str, requests: Sequence[object], size: int) -> AbstractContextManager[object]:
        """Trace a batch of a worker.

        Args:
            name: the name of the worker's thread.
            requests: the spans of its requests, as far as there are any.
            size: the number of its tasks.
        """

    def span(self, name: str) -> AbstractContextManager[object]:
        """Trace a part of the work of this thread."""


tracer: Tracer | None = None

_submitting: ContextVar[object] = ContextVar("durable_streams_submitting", default=None)


def use(new_tracer: Tracer | None) -> None:
    """Trace from now on, or no more."""
    global tracer
    tracer = new_tracer


def start(request: Any) -> None:
    """Begin the span of a request, if there is a tracer."""
    if tracer is not None:
        request.span = tracer.start_request(request)


def end(request: Any, status: int) -> None:
    """End the span of a request, if it has one."""
    if tracer is not None:
        span, request.span = getattr(request, "span", None), None
        if span is not None:
            tracer.end_request(span, request, status)


def mark(request: Any) -> None:
    """Say that the next task that is submitted in this context, at once, belongs to a request."""
    _submitting.set(getattr(request, "span", None))


def take() -> object:
    """Return the span of the request to which the task belongs that is being submitted, or None."""
    span = _submitting.get()
    if span is not None:
        _submitting.set(None)
    return span


def traced(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Trace the calls of a function, if there is a tracer."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if tracer is None:
                return function(*args, **kwargs)
            with tracer.span(name):
                return function(*args, **kwargs)

        return call

    return decorate
