"""What ends live readers, whom it ends, and that nothing of it stays behind."""

import asyncio
import signal
import socketserver
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_durable_streams.api.tail import Page
from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream
from django_durable_streams.runtime import servers, shutdown
from django_durable_streams.runtime.servers import RunningServer, servers_of_loop, servers_of_thread
from tests.server.waiting import until, watched

JSON = "application/json"


@pytest.fixture
def chat(engines: None) -> Stream:
    return Stream.objects.create(path="chat", content_type=JSON)


@pytest.fixture(autouse=True)
def without_leftovers() -> None:
    """Readers of other tests may have been collected in a thread that cannot take handlers away."""
    shutdown.hold_signals()
    shutdown.release_signals()


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Handlers of the program's own, as a server or a shell has them: they end nothing."""
    numbers: list[int] = []
    previous = {number: signal.getsignal(number) for number in shutdown.SIGNALS}
    for number in shutdown.SIGNALS:
        signal.signal(number, lambda number, frame: numbers.append(number))
    yield numbers
    for number, handler in previous.items():
        signal.signal(number, handler)


async def collect(stream: Stream, timeout: float | None = None) -> list[Page]:
    return [page async for page in stream.atail("now", timeout=timeout)]


class Reader:
    def __init__(self) -> None:
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1


class TestSignals:
    @pytest.mark.parametrize("number", shutdown.SIGNALS)
    async def test_one_ends_those_who_read_now_and_nobody_who_comes_later(
        self, chat: Stream, handled: list[int], number: signal.Signals
    ) -> None:
        for _ in range(2):  # the event loop goes on, as a notebook's does
            tailing = asyncio.ensure_future(collect(chat))
            await until(lambda: watched() == 1)
            signal.raise_signal(number)
            assert await tailing == []
        tailing = asyncio.ensure_future(collect(chat))
        await until(lambda: watched() == 1)
        await chat.aappend(1, close=True)
        (page,) = await tailing
        assert page.messages == [1]
        assert handled == [number, number]

    def test_an_interrupted_run_does_not_end_later_ones(self, chat: Stream) -> None:
        async def interrupted() -> None:
            tailing = asyncio.ensure_future(collect(chat))
            await until(lambda: watched() == 1)
            signal.raise_signal(signal.SIGINT)
            await tailing
            await asyncio.Event().wait()

        async def later() -> list[Page]:
            tailing = asyncio.ensure_future(collect(chat))
            await until(lambda: watched() == 1)
            await chat.aappend(1, close=True)
            return await tailing

        signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever an earlier test has left
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(interrupted())
        (page,) = asyncio.run(later())
        assert page.messages == [1]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_synchronous_readers_end_at_sigterm(self, chat: Stream, handled: list[int]) -> None:
        for _ in range(2):
            thread = when_it_waits(lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM))
            assert list(chat.tail("now", timeout=20)) == []
            thread.join()
        assert handled == [signal.SIGTERM] * 2

    def test_synchronous_readers_are_interrupted(self, chat: Stream) -> None:
        thread = when_it_waits(lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            list(chat.tail("now", timeout=20))
        thread.join()
        assert [page.messages for page in chat.tail("now", timeout=0.05)] == []

    async def test_handlers_are_those_of_before_once_nobody_reads(self, chat: Stream, handled: list[int]) -> None:
        own = [signal.getsignal(number) for number in shutdown.SIGNALS]
        tailing = [asyncio.ensure_future(collect(chat)) for _ in range(3)]
        await until(lambda: watched() == 3)
        assert own != [signal.getsignal(number) for number in shutdown.SIGNALS]
        await chat.aclose()
        await asyncio.gather(*tailing)
        assert own == [signal.getsignal(number) for number in shutdown.SIGNALS]
        assert not shutdown._monitors

    async def test_handlers_that_somebody_sets_meanwhile_stay(self, chat: Stream, handled: list[int]) -> None:
        tailing = asyncio.ensure_future(collect(chat))
        await until(lambda: watched() == 1)

        def newer(number: int, frame: object) -> None:
            handled.append(-1)

        signal.signal(signal.SIGTERM, newer)
        await chat.aclose()
        await tailing
        assert signal.getsignal(signal.SIGTERM) is newer
        another = await Stream.objects.acreate(path="b", content_type=JSON)
        tailing = asyncio.ensure_future(collect(another))
        await until(lambda: watched() == 1)
        signal.raise_signal(signal.SIGTERM)
        assert await tailing == []
        assert handled == [-1]


def when_it_waits(work: Callable[[], object]) -> threading.Thread:
    def wait_and_work() -> None:
        while not watched():
            pass
        work()

    thread = threading.Thread(target=wait_and_work)
    thread.start()
    return thread


class TestServers:
    async def test_a_server_that_ends_ends_its_readers_and_those_that_still_come(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ending = over = False
        server = RunningServer(lambda: ending, lambda: over)
        monkeypatch.setattr(shutdown, "servers_of_loop", lambda loop: [] if over else [server])
        first, late, after = Reader(), Reader(), Reader()
        loop = asyncio.get_running_loop()
        shutdown.add_live_reader(first)
        assert first.stops == 0
        ending = True
        await asyncio.wait_for(_until(lambda: first.stops > 0), 20)
        shutdown.add_live_reader(late)
        await asyncio.wait_for(_until(lambda: late.stops > 0), 20)
        for reader in (first, late):
            shutdown.remove_live_reader(loop, reader)
        over = True  # another run begins
        shutdown.add_live_reader(after)
        await asyncio.sleep(1.5 * shutdown.POLL_SECONDS)
        assert after.stops == 0
        shutdown.remove_live_reader(loop, after)
        assert not shutdown._monitors

    async def test_the_server_of_one_reader_ends_that_one_only(self) -> None:
        """Synchronous readers of several WSGI servers share the background loop."""
        ending = RunningServer(lambda: True, lambda: False)
        going_on = RunningServer(lambda: False, lambda: False)
        one, other = Reader(), Reader()
        shutdown.add_live_reader(one, [ending])
        shutdown.add_live_reader(other, [going_on])
        await asyncio.wait_for(_until(lambda: one.stops > 1), 20)
        assert other.stops == 0
        for reader in (one, other):
            shutdown.remove_live_reader(asyncio.get_running_loop(), reader)

    async def test_a_reader_that_cannot_be_stopped_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(Reader):
            def stop(self) -> None:
                super().stop()
                raise RuntimeError("a bug")

        readers = [Broken(), Reader()]
        for reader in readers:
            shutdown.add_live_reader(reader)
        shutdown.stop_readers_of(asyncio.get_running_loop())
        await asyncio.wait_for(_until(lambda: all(reader.stops for reader in readers)), 20)
        assert "a bug" in caplog.text
        for reader in readers:
            shutdown.remove_live_reader(asyncio.get_running_loop(), reader)

    async def test_one_that_cannot_be_stopped_blocks_no_other_when_an_engine_stops(
        self, chat: Stream, caplog: pytest.LogCaptureFixture
    ) -> None:
        stopped = []

        class Broken:
            def notify(self) -> None: ...

            def tick(self, now: float) -> None: ...

            def stop(self) -> None:
                stopped.append(self)
                raise RuntimeError("a bug")

        hub, view = engine_for().hub(), await engine_for().read("chat")
        readers = [Broken() for _ in range(3)]
        watches = [await hub.join(view.info, reader) for reader in readers]
        engine_for().end_live_reads()
        await asyncio.wait_for(_until(lambda: len(stopped) >= 3), 20)
        assert "a bug" in caplog.text
        for watch, reader in zip(watches, readers, strict=True):
            hub.leave(watch, reader)

    def test_loops_that_ended_with_their_readers_are_forgotten(self) -> None:
        async def read() -> None:
            shutdown.add_live_reader(Reader())

        asyncio.run(read())

        async def read_on() -> None:
            reader = Reader()
            shutdown.add_live_reader(reader)
            assert list(shutdown._monitors) == [asyncio.get_running_loop()]
            shutdown.remove_live_reader(asyncio.get_running_loop(), reader)

        asyncio.run(read_on())
        assert shutdown._holders == 0

    async def test_they_are_found_however_deep_they_are(self) -> None:
        """A task may call them by way of others, as gunicorn's worker does."""
        module = types.ModuleType("uvicorn.server")
        exec(
            "import asyncio\n"
            "class Server:\n"
            "    should_exit = False\n"
            "    async def _serve(self):\n"
            "        while not self.should_exit: await asyncio.sleep(0)\n",
            module.__dict__,
        )
        module.__dict__["__name__"] = "uvicorn.server"
        program = module.__dict__["Server"]()

        async def outer() -> None:
            await inner()

        async def inner() -> None:
            await program._serve()

        task = asyncio.ensure_future(outer())
        await asyncio.sleep(0)
        (server,) = servers_of_loop(asyncio.get_running_loop())
        assert not server.is_ending()
        program.should_exit = True
        assert server.is_ending()
        assert not server.is_over()
        await task
        assert server.is_over()
        assert servers_of_loop(asyncio.get_running_loop()) == []

    def test_the_one_around_a_thread_is_found(self) -> None:
        """gunicorn's workers have an attribute that says whether they go on."""
        module = types.ModuleType("gunicorn.workers.gthread")
        exec(
            "class ThreadWorker:\n    alive = True\n    def handle(self, call): return call()\n",
            module.__dict__,
        )
        worker = module.__dict__["ThreadWorker"]()
        (server,) = worker.handle(servers_of_thread)
        assert not server.is_ending()
        worker.alive = False
        assert server.is_ending()
        assert servers_of_thread() == []

    def test_so_is_one_of_the_standard_library(self) -> None:
        servers: list[Any] = []

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                servers.extend(servers_of_thread())

        with socketserver.TCPServer(("127.0.0.1", 0), Handler) as listener:
            import socket

            with socket.create_connection(listener.server_address):  # type: ignore[arg-type]
                listener.handle_request()
            (server,) = servers
            assert not server.is_ending()
        assert server.is_ending()

    def test_synchronous_code_finds_the_server_of_the_main_thread(self) -> None:
        async def main() -> list[RunningServer]:
            return await asyncio.to_thread(servers.servers_around)

        assert asyncio.run(main()) == []
        assert sys._current_frames()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  there is no event for what is looked at
        await asyncio.sleep(0.01)
