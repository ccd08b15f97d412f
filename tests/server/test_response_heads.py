"""The heads of responses, with two servers in one process: each has its own headers, and an event loop in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from django_durable_streams.protocol.messages import Header, Response
from django_durable_streams.server.uvicorn.response_heads import bytes_around, encode_head, keep_around

OFFSET = b"1764369600000000_0000000000000042"


class Interrupted(list[Header]):
    """Headers of a server: another thread does something while they are encoded."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def __iter__(self) -> Iterator[Header]:
        self.meanwhile()
        return super().__iter__()


class InterruptedBytes(bytes):
    """A response: another thread does something while it is cut in parts."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def partition(self, offset: bytes) -> tuple[bytes, bytes, bytes]:  # type: ignore[override]
        self.meanwhile()
        return super().partition(offset)


def test_a_server_has_its_own_headers_while_another_one_encodes() -> None:
    first, second = Interrupted([(b"server", b"first")]), [(b"server", b"second")]
    first.meanwhile = lambda: encode_head(Response(200, []), second, False)
    encode_head(Response(204, []), first, False)
    assert encode_head(Response(204, []), second, False) == b"HTTP/1.1 204 No Content\r\nserver: second\r\n\r\n"


def test_a_server_has_its_own_bytes_around_an_offset_while_another_one_keeps_its_own() -> None:
    added: list[Header] = [(b"x", b"y")]
    first: list[Header] = [(b"server", b"first")]
    second: list[Header] = [(b"server", b"second")]
    data = InterruptedBytes(b"first " + OFFSET)
    data.meanwhile = lambda: keep_around(b"second " + OFFSET, OFFSET, [], second)
    keep_around(data, OFFSET, added, first)
    assert bytes_around(added, second) is None
