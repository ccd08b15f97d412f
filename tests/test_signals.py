"""Which signals are sent, when, from where, and that they harm nobody."""

import asyncio
import itertools
import threading
from collections.abc import Iterator
from datetime import timedelta
from queue import Queue
from typing import Any

import pytest
from django.db import transaction
from django.dispatch import Signal
from django.utils import timezone

from django_durable_streams import signals
from django_durable_streams.engine import engine_for
from django_durable_streams.engine.signal_dispatcher import SignalDispatcher
from django_durable_streams.models import Stream
from django_durable_streams.protocol import offsets
from django_durable_streams.store.operations import Append, Commit, Create, Delete
from django_durable_streams.store.upkeep import removal

ALL = {name: signal for name, signal in vars(signals).items() if isinstance(signal, Signal)}
TEXT = "text/plain"


class Heard:
    """What receivers were told, and in which thread."""

    def __init__(self) -> None:
        self.queue: Queue[tuple[str, dict[str, Any], str]] = Queue()

    def receiver(self, name: str) -> Any:
        def receive(sender: object, signal: Signal, **arguments: Any) -> None:
            assert sender is Stream
            self.queue.put((name, arguments, threading.current_thread().name))

        return receive

    def names(self) -> list[str]:
        result = []
        while not self.queue.empty():
            result.append(self.queue.get()[0])
        return result

    def wait(self, count: int) -> list[tuple[str, dict[str, Any], str]]:
        return [self.queue.get(timeout=20) for _ in range(count)]


@pytest.fixture
def heard() -> Iterator[Heard]:
    result = Heard()
    receivers = {name: result.receiver(name) for name in ALL}
    for name, signal in ALL.items():
        signal.connect(receivers[name], sender=Stream)
    yield result
    for name, signal in ALL.items():
        signal.disconnect(receivers[name], sender=Stream)


@pytest.mark.django_db(transaction=True)
class TestFromPython:
    def test_each_is_sent_when_its_transaction_commits(self, heard: Heard) -> None:
        with transaction.atomic():
            stream = Stream.objects.create(path="a", content_type=TEXT, data="one")
            stream.append("two")
            stream.append("3", close=True)
            fork = stream.fork("b")
            stream.delete()
            assert heard.queue.empty()
        result = heard.wait(heard.queue.qsize())
        assert [(name, arguments["path"]) for name, arguments, _ in result] == [
            ("stream_created", "a"),
            ("stream_appended", "a"),
            ("stream_appended", "a"),
            ("stream_appended", "a"),
            ("stream_closed", "a"),
            ("stream_created", "b"),
            ("stream_deleted", "a"),
        ]
        between = [
            (arguments["offset"], arguments["next_offset"]) for name, arguments, _ in result if "offset" in arguments
        ]
        ends = [stream.offset_at(position) for position in (0, 3, 6, 7)]
        assert between == list(itertools.pairwise(ends))
        assert {thread for _, _, thread in result} == {threading.current_thread().name}
        assert result[0][1] == {"path": "a", "stream_id": stream.pk, "content_type": TEXT, "using": "default"}
        assert fork.closed is False

    def test_what_is_rolled_back_has_not_happened(self, heard: Heard) -> None:
        with transaction.atomic():
            Stream.objects.create(path="a")
            transaction.set_rollback(True)
        assert heard.names() == []

    def test_many_appends_of_one_call_are_one_signal(self, heard: Heard, settings: Any) -> None:
        settings.DURABLE_STREAMS = {"PAGE_BYTES": 100}
        stream = Stream.objects.create(path="a", content_type="application/json")
        stream.append_many(range(1000))
        (_, (name, arguments, _)) = heard.wait(2)
        assert (name, arguments["offset"], arguments["next_offset"]) == (
            "stream_appended",
            offsets.ZERO,
            stream.next_offset,
        )
        assert heard.queue.empty()

    def test_closing_again_and_reading_are_not_news(self, heard: Heard) -> None:
        stream = Stream.objects.create(path="a", closed=True, ttl=2)
        assert heard.names() == ["stream_created", "stream_closed"]
        stream.close()
        Stream.objects.filter(pk=stream.pk).unguarded().update(deadline=timezone.now() + timedelta(seconds=1))
        assert list(stream.read()) == []
        stream.refresh_from_db()
        assert stream.deadline > timezone.now() + timedelta(seconds=1.5)
        assert heard.names() == []

    def test_who_takes_an_expired_streams_path_says_so(self, heard: Heard) -> None:
        stream = Stream.objects.create(path="a", ttl=10)
        Stream.objects.filter(pk=stream.pk).unguarded().update(deadline=timezone.now())
        heard.names()
        Stream.objects.create(path="a")
        assert sorted(heard.names()) == ["stream_created", "stream_expired"]

    def test_an_error_in_a_receiver_is_logged_and_harms_nobody(
        self, heard: Heard, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(**arguments: Any) -> None:
            raise RuntimeError("a bug of the project's")

        signals.stream_created.connect(broken)
        try:
            Stream.objects.create(path="a").append(b"x")
        finally:
            signals.stream_created.disconnect(broken)
        assert "a bug of the project's" in caplog.text
        assert heard.names() == ["stream_created", "stream_appended"]

    def test_a_receiver_may_append(self, heard: Heard) -> None:
        log = Stream.objects.create(path="log", content_type=TEXT)

        def record(path: str, **arguments: Any) -> None:
            if path != "log":
                log.append(f"{path} ")

        signals.stream_appended.connect(record)
        try:
            Stream.objects.create(path="a").append(b"x")
        finally:
            signals.stream_appended.disconnect(record)
        assert list(log.read()) == ["a "]


class TestFromCommitters:
    async def test_they_come_from_a_thread_of_their_own(self, engines: None, heard: Heard) -> None:
        engine = engine_for()
        await engine.write(Create("a", TEXT))
        await engine.write(Append("a", TEXT, b"x", close=True))
        await engine.write(Delete("a"))
        result = heard.wait(4)
        assert [name for name, _, _ in result] == [
            "stream_created",
            "stream_appended",
            "stream_closed",
            "stream_deleted",
        ]
        assert {thread for _, _, thread in result} == {"durable-streams-signals"}

    async def test_a_slow_receiver_keeps_no_append_waiting(self, engines: None) -> None:
        go_on, began = threading.Event(), threading.Event()

        def slow(**arguments: Any) -> None:
            began.set()
            assert go_on.wait(20)

        signals.stream_appended.connect(slow)
        try:
            engine = engine_for()
            await engine.write(Create("a", TEXT))
            for number in range(1, 50):
                assert (await engine.write(Append("a", TEXT, b"x"))).tail == number  # type: ignore[union-attr]
            assert began.wait(20)
        finally:
            go_on.set()
            signals.stream_appended.disconnect(slow)

    @pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt])
    async def test_whatever_a_receiver_raises_those_of_the_next_signal_are_called(
        self, engines: None, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
    ) -> None:
        heard: Queue[str] = Queue()

        def broken(path: str, **arguments: Any) -> None:
            heard.put(path)
            raise kind("a bug of the project's")

        signals.stream_created.connect(broken)
        try:
            for path in ("a", "b"):
                await engine_for().write(Create(path, TEXT))
                assert await asyncio.to_thread(heard.get, timeout=20) == path
        finally:
            signals.stream_created.disconnect(broken)
        assert "a bug of the project's" in caplog.text

    async def test_what_the_housekeeper_finds_expired_is_told(self, engines: None, heard: Heard) -> None:
        stream = await Stream.objects.acreate(path="a", ttl=10)
        await Stream.objects.filter(pk=stream.pk).unguarded().aupdate(deadline=timezone.now())
        heard.names()
        engine_for()
        ((name, arguments, thread),) = heard.wait(1)
        assert (name, arguments["path"], thread) == ("stream_expired", "a", "durable-streams-signals")

    async def test_without_receivers_there_is_no_thread(self, engines: None) -> None:
        await engine_for().write(Create("a", TEXT))
        assert "durable-streams-signals" not in {thread.name for thread in threading.enumerate()}

    def test_slow_receivers_cost_signals_and_not_memory(
        self, heard: Heard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("django_durable_streams.engine.signal_dispatcher.MAX_QUEUED", 10)
        monkeypatch.setattr(threading.Thread, "start", lambda thread: None)  # one that is busy
        thread = SignalDispatcher()
        for number in range(100):
            thread.send_soon([Commit(1, "a", TEXT, number, number + 1, False)], "default")
        assert len(thread._thread) == 10
        assert caplog.text.count("too slow") == 1


@pytest.mark.django_db(transaction=True)
def test_expiring_is_told_as_such() -> None:
    stream = Stream.objects.create(path="a", ttl=10)
    Stream.objects.filter(pk=stream.pk).unguarded().update(deadline=timezone.now())
    (commit,) = removal.expire("default")
    assert (commit.removed, commit.expired) == (True, True)
