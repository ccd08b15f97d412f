"""A body that was announced is taken whole, or the request is refused: it is never taken for empty or for shorter."""

import socket
from collections.abc import Callable

import httpx
import pytest

from tests.hostile.entry_points import EntryPoint
from tests.hostile.wire import JDK, Wire, chunked, head, jdk

BODY = b"hello"
REFUSED = (0, 400, 408, 411, 413, 501, 503)


def content(server: EntryPoint, path: str) -> tuple[bytes, bool] | None:
    """A stream's content and whether it is closed; None: there is no stream."""
    reply = httpx.get(server.url(path), params={"offset": "-1"}, timeout=30)
    return None if reply.status_code == 404 else (reply.content, "Stream-Closed" in reply.headers)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("together", [True, False], ids=["in-one-piece", "in-pieces"])
def test_the_jdks_client_is_served_as_any_other(entry_point: EntryPoint, framing: str, together: bool) -> None:
    path = entry_point.create()
    made = f"{path}-made"
    for method, target, body, good in [
        ("PUT", made, BODY, 201),
        ("POST", path, BODY, 204),
        ("POST", path, BODY * 30_000, 204),
    ]:
        pieces = jdk(entry_point.port, method, target, body, framing=framing)
        with Wire(entry_point.port) as wire:
            for piece in [b"".join(pieces)] if together else pieces:
                wire.send(piece)
            status = wire.answer().status
        taken = content(entry_point, target)
        if status in REFUSED:
            assert not entry_point.is_own
            assert taken in (None, (b"", False))
        else:
            assert status == good
            assert taken is not None
            assert taken[0].endswith(body)


def test_an_append_that_closes_does_not_close_without_its_data(entry_point: EntryPoint) -> None:
    for framing in ("length", "chunked"):
        path = entry_point.create()
        first, *rest = jdk(entry_point.port, "POST", path, BODY, framing=framing)
        first = first.replace(b"Content-Type", b"Stream-Closed: true\r\nContent-Type")
        with Wire(entry_point.port) as wire:
            wire.send(first, *rest)
            status = wire.answer().status
        if status in REFUSED:
            assert content(entry_point, path) == (b"", False)
        else:
            assert status == 204
            assert content(entry_point, path) == (BODY, True)


@pytest.mark.parametrize("upgrade", ["h2c", "foo/1", "h2c, TLS/1.0", "H2C", ""])
def test_an_offer_to_upgrade_to_whatever_is_not_taken_for_the_end_of_a_request(
    entry_point: EntryPoint, upgrade: str
) -> None:
    path = entry_point.create()
    lines = [f"Content-Length: {len(BODY)}", "Connection: keep-alive, Upgrade", f"Upgrade: {upgrade}"]
    with Wire(entry_point.port) as wire:
        wire.send(head("POST", path, *lines), BODY)
        status = wire.answer().status
    assert content(entry_point, path) == ((b"", False) if status in REFUSED else (BODY, False))
    assert status in (204, *REFUSED)


def test_a_connection_goes_on_after_an_offer(entry_point: EntryPoint) -> None:
    path = entry_point.create()
    with Wire(entry_point.port) as wire:
        for _ in range(3):
            for framing in ("length", "chunked"):
                wire.send(*jdk(entry_point.port, "POST", path, BODY, framing=framing))
                if wire.answer().status != 204:
                    return  # and then nothing that follows is taken for a request, as the next test shows
            wire.send(head("GET", f"{path}?offset=-1", *JDK))
            if (answer := wire.answer()).status in (0, 101):
                return  # what has no connections that last, and hypercorn, which takes an offer without a body
            assert answer.status == 200
            assert answer.body == content(entry_point, path)[0]  # type: ignore[index]


def test_a_body_is_never_taken_for_a_request(entry_point: EntryPoint) -> None:
    path, victim = entry_point.create(), entry_point.create()
    body = head("POST", victim, "Content-Length: 8") + b"smuggled"
    for framing in ("length", "chunked"):
        for together in (True, False):
            pieces = jdk(entry_point.port, "POST", path, body, framing=framing)
            with Wire(entry_point.port) as wire:
                for piece in [b"".join(pieces)] if together else pieces:
                    wire.send_what_is_taken(piece, 1)
                    wire.pause(0.2)
                wire.is_closed(0.5)
    assert content(entry_point, victim) == (b"", False)


CUT: dict[str, Callable[[str, str], bytes]] = {
    "nothing-of-a-length": lambda method, path: head(method, path, "Content-Length: 5"),
    "a-part-of-a-length": lambda method, path: head(method, path, "Content-Length: 50000") + b"x" * 49_999,
    "no-chunk": lambda method, path: head(method, path, "Transfer-Encoding: chunked"),
    "a-chunk-and-no-end": lambda method, path: head(method, path, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n",
    "half-a-chunk": lambda method, path: head(method, path, "Transfer-Encoding: chunked") + b"5\r\nhel",
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT.keys())
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_less_than_was_announced_changes_nothing(
    entry_point: EntryPoint, cut: Callable[[str, str], bytes], reset: bool, method: str
) -> None:
    path = entry_point.create() if method == "POST" else f"never-{entry_point.create()}"
    before = content(entry_point, path)
    with Wire(entry_point.port) as wire:
        wire.send(cut(method, path))
        if reset:
            wire.reset()
        else:
            wire.socket.shutdown(socket.SHUT_WR)
            # Django says nothing then, and granian makes an answer of its own for that.
            assert wire.answer().status in (*REFUSED, *([500] if entry_point.name == "granian-urls" else []))
    # What comes after it has been judged after it, as a rule.
    assert content(entry_point, entry_point.create(b"x")) == (b"x", False)
    assert content(entry_point, path) == before


def test_a_body_in_chunks_is_taken_or_refused(entry_point: EntryPoint) -> None:
    for number, pieces in enumerate([(BODY,), (BODY, BODY), (b"x" * 100_000, BODY)]):
        path = entry_point.create()
        with Wire(entry_point.port) as wire:
            wire.send(head("POST", path, "Transfer-Encoding: chunked"), chunked(*pieces))
            status = wire.answer().status
        expected = b"".join(pieces) if status == 204 else b""
        assert status in (204, 411), number
        assert content(entry_point, path) == (expected, False)


@pytest.mark.parametrize("coding", ["identity", "gzip", "gzip, chunked", "chunked, gzip", "xchunked", "chunked;q=1"])
def test_a_coding_that_says_nothing_of_the_end_is_refused(entry_point: EntryPoint, coding: str) -> None:
    for body in (BODY, chunked(BODY)):
        path = entry_point.create()
        first = head("POST", path, f"Transfer-Encoding: {coding}")
        with Wire(entry_point.port) as wire:
            wire.send(first.replace(b"Content-Type", b"Stream-Closed: true\r\nContent-Type"), body)
            # granian makes an answer of its own where Django says nothing.
            assert wire.answer().status in (*REFUSED, *([500] if entry_point.name == "granian-urls" else []))
        assert content(entry_point, path) == (b"", False)


@pytest.mark.parametrize("length", ["+5", "5, 5", "0x5", "5 5", "-5", "five", "5\r\nContent-Length: 6"])
def test_a_length_that_is_none_is_refused(entry_point: EntryPoint, length: str) -> None:
    path = entry_point.create()
    with Wire(entry_point.port) as wire:
        wire.send(head("POST", path, f"Content-Length: {length}"), BODY)
        status = wire.answer().status
    # Some servers pass on one of two that are the same, and wsgiref the first one.
    assert status in REFUSED or (status == 204 and length[0] == "5")
    assert content(entry_point, path) == ((BODY, False) if status == 204 else (b"", False))


@pytest.mark.parametrize("length", [1, 5, 10, 5000])
def test_a_body_with_two_framings_is_taken_whole_or_refused(entry_point: EntryPoint, length: int) -> None:
    path = entry_point.create()
    for lines in (
        (f"Content-Length: {length}", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", f"Content-Length: {length}"),
    ):
        with Wire(entry_point.port) as wire:
            wire.send(head("POST", path, *lines), chunked(BODY))
            wire.pause(2)  # until it answers, unless it waits for what is missing
            wire.socket.shutdown(socket.SHUT_WR)
            status = wire.answer().status
        assert status in (204, *REFUSED)
        stored = content(entry_point, path)
        assert stored is not None
        assert stored[0] == (BODY if status == 204 else b"")
        path = entry_point.create()
