"""The tracer: it turns requests, batches and transactions into spans of OpenTelemetry.

A batch does the work of many requests, so it is no child of one of them: it has a link to each. Only requests that are
sampled count, and a batch without such a request has no span. The project configures the SDK and its exporters.

Samplers, propagators and span processors are the project's, and may raise. Their errors are logged and end nothing: one
at the end of the span of a commit would turn committed appends into failed requests, which clients repeat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from types import TracebackType
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from ...protocol.messages import Request
from ...runtime.log_once import LogOnce
from ...server.request_numbers import OPERATIONS, OTHER

logger = logging.getLogger(__name__)

NAME = "django_durable_streams"

MAX_LINKS = 128
"""Links of a batch to its requests. SDKs keep no more by default."""

WARNING_SECONDS = 60.0
"""Time between two log messages about errors of the project's tracing."""

_failures = LogOnce(WARNING_SECONDS)


def _report() -> None:
    if _failures.is_due():
        logger.exception("The tracing of this project has failed. Requests go on without it.")


class _Headers(Getter[Mapping[bytes, bytes]]):
    """Reads the headers of a request for a propagator."""

    def get(self, carrier: Mapping[bytes, bytes], key: str) -> list[str] | None:
        value = carrier.get(key.lower().encode("latin-1", "replace"))
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: Mapping[bytes, bytes]) -> list[str]:
        return [name.decode("latin-1") for name in carrier]


_headers = _Headers()


class _SafeSpan:
    """A current span of a block. Errors of its start and of its end do not reach the block.

    Args:
        start: starts the span.
    """

    def __init__(self, start: Callable[[], AbstractContextManager[object]]) -> None:
        self._start = start
        self._span: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        try:
            span = self._start()
            span.__enter__()
            self._span = span
        except Exception:
            _report()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is None:
            return
        try:
            self._span.__exit__(kind, error, traceback)
        except Exception as failure:
            if failure is not error:  # otherwise it is that of the block, which goes on anyway
                _report()


class OpenTelemetryTracer:
    """Makes spans with the tracer provider of the project, as it is when the first span begins."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(NAME)

    def start_request(self, request: Request) -> Span | None:
        """Begin the span of a request. None: that failed.

        It is a child of the span that is current here, such as that of a middleware, or else of the client's.
        """
        try:
            return self._start_request(request)
        except Exception:
            _report()
            return None

    def _start_request(self, request: Request) -> Span:
        current = trace.get_current_span()
        has_parent = current.get_span_context().is_valid
        context: Context | None = None if has_parent else propagate.extract(request.headers, getter=_headers)
        kind = SpanKind.INTERNAL if has_parent else SpanKind.SERVER
        return self._tracer.start_span("durable_streams.request", context, kind)

    def end_request(self, span: Span, request: Request, status: int) -> None:
        """End the span of a request. For an event stream, that is when it begins."""
        try:
            self._end_request(span, request, status)
        except Exception:
            _report()

    def _end_request(self, span: Span, request: Request, status: int) -> None:
        if span.is_recording():
            operation = request.operation or OPERATIONS.get(request.method, OTHER)
            span.update_name(f"durable_streams.{operation}")
            span.set_attribute("durable_streams.operation", operation)
            span.set_attribute("durable_streams.path", request.path)
            span.set_attribute("http.request.method", request.method if request.method in OPERATIONS else "_OTHER")
            span.set_attribute("http.response.status_code", status)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                span.set_status(Status(StatusCode.ERROR))
        span.end()

    def batch(self, name: str, requests: Sequence[Any], size: int) -> AbstractContextManager[object]:
        """Trace a batch, if one of its requests is sampled."""
        contexts = [span.get_span_context() for span in requests if span.is_recording()]
        if not contexts:
            return nullcontext()
        attributes: dict[str, str | int] = {"durable_streams.worker": name, "durable_streams.batch_size": size}
        links = [Link(context) for context in contexts[:MAX_LINKS]]
        start = self._tracer.start_as_current_span
        return _SafeSpan(lambda: start("durable_streams.batch", Context(), attributes=attributes, links=links))

    def span(self, name: str) -> AbstractContextManager[object]:
        """Trace a part of the work of this thread, if it belongs to a span."""
        if not trace.get_current_span().is_recording():
            return nullcontext()
        return _SafeSpan(lambda: self._tracer.start_as_current_span(name))
