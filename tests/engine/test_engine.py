"""The creation and the end of an engine."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from django.db import connection

from django_durable_streams.engine import Engine, engine_for
from django_durable_streams.engine import engine as module
from django_durable_streams.engine.engine import running_engines, stop_engines
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime import execution
from django_durable_streams.runtime.log_once import LogOnce
from django_durable_streams.runtime.monitor import monitor_for
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.store.operations import Append, Appended, Create
from django_durable_streams.store.write import group_commit
from tests.asgi_client import AsgiClient

TEXT = "text/plain"
real_apply = group_commit.apply


async def make() -> Engine:
    return Engine("default")


def test_an_event_loop_makes_an_engine_without_a_query(engines: None) -> None:
    with ThreadPoolExecutor() as pool:  # whose connection knows nothing of the server yet
        engine = pool.submit(asyncio.run, make()).result()
    engine.stop()


def test_an_engine_that_begins_while_another_ends_has_a_monitor_that_goes_on(
    engines: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a writer that goes on while its server ends: one monitor must not end with the other engine."""
    old, begun = engine_for(), []
    join = old._housekeeper._thread.join

    def begin_another(timeout: float | None = None) -> None:
        begun.append(engine_for())
        join(timeout)

    monkeypatch.setattr(old._housekeeper._thread, "join", begin_another)
    stop_engines()
    (new,) = begun
    assert new.monitor is not old.monitor
    assert monitor_for("default") is new.monitor
    assert new.monitor._thread is None or new.monitor._thread.is_alive()


def test_no_engine_is_forgotten_that_begins_while_others_end(engines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    begins, may_begin, made = threading.Event(), threading.Event(), []

    class SlowEngine(Engine):
        def __init__(self, using: str) -> None:
            begins.set()
            assert may_begin.wait(30)
            super().__init__(using)
            made.append(self)

    monkeypatch.setattr(module, "Engine", SlowEngine)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(engine_for)
        assert begins.wait(30)
        ending = pool.submit(stop_engines)
        wait([ending], 0.2)
        second = pool.submit(engine_for)
        may_begin.set()
        for future in (first, ending, second):
            future.result(30)
    running = running_engines()
    assert [engine._writers[0]._thread.is_alive() for engine in made] == [engine in running for engine in made]


class TestThreadsThatCannotStart:
    """A process may have no more threads for a moment."""

    @pytest.fixture(autouse=True)
    def refused(self, engines: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monitor_for("default")  # which access checks share
        start = threading.Thread.start

        def refuse_last(thread: threading.Thread) -> None:
            if thread.name == "durable-streams-housekeeping":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(execution, "_failures", LogOnce(60.0))
        with monkeypatch.context() as patches:
            patches.setattr(threading.Thread, "start", refuse_last)
            yield
        monitor_for("default").stop()

    def test_those_that_have_started_end(self) -> None:
        before = set(threading.enumerate())
        for _ in range(3):
            with pytest.raises(ServiceUnavailable, match="thread"):
                engine_for()
        assert set(threading.enumerate()) <= before
        assert not running_engines()

    async def test_requests_are_told_to_come_again(self, caplog: pytest.LogCaptureFixture) -> None:
        client = AsgiClient(DurableStreams())
        for method in ("PUT", "GET"):
            response = await client.request(method, "a")
            assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert caplog.text.count("cannot start") == 1


async def test_the_end_of_an_engine_waits_for_its_last_commit(engines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for()
    await engine.write(Create("a", TEXT))
    committer = engine._writer(Append("a", TEXT, b""))
    begun, ending = threading.Event(), threading.Event()
    join = committer._thread.join

    def begin_end(timeout: float | None = None) -> None:
        ending.set()
        join(timeout)

    def apply(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert ending.wait(30)
        return real_apply(*arguments, **options)

    monkeypatch.setattr(committer._thread, "join", begin_end)
    monkeypatch.setattr(group_commit, "apply", apply)
    appends = [engine.write(Append("a", TEXT, b"x"))]
    assert await asyncio.to_thread(begun.wait, 30)
    appends.append(engine.write(Append("a", TEXT, b"y")))
    await asyncio.sleep(0)  # until it is queued
    await asyncio.to_thread(stop_engines)
    outcomes = await asyncio.gather(*appends)
    assert [outcome.tail for outcome in outcomes if isinstance(outcome, Appended)] == [1, 2]


@pytest.mark.slow
def test_a_writer_loses_nothing_while_engines_end(engines: None) -> None:
    stream = Stream.objects.create(path="a", content_type="application/json")
    is_over = threading.Event()

    def end_engines() -> None:
        while not is_over.is_set():
            stop_engines()

    ending = threading.Thread(target=end_engines)
    ending.start()
    try:
        with stream.writer(interval=0.001, close=False) as writer:
            for number in range(20):
                writer.write(number)
                writer.flush()
    finally:
        is_over.set()
        ending.join()
    assert list(stream.read()) == [*range(20)]


@pytest.mark.skipif(connection.vendor == "sqlite", reason="nothing cuts a connection to a file")
def test_a_thread_whose_database_never_answers_is_cut_at_its_end(
    engines: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for()
    committer, is_cut = engine._writers[0], threading.Event()
    monkeypatch.setattr("django_durable_streams.runtime.batch_worker.STOP_SECONDS", 0.01)
    monkeypatch.setattr(committer._connection, "cut", is_cut.set)
    with ThreadPoolExecutor() as pool:
        silent = pool.submit(committer.between, lambda: is_cut.wait(30))
        stop_engines()
        assert silent.result(30) is True
