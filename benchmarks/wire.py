"""HTTP/1.1 as the raw sockets of the live workloads need it: requests to bytes, bytes to responses."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from benchmarks.client import TIMEOUT, Address
from benchmarks.outcome import MeasurementError

HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Message:
    """A whole response, and the bytes that came after it."""

    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes


def connect(address: Address) -> socket.socket:
    sock = socket.create_connection((address.host, address.port), timeout=TIMEOUT)
    # A request is one small write that must not wait for the answer to another.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def encode_request(
    method: str, address: Address, name: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    lines = [f"{method} {address.path(name)} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{key}: {value}" for key, value in {**dict(address.headers), **(headers or {})}.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + HEAD_END + body


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and lower-cased headers of a response head (without the empty line)."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    try:
        status = int(status_line.split(" ", 2)[1])
        pairs = (line.split(":", 1) for line in lines)
        return status, {key.strip().lower(): value.strip() for key, value in pairs}
    except (IndexError, ValueError):
        raise MeasurementError(f"not an HTTP response: {head[:80]!r}") from None


def parse_message(buffer: bytes) -> Message | None:
    """The first response in `buffer`, or None when it is not complete yet."""
    head, separator, rest = buffer.partition(HEAD_END)
    if not separator:
        return None
    status, headers = parse_head(head)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _chunked(status, headers, rest)
    length = 0 if status in (204, 304) else int(headers.get("content-length", "0"))
    if len(rest) < length:
        return None
    return Message(status, headers, rest[:length], rest[length:])


def _chunked(status: int, headers: dict[str, str], rest: bytes) -> Message | None:
    body = bytearray()
    while True:
        line, separator, rest = rest.partition(b"\r\n")
        if not separator:
            return None
        size = int(line.split(b";", 1)[0], 16)
        if len(rest) < size + 2:
            return None
        body += rest[:size]
        rest = rest[size + 2 :]
        if size == 0:
            return Message(status, headers, bytes(body), rest)
