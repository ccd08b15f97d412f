"""Bodies that are small to write down and hard to take: what a client would append that wants to block a server.

`json_bodies` are by size; whether each is JSON is said beside it. Knows nothing of servers.
"""

from collections.abc import Callable, Container, Iterator
from functools import partial
from typing import NamedTuple

MIB = 1024 * 1024


class Nasty(NamedTuple):
    """A body for a JSON stream, and how many messages it has; None: it is no JSON text."""

    name: str
    body: bytes
    messages: int | None

    def __str__(self) -> str:
        return self.name


def json_bodies(size: int, names: Container[str] | None = None) -> Iterator[Nasty]:
    """Bodies of about so many bytes. With names, only these are made: one takes a tenth of a second."""
    for name, (messages, make) in _json_bodies(size).items():
        if names is None or name in names:
            yield Nasty(name, make(), messages)


Kinds = dict[str, tuple[int | None, Callable[[], bytes]]]


def _json_bodies(size: int) -> Kinds:
    """Return the number of messages of each body, and what makes it."""
    kinds: Kinds = {}
    for name, element in MANY_MESSAGES.items():
        count = size // (len(element) + 1)
        elements = partial(_repeat, element, count)
        kinds[f"many-{name}"] = count, partial(elements, b"[", b"]")
        kinds[f"one-with-many-{name}"] = 1, partial(elements, b"[[", b"]]")
        kinds[f"many-{name}-and-no-end"] = None, partial(elements, b"[", b"")
    for name, piece in LONG.items():
        kinds[f"long-{name}"] = 1, lambda piece=piece: b'["' + piece * (size // len(piece)) + b'"]'
    return kinds | {
        "integer": (1, lambda: b"9" * size),
        "fraction": (1, lambda: b"[0." + b"9" * size + b"e9]"),
        "spaces": (1, lambda: b"[" + b" " * size + b"1]"),
        "line-breaks": (2, lambda: b"[1" + b"\r\n" * (size // 2) + b",2]\n"),
        "keys": (1, lambda: b"{" + b",".join(b'"%d":%d' % (n, n) for n in range(size // 15)) + b"}"),
        "same-key": (1, lambda: _repeat(b'"":0', size // 5, b"{", b"}")),
        "deep-array": (None, lambda: b"[" * (size // 2) + b"]" * (size // 2)),
        "deep-object": (None, lambda: b'{"a":' * (size // 6) + b"1" + b"}" * (size // 6)),
        "bad-utf-8-at-the-end": (None, lambda: b'["' + b"x" * size + b'\xff"]'),
        "half-a-character-at-the-end": (None, lambda: b'["' + "é".encode() * (size // 2) + b'\xc3"]'),
        "byte-order-mark": (None, lambda: _repeat(b"1", size // 2, b"\xef\xbb\xbf[", b"]")),
        "nul-at-the-end": (None, lambda: _repeat(b"1", size // 2, b"[", b"]\x00")),
        "nul-inside": (None, lambda: b'["' + b"x" * size + b'\x00"]'),
        "surrogates-and-no-end": (None, lambda: b'["' + b"\\ud800" * (size // 6)),
    }


def _repeat(element: bytes, count: int, begin: bytes, end: bytes) -> bytes:
    """Return elements with commas between them."""
    return begin + ((element + b",") * count)[:-1] + end


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
