"""Requests to another server of the protocol, and its refusals as exceptions. Needs the extra `webhooks`.

The server is one that the project has chosen, so its address is not checked. Knows nothing of subscriptions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import httpcore
import msgspec

from ...protocol.content import JSON_CONTENT_TYPE
from ...protocol.errors import (
    DurableStreamsError,
    NotAuthenticated,
    PermissionDenied,
    ServiceUnavailable,
    StreamGone,
    StreamNotFound,
)
from ...protocol.structs import examine
from ...protocol.subscriptions import SubscriptionError
from ..http_client import default_ssl_context

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""Headers of each request, such as Authorization, or a function that returns them."""

REQUEST_SECONDS = 30.0
"""Time for a request and its whole response."""

IDLE_SECONDS = 15.0
"""How long an unused connection stays open."""

_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed later."""

_ERRORS: Mapping[int, type[DurableStreamsError]] = {
    401: NotAuthenticated,
    403: PermissionDenied,
    404: StreamNotFound,
    410: StreamGone,
}

_MAX_SHOWN = 200
"""Characters of a response that a message repeats."""


class Reply(NamedTuple):
    """The response to a request."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


class HttpClient:
    """A client of one server, for one event loop.

    Args:
        url: the root of the streams, such as `https://streams.example.com/v1/stream/`.
        headers: headers of each request.

    Raises:
        ValueError: the URL is not one of http or https.
    """

    def __init__(self, url: str, headers: Headers) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"The root of the streams must be a URL of http or https, without a query: {url!r}.")
        self._root = url.rstrip("/") + "/"
        self._headers = headers
        ssl_context = default_ssl_context() if parts.scheme == "https" else None
        self._pool = httpcore.AsyncConnectionPool(ssl_context, keepalive_expiry=IDLE_SECONDS)

    async def request(
        self,
        method: str,
        target: str,
        *,
        query: Mapping[str, str] | None = None,
        content: Any = None,
        token: str = "",
        seconds: float = REQUEST_SECONDS,
    ) -> Reply:
        """Send a request and return the response to it.

        Args:
            method: the method.
            target: the percent-encoded path below the root.
            query: parameters of the URL.
            content: the body as a value for JSON.
            token: a token to send in the place of other credentials.
            seconds: time for the response.

        Raises:
            ServiceUnavailable: the server does not answer, or asks to try again.
            DurableStreamsError: it refuses.
        """
        url = self._root + target + (f"?{urlencode(query)}" if query else "")
        body = None if content is None else msgspec.json.encode(content)
        try:
            async with asyncio.timeout(seconds):
                headers = self._request_headers(token, has_body=body is not None)
                response = await self._pool.request(method, url, headers=headers, content=body)
        except (
            TimeoutError,
            OSError,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            raise ServiceUnavailable(f"{self._root} does not answer: {type(error).__name__} {error}.") from error
        names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        reply = Reply(response.status, names, response.content)
        if not 200 <= reply.status < 300:
            raise refusal(reply)
        return reply

    def _request_headers(self, token: str, *, has_body: bool) -> dict[bytes | str, bytes | str]:
        own = self._headers() if callable(self._headers) else self._headers
        headers: dict[bytes | str, bytes | str] = {name.lower(): value for name, value in own.items()}
        if token:
            headers["authorization"] = f"Bearer {token}"
        if has_body:
            headers["content-type"] = JSON_CONTENT_TYPE
        return headers

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


def refusal(reply: Reply) -> DurableStreamsError:
    """Return the error that a response stands for."""
    if reply.status in _TEMPORARY:
        return ServiceUnavailable(f"The server asks to try again later (status {reply.status}).")
    try:
        error = msgspec.json.decode(reply.body, type=_Problem).error
    except msgspec.DecodeError:
        shown = reply.body[:_MAX_SHOWN].decode(errors="replace")
        message = f"The server has refused with status {reply.status}: {shown}"
        kind = _ERRORS.get(reply.status)
        return SubscriptionError("REFUSED", reply.status, message) if kind is None else kind(message)
    return SubscriptionError(error.code, reply.status, error.message or error.code)


class _ProblemError(msgspec.Struct):
    code: str
    message: str = ""


class _Problem(msgspec.Struct):
    error: _ProblemError


examine(globals())
