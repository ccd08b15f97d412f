"""Bodies that are small to write down and hard to take: what a client would append that wants to block a server.

`json_bodies` are by size; whether each is JSON is said beside it. Knows nothing of servers.
"""

from collections.abc import Iterator
from typing import NamedTuple

MIB = 1024 * 1024


class Nasty(NamedTuple):
    """A body for a JSON stream, and how many messages it has; None: it is no JSON text."""

    name: str
    body: bytes
    messages: int | None

    def __str__(self) -> str:
        return self.name


def json_bodies(size: int) -> Iterator[Nasty]:
    """Bodies of about so many bytes."""
    for name, element in MANY_MESSAGES.items():
        count = size // (len(element) + 1)
        yield Nasty(f"many-{name}", b"[" + b",".join([element] * count) + b"]", count)
        yield Nasty(f"one-with-many-{name}", b"[[" + b",".join([element] * count) + b"]]", 1)
        yield Nasty(f"many-{name}-and-no-end", b"[" + b",".join([element] * count), None)
    for name, piece in LONG.items():
        yield Nasty(f"long-{name}", b'["' + piece * (size // len(piece)) + b'"]', 1)
    yield Nasty("integer", b"9" * size, 1)
    yield Nasty("fraction", b"[0." + b"9" * size + b"e9]", 1)
    yield Nasty("spaces", b"[" + b" " * size + b"1]", 1)
    yield Nasty("line-breaks", b"[1" + b"\r\n" * (size // 2) + b",2]\n", 2)
    yield Nasty("keys", b"{" + b",".join(b'"%d":%d' % (n, n) for n in range(size // 15)) + b"}", 1)
    yield Nasty("same-key", b"{" + b",".join([b'"":0'] * (size // 5)) + b"}", 1)
    yield Nasty("deep-array", b"[" * (size // 2) + b"]" * (size // 2), None)
    yield Nasty("deep-object", b'{"a":' * (size // 6) + b"1" + b"}" * (size // 6), None)
    yield Nasty("bad-utf-8-at-the-end", b'["' + b"x" * size + b'\xff"]', None)
    yield Nasty("half-a-character-at-the-end", b'["' + "é".encode() * (size // 2) + b'\xc3"]', None)
    yield Nasty("byte-order-mark", b"\xef\xbb\xbf[" + b",".join([b"1"] * (size // 2)) + b"]", None)
    yield Nasty("nul-at-the-end", b"[" + b",".join([b"1"] * (size // 2)) + b"]\x00", None)
    yield Nasty("nul-inside", b'["' + b"x" * size + b'\x00"]', None)
    yield Nasty("surrogates-and-no-end", b'["' + b"\\ud800" * (size // 6), None)


MANY_MESSAGES = {
    "empty-arrays": b"[]",
    "digits": b"1",
    "empty-strings": b'""',
    "objects": b'{"a":1}',
    "nested": b'{"a":[1,2,{"b":"},{"}],"c":null}',
    "lone-surrogates": b'"\\ud800"',
    "commas": b'",,,,,,,,"',
    "spaced": b" \n 1 \r\n",
}
LONG = {
    "text": b"x",
    "emoji": "😀".encode(),
    "escapes": b"\\n",
    "unicode-escapes": b"\\u0041",
    "lone-surrogates": b"\\ud800",
    "backslashes": b"\\\\ud800",
    "pairs": b"\\ud83d\\ude00",
    "commas": b",",
    "brackets": b"},{",
}


def texts(size: int) -> Iterator[tuple[str, bytes]]:
    """Bodies for text streams, which SSE has to break into lines."""
    for name, piece in {"lf": b"\n", "cr": b"\r", "crlf": b"\r\n", "space": b"\n ", "data": b"\ndata: "}.items():
        yield name, piece * (size // len(piece))
