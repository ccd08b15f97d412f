"""Sockets at real servers: what they keep of slow clients, how they end, and what they leave."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.entry_points.probed import MIB, Probe, ProbedServer, memory_of, wait_until
from tests.websocket.socket import Closed
from tests.websocket.wire import WebSocket

KINDS = ("uvicorn", "daphne")
BYTES = "application/octet-stream"
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.hostile.settings"}


def start(kind: str, streams: str = "{}", *, patient: bool = False) -> ProbedServer:
    """A server that has not started. `streams` are settings, as JSON."""
    return ProbedServer(kind, env={**SETTINGS, "STREAMS": streams}, patient=patient)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[ProbedServer]:
    """A server that no test ends."""
    with start(request.param) as server:
        yield server


def follow(socket: WebSocket, path: str, offset: str = "-1") -> None:
    """Follow a stream, and wait for the answer."""
    socket.say("subscribe", path=path, offset=offset)
    assert socket.until("subscribed", "error")[-1]["type"] == "subscribed"


def is_none_more(now: Probe, before: Probe) -> bool:
    """Whether nothing is left of the sockets since."""
    return (now.listeners, now.places, now.held, now.transfers) == (0, 0, 0, 0) and now.tasks <= before.tasks


def test_many_streams_are_followed_and_resumed(server: ProbedServer) -> None:
    paths = [server.create(b"0\n") for _ in range(20)]
    seen = dict.fromkeys(paths, "")
    offsets = dict.fromkeys(paths, "-1")
    for number in range(1, 4):
        with WebSocket(server.port) as socket:
            for path in paths:
                socket.say("subscribe", path=path, offset=offsets[path])
            for path in paths:
                server.append(path, b"%d\n" % number)
            while any(not text.endswith(f"{number}\n") for text in seen.values()):
                frame = socket.next()
                if frame["type"] == "data":
                    seen[frame["id"]] += frame["data"]
                    offsets[frame["id"]] = frame["offset"]
    assert set(seen.values()) == {"0\n1\n2\n3\n"}


def test_appends_are_acknowledged_and_delivered(server: ProbedServer) -> None:
    path = server.create()
    with WebSocket(server.port) as socket:
        follow(socket, path)
        socket.say("append", path=path, contentType="text/plain", data="é", close=True)
        frames = [frame for frame in (socket.next() for _ in range(4)) if frame["type"] != "up-to-date"]
        while len(frames) < 3:
            frames.append(socket.next())
        assert {frame["type"] for frame in frames} == {"appended", "data", "closed"}


def test_a_page_of_another_origin_is_refused(server: ProbedServer) -> None:
    with WebSocket(server.port, headers={"origin": server.base_url}):
        pass
    # The example project lists all origins.
    with WebSocket(server.port, headers={"origin": "http://evil.example"}):
        pass


def test_invalid_frames_close_the_socket(server: ProbedServer) -> None:
    with WebSocket(server.port) as socket:
        for _ in range(3):
            socket.say_text("{")
        assert socket.closing().code == (1008 if server.kind == "uvicorn" else 4008)


def test_sockets_that_vanish_leave_nothing(server: ProbedServer) -> None:
    path = server.create(b"x" * 1000)
    before = server.probe(collect=True)
    with ExitStack() as stack:
        sockets = [stack.enter_context(WebSocket(server.port)) for _ in range(20)]
        for number, socket in enumerate(sockets):
            follow(socket, path)
            socket.say("append", path=path, contentType="text/plain", data="x")
            if number % 2:
                socket.reset()
    wait_until(lambda: is_none_more(server.probe(collect=True), before), 15, "nothing is left of them")


@pytest.mark.parametrize("kind", KINDS)
def test_sockets_that_do_not_read_cost_a_bounded_memory(kind: str) -> None:
    with start(kind, '{"CACHE_BYTES": 0, "SEND_TIMEOUT": 600}') as server, ExitStack() as stack:
        path = server.create(kind=BYTES)
        for _ in range(20):
            server.append(path, bytes(MIB // 2), kind=BYTES)
        pid = server.probe().pid
        with WebSocket(server.port) as reader:
            follow(reader, path)
            reader.until("up-to-date")
        before = memory_of(pid, "VmRSS")
        for _ in range(40):
            socket = stack.enter_context(WebSocket(server.port, receive_buffer=4096))
            socket.say("subscribe", path=path, offset="-1")
        wait_until(lambda: server.probe().transfers >= 40, 30, "each has its first frame")
        for _ in range(5):
            server.append(path, bytes(MIB // 2), kind=BYTES)
        grown = memory_of(pid, "VmHWM") - before
        assert grown < 40 * MIB * 1.5, f"{grown / MIB:.0f} MiB for 40 sockets, of 500 MiB that they could have got"


@pytest.mark.parametrize("kind", KINDS)
def test_sockets_that_do_not_read_are_cut_off(kind: str) -> None:
    with start(kind, '{"SEND_TIMEOUT": 0.2}') as server, ExitStack() as stack:
        path = server.create(kind=BYTES)
        for _ in range(20):
            server.append(path, bytes(MIB // 4), kind=BYTES)
        before = server.probe(collect=True)
        for _ in range(5):
            socket = stack.enter_context(WebSocket(server.port, receive_buffer=4096))
            socket.say("subscribe", path=path, offset="-1")
        wait_until(lambda: server.probe().places >= 5, 10, "the sockets are there")
        wait_until(lambda: is_none_more(server.probe(collect=True), before), 20, "nothing is left of them")


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_goes_on_after_a_restart(kind: str) -> None:
    with start(kind, patient=True) as server:
        path = server.create(b"before\n")
        with WebSocket(server.port) as busy, WebSocket(server.port) as idle:
            follow(busy, path)
            offset = busy.until("up-to-date")[-1]["offset"]
            idle.until("welcome")
            began = time.monotonic()
            status = server.stop()
            assert time.monotonic() - began < 6
            assert status in (0, -15)
            for socket in (busy, idle):
                closed = socket.closing()
                assert closed.code == 1012 if kind == "uvicorn" else closed.code in (4012, 1001, 1006, None), closed
        server.start()
        server.append(path, b"after\n")
        with WebSocket(server.port) as socket:
            follow(socket, path, offset)
            assert [frame["data"] for frame in socket.until("up-to-date") if frame["type"] == "data"] == ["after\n"]


def test_a_client_that_floods_a_server_is_closed(server: ProbedServer) -> None:
    before = server.probe(collect=True)
    pid = before.pid
    begun = memory_of(pid, "VmHWM")
    with WebSocket(server.port, receive_buffer=4096) as socket:
        socket.socket.settimeout(5)
        try:
            for _ in range(200):
                for _ in range(1000):
                    socket.say("ping", n=1)
        except (OSError, Closed):
            pass
        assert memory_of(pid, "VmHWM") - begun < 50 * MIB
    wait_until(lambda: is_none_more(server.probe(collect=True), before), 20, "nothing is left of it")
