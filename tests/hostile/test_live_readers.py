"""Readers that come all at once, and readers that do not read."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.entry_points.probed import MIB, Probe, memory_of, wait_until
from tests.hostile.entry_points import EntryPoint, Serving
from tests.hostile.wire import Wire, head

LIVE = ("uvicorn-direct", "uvicorn-h11", "uvicorn-routed", "uvicorn-urls", "daphne", "granian", "hypercorn")
# The others take for a client whatever they are given.
WAIT_FOR_THEIR_CLIENTS = ("uvicorn-direct", "uvicorn-h11", "uvicorn-routed", "uvicorn-urls", "hypercorn")
OURS = ("uvicorn-direct", "uvicorn-routed")

BYTES = "application/octet-stream"
PLACES = 5
FEW_PLACES = {"MAX_LIVE_READERS": PLACES, "LONG_POLL_TIMEOUT": 60, "SSE_DURATION": 60}
IMPATIENT = {"SEND_TIMEOUT": 1, "MAX_LIVE_READERS": PLACES, "SSE_DURATION": 60}
WAITING_SECONDS = 2.0
"""A long-poll without an answer for so long waits. A busy server refuses one within this time."""


def read(path: str, mode: str, offset: str = "now") -> bytes:
    """A live read."""
    return head("GET", f"{path}?offset={offset}&live={mode}")


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.parametrize("mode", ["sse", "long-poll"])
def test_a_burst_of_readers_finds_as_many_places_as_there_are(serving: Serving, name: str, mode: str) -> None:
    server = serving(name, **FEW_PLACES)
    path = server.create()
    for _ in range(2):  # the places of those who have left are free again
        with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
            wires = [stack.enter_context(Wire(server.port)) for _ in range(60)]
            list(pool.map(lambda wire: wire.send(read(path, mode)), wires))
            refused = pool.map(lambda wire: _is_refused(wire, mode), wires)
            assert [*refused].count(False) == PLACES
            assert server.probe().places == PLACES
        wait_until(lambda: server.probe().places == 0, 10, "the places are free")


def _is_refused(wire: Wire, mode: str) -> bool:
    if mode == "long-poll":
        wire.pause(WAITING_SECONDS)
        if not wire.received:
            return False  # it waits
    else:
        while b"\r\n\r\n" not in wire.received:
            wire._more()
    status = wire.received.split()[1]
    assert status in (b"503", b"200")
    return status == b"503"


@pytest.mark.parametrize("name", LIVE)
def test_a_reader_that_is_refused_or_ends_at_once_keeps_no_place(name: str) -> None:
    with EntryPoint(name, MAX_LIVE_READERS=PLACES, LONG_POLL_TIMEOUT=0.2) as server:
        path = server.create()
        server.append(path, b"x", Stream_Closed="true")
        for mode in ("sse", "long-poll"):
            for target in (
                f"{path}?offset=-1&live={mode}",
                f"{path}?offset=no&live={mode}",
                f"b?offset=-1&live={mode}",
            ):
                for leave in (False, True):
                    for _ in range(PLACES + 1):
                        with Wire(server.port) as wire:
                            wire.send(head("GET", target))
                            if leave:
                                wire.reset()
                            else:
                                assert wire.answer(method="GET").status in (200, 204, 400, 404)
        wait_until(lambda: server.probe().places == 0, 10, "the places are free")


def fill(server: EntryPoint) -> str:
    """Make a stream of more than the buffers of both sockets take."""
    path = server.create(kind=BYTES)
    for _ in range(10):
        server.append(path, bytes(MIB), kind=BYTES)
    return path


@pytest.mark.parametrize("name", WAIT_FOR_THEIR_CLIENTS)
def test_a_reader_that_does_not_read_is_ended(name: str) -> None:
    with EntryPoint(name, SEND_TIMEOUT=1, MAX_LIVE_READERS=PLACES) as server, ExitStack() as stack:
        path = fill(server)
        before = server.probe(collect=True)
        readers = [stack.enter_context(Wire(server.port, receive_buffer=4096)) for _ in range(PLACES)]
        for wire in readers:
            wire.send(read(path, "sse", "-1"))

        def is_over() -> bool:
            now = server.probe(collect=True)
            if name == "hypercorn":  # its own tasks wait for the client for ever
                return now.places == 0 and now.listeners == 0
            return (now.places, now.listeners) == (0, 0) and _is_none_more(now, before)

        wait_until(lambda: server.probe().places == PLACES, 10, "the readers are there")
        wait_until(is_over, 20, "nothing is left of them")
        with Wire(server.port) as wire:
            wire.send(read(path, "sse"))
            assert next(_events(wire))  # type: ignore[call-overload]


def _is_none_more(now: Probe, before: Probe) -> bool:
    return now.connections <= before.connections and now.tasks <= before.tasks and now.requests <= before.requests


def _events(wire: Wire) -> list[bytes] | object:
    while b"event: control" not in wire.received:
        wire._more()
    return iter([wire.received])


@pytest.mark.parametrize("name", WAIT_FOR_THEIR_CLIENTS)
def test_a_reader_that_is_slow_is_not_ended(name: str) -> None:
    with EntryPoint(name, SEND_TIMEOUT=1.5, SSE_DURATION=60) as server:
        path = fill(server)
        with Wire(server.port, receive_buffer=65536) as wire:
            wire.send(read(path, "sse", "-1"))
            size, began = 0, time.monotonic()
            while size < 13 * MIB:
                data = wire.socket.recv(1 << 20)
                assert data, f"cut off after {size} bytes and {time.monotonic() - began:.1f} s"
                size += len(data)
                if time.monotonic() - began < 4:
                    time.sleep(0.05)  # what it takes a second is less than what waits for it


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("target", ["", "?offset=-1"])
def test_a_page_that_is_not_taken_is_not_kept(serving: Serving, name: str, target: str) -> None:
    server = serving(name, **IMPATIENT)
    with ExitStack() as stack:
        path = server.create(kind=BYTES)
        server.append(path, bytes(15 * MIB), kind=BYTES)
        before = server.probe(collect=True)
        for _ in range(5):
            wire = stack.enter_context(Wire(server.port, receive_buffer=4096))
            wire.send(head("GET", path + target))

        def is_over() -> bool:
            now = server.probe(collect=True)
            return _is_none_more(now, before)

        wait_until(lambda: server.probe().connections >= before.connections + 5, 10, "the readers are there")
        wait_until(is_over, 20, "nothing is left of them")


@pytest.mark.parametrize("name", ["uvicorn-direct", "uvicorn-h11", "uvicorn-routed", "uvicorn-urls"])
def test_a_server_that_ends_does_not_wait_for_a_reader_that_does_not_read(name: str) -> None:
    with EntryPoint(name, patient=True) as server, ExitStack() as stack:
        path = fill(server)
        for mode in ("sse", "sse", "page"):
            wire = stack.enter_context(Wire(server.port, receive_buffer=4096))
            wire.send(read(path, "sse", "-1") if mode == "sse" else head("GET", f"{path}?offset=-1"))
        wait_until(lambda: server.probe().places == 2, 10, "the readers are there")
        wire.pause(0.5)
        began = time.monotonic()
        assert server.stop() in (0, -15)
        assert time.monotonic() - began < 6


@pytest.mark.parametrize("name", ["uvicorn-direct", "uvicorn-routed"])
@pytest.mark.parametrize("before", [b"", b"\xe2"], ids=["whole", "behind-half-a-character"])
def test_readers_with_cursors_of_their_own_take_no_memory_each(name: str, before: bytes) -> None:
    with EntryPoint(name, SSE_DURATION=60) as server, ExitStack() as stack:
        path = server.create(before)
        pid = server.probe().pid
        begun = memory_of(pid, "VmRSS")
        wires = [stack.enter_context(Wire(server.port, receive_buffer=4096)) for _ in range(60)]
        for number, wire in enumerate(wires):
            wire.send(head("GET", f"{path}?offset=now&live=sse&cursor={500_000_000 + number}"))
            assert _events(wire)
        server.append(path, b"\n" * 1_000_000)  # an event of 6 MB
        for wire in wires:
            wire._more()
        assert memory_of(pid, "VmHWM") - begun < 100 * MIB


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("target", ["?offset=-1", "?offset=-1&live=sse"])
def test_those_who_do_not_read_a_page_share_it(name: str, target: str) -> None:
    with EntryPoint(name) as server, ExitStack() as stack:
        path = server.create(kind=BYTES)
        server.append(path, bytes(7 * MIB), kind=BYTES)
        before = memory_of(server.probe().pid, "VmRSS")
        for _ in range(40):
            wire = stack.enter_context(Wire(server.port, receive_buffer=4096))
            wire.send(head("GET", path + target))
            wire._more()
        assert memory_of(server.probe().pid, "VmHWM") - before < 100 * MIB


@pytest.mark.parametrize("name", LIVE)
def test_an_append_that_closes_the_stream_reaches_its_reader_whole(serving: Serving, name: str) -> None:
    server = serving(name, **FEW_PLACES)
    with Wire(server.port) as wire:
        path = server.create()
        wait_until(lambda: server.probe().listeners == 0, 10, "nobody waits")
        wire.send(read(path, "sse"))
        assert _events(wire)
        wire.received = wire.received.partition(b"\r\n\r\n")[2]
        wait_until(lambda: server.probe().listeners == 1, 10, "the reader waits")
        server.append(path, b"x" * 100_000, Stream_Closed="true")
        assert b"".join(wire.chunks()).count(b"x" * 100_000) == 1


@pytest.mark.parametrize("name", WAIT_FOR_THEIR_CLIENTS)
@pytest.mark.parametrize("mode", ["sse", "page"])
def test_a_reader_that_takes_a_little_at_a_time_is_ended(serving: Serving, name: str, mode: str) -> None:
    if (name, mode) == ("uvicorn-urls", "page"):
        pytest.skip("Django's own handler sends it")
    server = serving(name, **IMPATIENT)
    with Wire(server.port, receive_buffer=4096) as wire:
        path = server.create(kind=BYTES)
        server.append(path, bytes(15 * MIB), kind=BYTES)
        wire.send(read(path, "sse", "-1") if mode == "sse" else head("GET", f"{path}?offset=-1"))
        wire._more()

        def is_over() -> bool:
            with suppress(OSError):
                wire.socket.recv(512)
            now = server.probe()
            return now.transfers == 0 and now.places == 0

        assert not is_over()
        wait_until(is_over, 20, "the reader is ended")


@pytest.mark.parametrize("name", ["uvicorn-direct", "uvicorn-h11", "uvicorn-routed", "hypercorn"])
def test_those_who_do_not_read_pages_of_their_own_share_a_bounded_memory(name: str) -> None:
    limit, size, count = 32 * MIB, 9 * MIB, 16
    with EntryPoint(name, MAX_RESPONSE_MEMORY=limit) as server, ExitStack() as stack:
        paths = [server.create(kind=BYTES) for _ in range(count)]
        for path in paths:
            server.append(path, bytes(size), kind=BYTES)
        pid = server.probe().pid
        before = memory_of(pid, "VmHWM")
        for path in paths:
            wire = stack.enter_context(Wire(server.port, receive_buffer=4096))
            wire.send(head("GET", f"{path}?offset=-1"))
            wire._more()
        assert memory_of(pid, "VmHWM") - before < limit + 5 * size < count * size

        def is_served() -> bool:
            with Wire(server.port) as wire:
                wire.send(head("GET", f"{paths[0]}?offset=-1"))
                return len(wire.answer(method="GET").body) == size

        wait_until(is_served, 10, "those who read get their pages")
