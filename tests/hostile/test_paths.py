"""Paths over the wire: every server passes them on so that what is no UTF-8 is refused, and nothing is confused."""

import httpx
import pytest

from tests.hostile.entry_points import EntryPoint
from tests.hostile.wire import Wire, head
from tests.server.test_undecodable_paths import DIFFERENT, FORBIDDEN, UNDECODABLE


def ask(server: EntryPoint, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send a target as it is, and return the status and the body."""
    with Wire(server.port) as wire:
        wire.send(head(method, target, f"Content-Length: {len(body)}", "Connection: close"), body)
        answer = wire.answer(method=method)
    return answer.status, answer.body


def test_a_path_that_no_stream_can_have_is_refused(entry_point: EntryPoint) -> None:
    # Some servers refuse a broken URL themselves, and some close the connection.
    statuses = {target: ask(entry_point, "PUT", target, b"x")[0] for target in [*UNDECODABLE, *FORBIDDEN]}
    assert {target: status for target, status in statuses.items() if status not in (0, 400)} == {}


def test_different_paths_are_different_streams(entry_point: EntryPoint) -> None:
    base = entry_point.create()
    for target in DIFFERENT:
        assert ask(entry_point, "PUT", f"{base}/{target}", target.encode())[0] == 201, target
    for target in DIFFERENT:
        assert ask(entry_point, "GET", f"{base}/{target}") == (200, target.encode())


@pytest.mark.parametrize("raw", ["\xc3\xa9", "\xe9", "\xff", "\xc0\xaf"])
def test_raw_bytes_are_refused_or_taken_for_what_they_say(entry_point: EntryPoint, raw: str) -> None:
    base = entry_point.create()
    status, _ = ask(entry_point, "PUT", f"{base}/{raw}", b"x")
    if status == 201:
        written = "".join(f"%{byte:02X}" for byte in raw.encode("latin-1"))
        assert written == "%C3%A9"
        assert httpx.get(entry_point.url(f"{base}/{written}")).content == b"x"
    else:
        assert status in (0, 400, 404)
