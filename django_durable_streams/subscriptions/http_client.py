"""One HTTP request to an address that was checked. Needs the extra `webhooks`.

Each request has a connection of its own. So the outcome is clear: until the first byte of the request was written, the
receiver knows nothing of it. And no connection outlives the check of its address.

The receiver is a stranger. It has one deadline for everything, and may send few bytes, in whatever pieces. Knows
nothing of subscriptions.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import certifi
import httpcore

from ..access.webhook_hosts import Address
from .addresses import Target, resolve_checked
from .name_resolution import Resolver

MAX_RESPONSE_BYTES = 64 * 1024
"""Bytes of a response, head and body. The connection of a larger one is cut. In the smallest pieces, so many bytes take
less than a tenth of a second to parse."""

MAX_ADDRESSES = 4
"""Addresses of a name that are tried."""


class ResponseTooLarge(Exception):
    """The receiver has sent more than a receiver may."""


class Response(NamedTuple):
    """A response: its status, and its body if the status is one of success."""

    status: int
    body: bytes


class Exchange(httpcore.AsyncNetworkBackend):
    """One request and its response. It is its own network: it connects to checked addresses of its target only.

    Args:
        target: the checked URL.
        resolver: finds the addresses of its name.
        ssl_context: for https. With http it may be None.

    Attributes:
        is_sent: whether a part of the request was written, so that the receiver may have it.
    """

    def __init__(self, target: Target, resolver: Resolver, ssl_context: ssl.SSLContext | None) -> None:
        self.is_sent = False
        self._target = target
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._seconds = 0.0
        self._streams: list[httpcore.AsyncNetworkStream] = []

    async def post(self, headers: Mapping[bytes | str, bytes | str], body: bytes, seconds: float) -> Response:
        """Send the request and return the response. Whatever happens, the connection is closed then.

        Args:
            headers: all headers but the Content-Length.
            body: the body.
            seconds: the time for everything.

        Raises:
            TimeoutError: the time is over.
            SubscriptionError: an address is not allowed.
            ResponseTooLarge: the receiver has sent too much.
            OSError: the name has no address.
            httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException: the connection failed, or it was
                lost, or the response is not HTTP.
        """
        scheme, host = self._target.scheme.encode(), self._target.host.encode()
        origin = httpcore.Origin(scheme, host, self._target.port)
        url = httpcore.URL(scheme=scheme, host=host, port=self._target.port, target=self._target.path)
        connection = httpcore.AsyncHTTPConnection(origin, self._ssl_context, network_backend=self)
        self._seconds = seconds
        try:
            async with asyncio.timeout(seconds):
                async with connection.stream("POST", url, headers=headers, content=body) as response:
                    content = b""
                    if 200 <= response.status < 300:
                        content = b"".join([part async for part in response.aiter_stream()])
                    return Response(response.status, content)
        finally:
            await self._close()

    async def _close(self) -> None:
        # httpcore forgets a connection whose TLS handshake was cancelled, and the event loop would keep it.
        for stream in self._streams:
            await stream.aclose()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the target. The arguments say the same as the target, which was checked."""
        addresses = await resolve_checked(self._target, self._resolver.resolve)
        *others, last = addresses[:MAX_ADDRESSES]
        seconds = self._seconds / (len(others) + 1)
        for address in others:
            try:
                return await self._connect(address, seconds)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                pass  # the next one may answer
        return await self._connect(last, seconds)

    async def _connect(self, address: Address, seconds: float) -> httpcore.AsyncNetworkStream:
        stream = await httpcore.AnyIOBackend().connect_tcp(str(address), self._target.port, seconds)
        self._streams.append(stream)
        return _BoundedStream(stream, self)


class _BoundedStream(httpcore.AsyncNetworkStream):
    """A connection on which few bytes may come."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange
        self._remaining = MAX_RESPONSE_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._remaining -= len(data)
        if self._remaining < 0:
            raise ResponseTooLarge
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._exchange.is_sent = True
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _BoundedStream(stream, self._exchange)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def default_ssl_context() -> ssl.SSLContext:
    """Return a context that trusts the authorities of certifi and of the system. Makes it anew; takes milliseconds."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context
