"""The tracer: it turns requests, batches and transactions into spans of OpenTelemetry.

A batch does the work of many requests, so it is no child of one of them: it has a link to each. Only requests that are
sampled count, and a batch without such a request has no span. The project configures the SDK and its exporters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from ...protocol.messages import Request
from ...server.request_numbers import OPERATIONS, OTHER

NAME = "django_durable_streams"

MAX_LINKS = 128
"""Links of a batch to its requests. SDKs keep no more by default."""


class _Headers(Getter[Mapping[bytes, bytes]]):
    """Reads the headers of a request for a propagator."""

    def get(self, carrier: Mapping[bytes, bytes], key: str) -> list[str] | None:
        value = carrier.get(key.lower().encode("latin-1", "replace"))
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: Mapping[bytes, bytes]) -> list[str]:
        return [name.decode("latin-1") for name in carrier]


_headers = _Headers()


class OpenTelemetryTracer:
    """Makes spans with the tracer provider of the project, as it is when the first span begins."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(NAME)

    def start_request(self, request: Request) -> Span:
        """Begin the span of a request.

        It is a child of the span that is current here, such as that of a middleware, or else of the client's.
        """
        current = trace.get_current_span()
        has_parent = current.get_span_context().is_valid
        context: Context | None = None if has_parent else propagate.extract(request.headers, getter=_headers)
        kind = SpanKind.INTERNAL if has_parent else SpanKind.SERVER
        return self._tracer.start_span("durable_streams.request", context, kind)

    def end_request(self, span: Span, request: Request, status: int) -> None:
        """End the span of a request. For an event stream, that is when it begins."""
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
        return self._tracer.start_as_current_span(
            "durable_streams.batch", Context(), attributes=attributes, links=links
        )

    def span(self, name: str) -> AbstractContextManager[object]:
        """Trace a part of the work of this thread, if it belongs to a span."""
        if not trace.get_current_span().is_recording():
            return nullcontext()
        return self._tracer.start_as_current_span(name)
