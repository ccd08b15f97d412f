"""Traces: spans of requests, batches and commits, and how they belong together."""

from collections.abc import Iterator, Sequence

import pytest
from django.db import transaction
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from django_durable_streams.contrib.otel import tracer
from django_durable_streams.contrib.otel.tracer import OpenTelemetryTracer
from django_durable_streams.models import Stream
from django_durable_streams.runtime import tracing
from django_durable_streams.runtime.log_once import LogOnce
from tests.server.entry_points import ENTRY_POINTS, EntryPoint
from tests.server.waiting import until

TEXT = {"content-type": "text/plain"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traces:
    """The spans that have ended."""

    def __init__(self, provider: TracerProvider) -> None:
        self._exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def named(self, *names: str) -> Sequence[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name in names]

    async def one(self, name: str) -> ReadableSpan:
        """The only span with a name. A batch ends after its requests may have been answered."""
        await until(lambda: bool(self.named(name)))
        (span,) = self.named(name)
        return span


def use(provider: TracerProvider) -> None:
    tracer = OpenTelemetryTracer()
    tracer._tracer = trace.get_tracer("tests", tracer_provider=provider)
    tracing.use(tracer)


@pytest.fixture
def traces() -> Iterator[Traces]:
    provider = TracerProvider()
    use(provider)
    yield Traces(provider)
    tracing.use(None)


@pytest.mark.parametrize("name", ENTRY_POINTS)
async def test_an_append_is_traced_through_its_batch_to_its_commit(name: str, engines: None, traces: Traces) -> None:
    await EntryPoint(name).request("PUT", "a", TEXT)
    create = await traces.one("durable_streams.create")
    await EntryPoint(name).request("POST", "a", {**TEXT, "traceparent": PARENT}, b"abc")
    append = await traces.one("durable_streams.append")
    assert create.context is not None
    assert append.context is not None
    assert append.attributes is not None
    assert f"{append.context.trace_id:032x}" == PARENT.split("-")[1]
    assert append.parent is not None
    assert f"{append.parent.span_id:016x}" == PARENT.split("-")[2]
    assert append.kind is trace.SpanKind.SERVER
    assert (append.attributes["durable_streams.path"], append.attributes["http.response.status_code"]) == ("a", 204)
    await until(lambda: len(traces.named("durable_streams.batch")) == 2)
    batches = traces.named("durable_streams.batch")
    assert [[link.context.span_id for link in batch.links] for batch in batches] == [
        [create.context.span_id],
        [append.context.span_id],
    ]
    for batch, commit in zip(batches, traces.named("durable_streams.commit"), strict=True):
        assert batch.context is not None
        assert batch.parent is None
        assert commit.parent is not None
        assert commit.parent.span_id == batch.context.span_id


async def test_reads_have_batches_without_a_commit(engines: None, traces: Traces) -> None:
    reply = await EntryPoint("direct").request("GET", "missing")
    assert reply.status == 404
    read = await traces.one("durable_streams.read")
    batch = await traces.one("durable_streams.batch")
    assert batch.attributes is not None
    assert read.context is not None
    assert (batch.attributes["durable_streams.batch_size"], len(batch.links)) == (1, 1)
    assert traces.named("durable_streams.commit") == []
    assert read.status.is_ok  # the client has asked for what is not there


async def test_a_request_inside_of_a_span_of_the_project_is_its_child(engines: None, traces: Traces) -> None:
    tracer = tracing.tracer
    assert isinstance(tracer, OpenTelemetryTracer)
    with tracer._tracer.start_as_current_span("middleware") as outer:
        await EntryPoint("asgi").request("GET", "missing", {"traceparent": PARENT})
    read = await traces.one("durable_streams.read")
    assert read.parent is not None
    assert read.parent.span_id == outer.get_span_context().span_id
    assert read.kind is trace.SpanKind.INTERNAL


async def test_a_malformed_parent_begins_a_trace(engines: None, traces: Traces) -> None:
    for value in ("nonsense", "00-0-0-01", "ü"):
        await EntryPoint("direct").request("GET", "missing", {"traceparent": value})
    await until(lambda: len(traces.named("durable_streams.read")) == 3)
    assert [span.parent for span in traces.named("durable_streams.read")] == [None] * 3


async def test_what_is_not_sampled_has_no_spans(engines: None) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    use(provider)
    traces = Traces(provider)
    try:
        await EntryPoint("direct").request("PUT", "a", TEXT)
    finally:
        tracing.use(None)
    assert traces.named("durable_streams.create", "durable_streams.batch", "durable_streams.commit") == []


class Broken(SpanProcessor):
    """A processor of a project. It fails at the start or at the end of spans."""

    def __init__(self, moment: str) -> None:
        self._moment = moment

    def on_start(self, span: object, parent_context: object = None) -> None:
        if self._moment == "start":
            raise LookupError("no collector")

    def on_end(self, span: object) -> None:
        if self._moment == "end":
            raise LookupError("no collector")


@pytest.mark.parametrize("moment", ["start", "end"])
@pytest.mark.parametrize("name", ENTRY_POINTS)
async def test_tracing_that_fails_ends_no_request(
    name: str, moment: str, engines: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An append was committed, and got a 500: its client repeated it."""
    monkeypatch.setattr(tracer, "_failures", LogOnce(60.0))
    provider = TracerProvider()
    provider.add_span_processor(Broken(moment))
    use(provider)
    try:
        statuses = [(await EntryPoint(name).request("PUT", "a", TEXT)).status]
        for data in (b"1", b"2"):
            statuses.append((await EntryPoint(name).request("POST", "a", TEXT, data)).status)
        reply = await EntryPoint(name).request("GET", "a")
    finally:
        tracing.use(None)
    assert (statuses, reply.status, reply.body) == ([201, 204, 204], 200, b"12")
    assert caplog.text.count("The tracing of this project has failed") == 1


def test_an_error_inside_a_span_goes_on(engines: None, traces: Traces) -> None:
    plugged_in = tracing.tracer
    assert isinstance(plugged_in, OpenTelemetryTracer)
    with (
        pytest.raises(KeyError, match="mine"),
        plugged_in._tracer.start_as_current_span("job"),
        plugged_in.span("part"),
    ):
        raise KeyError("mine")
    (span,) = traces.named("part")
    assert not span.status.is_ok


def test_an_append_in_python_is_a_child_of_the_callers_span(engines: None, traces: Traces) -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain")
    tracer = tracing.tracer
    assert isinstance(tracer, OpenTelemetryTracer)
    assert traces.named("durable_streams.commit") == []  # nobody traces this caller
    with tracer._tracer.start_as_current_span("job") as job, transaction.atomic():
        stream.append("abc")
    (span,) = traces.named("durable_streams.commit")
    assert span.parent is not None
    assert span.parent.span_id == job.get_span_context().span_id


async def test_without_a_tracer_nothing_is_kept(engines: None) -> None:
    assert tracing.tracer is None
    reply = await EntryPoint("direct").request("PUT", "a", TEXT)
    assert reply.status == 201
    assert tracing.take() is None


def test_the_application_plugs_the_tracer_in() -> None:
    from django_durable_streams.contrib import otel
    from django_durable_streams.contrib.otel.apps import OpenTelemetryConfig

    OpenTelemetryConfig("django_durable_streams.contrib.otel", otel).ready()
    try:
        assert isinstance(tracing.tracer, OpenTelemetryTracer)
    finally:
        tracing.use(None)
