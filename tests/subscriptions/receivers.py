"""Receivers of webhooks for tests: real servers on this machine that answer whatever a test says, and their keys."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from types import TracebackType
from typing import NamedTuple, Self

from django_durable_streams.access.webhook_hosts import Address
from django_durable_streams.subscriptions.name_resolution import Resolver
from tests.listening import Listener

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

NAME = "hooks.example"
"""A name that no resolver knows but the one of a test."""


class Received(NamedTuple):
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


class WebhookReceiver:
    """A server. Use as an asynchronous context manager.

    answer: is called with each connection once its request has arrived, and writes the response, or does not.
    reads: whether it reads a request at all before it answers.
    context: with one it speaks TLS.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        reads: bool = True,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._answer = answer
        self._reads = reads
        self._listener = Listener(self._serve, host=host, port=port, context=context)
        self.connections = 0
        self.requests: list[Received] = []
        self.reached = asyncio.Event()
        """Set when a connection, and the request if it is read, has arrived."""
        self.ended = asyncio.Event()
        """Set when a connection was closed by the client or by the answer."""

    async def __aenter__(self) -> Self:
        await self._listener.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.__aexit__(kind, error, trace)

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return self._listener.port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self._reads:
                self.requests.append(await read_request(reader))
            self.reached.set()
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self.ended.set()

    def url(self, host: str = NAME, scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/hook?a=1"


async def read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    return Received(head[0], headers, await reader.readexactly(int(headers["content-length"])))


def replies(status: int, body: bytes = b"", *head: str) -> Answer:
    """An answer of one status and body."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *head, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return answer


def sends(data: bytes, *, then_waits: bool = False) -> Answer:
    """An answer of exactly these bytes. Then the connection ends, or stays open until the client closes it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if then_waits:
            await reader.read()

    return answer


def endless(data: bytes) -> Answer:
    """An answer that repeats some bytes until the client closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(data)
            await writer.drain()

    return answer


def names(**addresses: str) -> Resolver:
    """A resolver that knows some names, with dots as underscores, each with addresses after spaces."""
    table = {name.replace("_", "."): [ip_address(text) for text in value.split()] for name, value in addresses.items()}

    def lookup(host: str, port: int) -> list[Address]:
        if host not in table:
            raise OSError("There is no such name.")
        return table[host]

    return Resolver(lookup)


def local_name() -> Resolver:
    return names(hooks_example="127.0.0.1")
