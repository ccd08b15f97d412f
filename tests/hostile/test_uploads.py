"""Clients that announce bodies and do not come to their end."""

import select
import socket
import time
from contextlib import ExitStack

import httpx
import pytest

from tests.client_socket import SECONDS
from tests.entry_points.probed import MIB, memory_of, wait_until
from tests.hostile.entry_points import ENTRY_POINTS, EntryPoint, Serving
from tests.hostile.wire import Wire, chunked, head

# Twisted reads a body to its end, on the disk, before it tells of a request; so does Django.
BEFORE_THE_BODY = ("uvicorn-direct", "uvicorn-h11", "uvicorn-routed", "granian", "hypercorn")
OURS = ("uvicorn-direct", "uvicorn-routed")
WITH_PROBE = tuple(name for name in ENTRY_POINTS if name != "wsgi")

NOBODY = {"PERMISSION_CLASSES": "django_durable_streams.permissions.ModelPermissions"}
FRAMING = {"length": f"Content-Length: {16 * MIB}", "chunked": "Transfer-Encoding: chunked"}
GROWTH = 100 * MIB

CLIENTS = 40
PART = 5 * MIB  # what each of them sends of its body
PLACES = 3  # how many parts there is memory for


def part(framing: str, size: int) -> bytes:
    """So much of a body that goes on."""
    return bytes(size) if framing == "length" else chunked(*[bytes(MIB)] * (size // MIB), end=False)


def those_that_are_answered(wires: list[Wire], count: int) -> list[Wire]:
    """Wait until so many clients are answered or hung up on, and return them."""
    by_socket = {wire.socket: wire for wire in wires}
    wait_until(lambda: len(select.select(by_socket, [], [], 0)[0]) >= count, SECONDS, f"{count} are answered")
    return [by_socket[each] for each in select.select(by_socket, [], [], 0)[0]]


@pytest.mark.parametrize("name", BEFORE_THE_BODY)
def test_nothing_is_kept_for_whom_nothing_is_allowed(name: str) -> None:
    with EntryPoint(name, **NOBODY) as server, ExitStack() as stack:  # type: ignore[arg-type]
        pid = server.probe().pid
        before = memory_of(pid, "VmRSS")
        for number in range(40):
            for framing, line in FRAMING.items():
                wire = stack.enter_context(Wire(server.port))
                wire.send(head("PUT" if number % 2 else "POST", "a", line))
                # Told at once, not when the body is there, nor when its time is up.
                wire.send_what_is_taken(part(framing, 15 * MIB if number < 4 else MIB), 0.05)
                assert wire.answer().status in (0, 401, 403)
        assert memory_of(pid, "VmHWM") - before < GROWTH
        assert server.probe().held == 0


@pytest.mark.parametrize("name", BEFORE_THE_BODY)
@pytest.mark.parametrize("framing", FRAMING)
def test_what_is_refused_by_its_head_is_refused_before_its_body(serving: Serving, name: str, framing: str) -> None:
    server = serving(name, MAX_APPEND_BYTES=MIB, PATH_PATTERNS=("allowed/*",), CONTENT_TYPES=("text/plain",))
    refusals = [
        (head("PUT", "elsewhere", FRAMING[framing]), 403),
        (head("PUT", "allowed/a", FRAMING[framing], kind="image/png"), 415),
        (head("PUT", "allowed/%00", FRAMING[framing]), 400),
        (head("POST", "allowed/a", FRAMING[framing], "Producer-Id: x"), 400),
        (head("POST", "allowed/a", FRAMING[framing], "Expect: 100-continue", "Producer-Id: x"), 400),
        (head("PATCH", "allowed/a", FRAMING[framing]), 405),
    ]
    if framing == "length":
        refusals.append((head("POST", "allowed/a", FRAMING[framing]), 413))
    for request, status in refusals:
        with Wire(server.port) as wire:
            wire.send(request)
            assert wire.answer().status == status, request


@pytest.mark.parametrize("name", [*BEFORE_THE_BODY, "uvicorn-urls", "daphne"])
def test_unfinished_bodies_of_all_clients_are_bounded_together(name: str) -> None:
    with EntryPoint(name, MAX_BODY_MEMORY=PLACES * PART + MIB) as server, ExitStack() as stack:
        path = server.create()
        pid = server.probe().pid
        before = memory_of(pid, "VmRSS")
        wires = [stack.enter_context(Wire(server.port)) for _ in range(CLIENTS)]
        for number, wire in enumerate(wires):
            framing = "length" if number % 2 else "chunked"
            wire.send(head("POST", path, FRAMING[framing]))
            wire.send_what_is_taken(part(framing, PART), 0.3)
        if name in BEFORE_THE_BODY:
            # Which of them have a place depends on whose bytes the server has read first.
            answered = those_that_are_answered(wires, CLIENTS - PLACES)
            assert server.probe().held <= PLACES * PART
            answers = [wire.answer() for wire in answered]
            assert {answer.status for answer in answers} <= {503, 0}
            assert any(answer.headers.get("retry-after") == "1" for answer in answers)
        # Those who send little are served as before.
        assert server.append(path, b"small")
        assert memory_of(pid, "VmHWM") - before < GROWTH
        stack.close()
        wait_until(lambda: server.probe().held == 0, 10, "the memory is given back")
        server.append(path, bytes(8 * MIB))


@pytest.mark.parametrize("name", BEFORE_THE_BODY)
@pytest.mark.parametrize("framing", FRAMING)
def test_a_body_has_a_deadline(serving: Serving, name: str, framing: str) -> None:
    server = serving(name, RECEIVE_TIMEOUT=1)
    with ExitStack() as stack:
        path = server.create()
        silent, dripping, late = (stack.enter_context(Wire(server.port)) for _ in range(3))
        for wire in (silent, dripping, late):
            wire.send(head("POST", path, FRAMING[framing]))
        late.send(part(framing, MIB))
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            dripping.send_what_is_taken(b"1\r\nx\r\n" if framing == "chunked" else b"x", 0.1)
            dripping.pause(0.1)
        for wire in (silent, dripping, late):
            assert wire.answer().status == 408
            assert wire.is_closed()
        assert time.monotonic() - began < 10
        wait_until(lambda: server.probe().held == 0, 5, "the memory is given back")
        assert server.append(path, b"x")


@pytest.mark.parametrize("name", OURS)
def test_a_head_has_a_deadline_and_a_bound(name: str) -> None:
    with EntryPoint(name, RECEIVE_TIMEOUT=1) as server, ExitStack() as stack:
        server.probe()  # connections are ours from the second one on, where streams are not alone
        with Wire(server.port) as silent, Wire(server.port) as begun, Wire(server.port) as endless:
            begun.send(b"GET /v1/stream/a HTTP/1.1\r\nHost: x\r\n")
            endless.send_what_is_taken(b"GET /v1/stream/a HTTP/1.1\r\n" + b"X-Y: z\r\n" * MIB, 1)
            assert endless.answer().status in (0, 431)
            assert begun.answer().status == 408
            assert silent.is_closed()
        # One that has been used may be silent for as long as the server lets it.
        wire = stack.enter_context(Wire(server.port))
        wire.send(head("GET", "a"))
        assert wire.answer().status == 404
        wire.pause(1.5)
        wire.send(head("GET", "a"))
        assert wire.answer().status == 404


@pytest.mark.parametrize("name", OURS)
def test_trailers_without_end_are_not_kept(name: str) -> None:
    with EntryPoint(name, RECEIVE_TIMEOUT=3) as server:
        path = server.create()
        before = memory_of(server.probe().pid, "VmRSS")
        with Wire(server.port) as wire:
            wire.send(head("POST", path, "Transfer-Encoding: chunked"), b"1\r\nx\r\n0\r\n")
            wire.send_what_is_taken(b"X-Y: z\r\n" * (8 * MIB), 1)
            assert wire.answer().status in (0, 400, 408)
        assert memory_of(server.probe().pid, "VmHWM") - before < GROWTH


@pytest.mark.parametrize("name", WITH_PROBE)
def test_clients_that_reset_in_the_middle_of_a_body_leave_nothing(name: str) -> None:
    with EntryPoint(name) as server:
        path = server.create()
        url = server.url(path)
        for _ in range(3):
            httpx.get(url)
        before = server.probe(collect=True)
        for number in range(500 if name in OURS else 200):
            with Wire(server.port) as wire:
                if number % 3:
                    # What has been used once has a timer for the time between two requests.
                    wire.send(head("GET", f"{path}?offset=-1"))
                    wire.answer()
                framing = ("Content-Length: 300000", "Transfer-Encoding: chunked")[number % 2]
                wire.send(head("POST", path, framing), chunked(bytes(1000), end=False))
                if number % 5 == 0:
                    wire.pause(0.005)  # some of them once the body is waited for
                wire.reset()

        def is_over() -> bool:
            now = server.probe(collect=True)
            return (
                now.connections <= before.connections
                and now.requests <= before.requests
                and now.tasks <= before.tasks
                and now.held == 0
            )

        wait_until(is_over, 20, "nothing is left of them")
        assert httpx.get(url).content == b""


def test_a_server_that_ends_does_not_wait_for_a_body() -> None:
    with EntryPoint("uvicorn-direct", patient=True) as server, ExitStack() as stack:
        path = server.create()
        for wire in (stack.enter_context(Wire(server.port)) for _ in range(3)):
            wire.send(head("POST", path, FRAMING["length"]), bytes(1000))
        wait_until(lambda: server.probe().held == 3000, 10, "the bodies have begun")
        began = time.monotonic()
        assert server.stop() in (0, -15)
        assert time.monotonic() - began < 6


@pytest.mark.parametrize("pieces", [1, 2, 3, 50])
def test_bodies_in_pieces_and_requests_behind_them_are_taken_in_order(serving: Serving, pieces: int) -> None:
    server = serving("uvicorn-direct")
    path = server.create()
    body = bytes(range(256)) * 400
    whole = b"".join(head("POST", path, f"Content-Length: {len(body)}") + body for _ in range(3))
    size = -(-len(whole) // pieces)
    with Wire(server.port) as wire:
        for begin in range(0, len(whole), size):
            wire.send(whole[begin : begin + size])
        assert [wire.answer().status for _ in range(3)] == [204] * 3
        wire.socket.shutdown(socket.SHUT_WR)
    assert httpx.get(server.url(path)).content == body * 3
