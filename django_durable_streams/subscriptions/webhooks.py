"""Sends webhooks: one signed request each, and what its response says of the wake (specification, section 7.1).

Importing this needs no optional package; sending does.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .. import __version__, clock
from ..models.signing_key import SigningKey
from ..protocol.errors import DurableStreamsError
from ..runtime.log_once import LogOnce
from . import extra
from .addresses import Target, parse_url
from .name_resolution import Resolver
from .signing_keys import SigningKeyError, sign

if TYPE_CHECKING:
    from .http_client import Exchange, Response

logger = logging.getLogger(__name__)

Outcome = Literal["done", "accepted", "failed", "unknown"]

KEY_SECONDS = 30.0
"""For how long a process signs with a key before it asks the database for the active one again."""

WARNING_SECONDS = 60.0


class WebhookRequest(NamedTuple):
    """A wake for a receiver."""

    url: str
    body: bytes
    timeout: float
    """Seconds for everything: name, connection, request and response."""
    until: datetime
    """The end of the lease. Nothing is sent from then on, because the next wake may be on its way."""

    def seconds_left(self) -> float:
        """Return the time that is left for everything, in seconds."""
        return min(self.timeout, (self.until - clock.now()).total_seconds())


class WebhookResult(NamedTuple):
    """What became of a request.

    `done`: the receiver has done all work of the wake. `accepted`: it is at work. `failed`: it has refused, or it was
    not reached. `unknown`: it may have the request, and may be at work.
    """

    outcome: Outcome
    error: str = ""
    """What went wrong, for people. It has no part of the response and no address."""


class WebhookSender:
    """Sends webhooks for one event loop.

    Args:
        load_key: returns the active key (`signing_keys.active_key`), from whichever thread has a connection.
        resolver: finds the addresses of names.
        ssl_context: for https. Default: the authorities of certifi and of the system.
    """

    def __init__(
        self,
        load_key: Callable[[], Awaitable[SigningKey]],
        *,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._load_key = load_key
        self._resolver = resolver or Resolver()
        self._ssl_context = ssl_context
        self._key: SigningKey | None = None
        self._key_expires_at = 0.0
        self._key_errors = LogOnce(WARNING_SECONDS)

    async def send(self, request: WebhookRequest) -> WebhookResult:
        """Send a request and wait for its response. Raises nothing, except that it can be cancelled."""
        exchange: Exchange | None = None
        try:
            extra.require()
            target = parse_url(request.url)
            headers = self._headers(target, sign(request.body, clock.now(), await self._active_key()))
            exchange = self._exchange(target)
            if (seconds := request.seconds_left()) <= 0:
                return WebhookResult("failed", "The lease ended before the request was sent.")
            return _result_of(await exchange.post(headers, request.body, seconds))
        except SigningKeyError as error:
            if self._key_errors.is_due():
                logger.error("Webhooks cannot be signed. %s", error.detail)
            return WebhookResult("failed", "The server cannot sign webhooks.")
        except DurableStreamsError as error:
            return WebhookResult("failed", error.detail)
        except Exception as error:
            return _result_of_error(error, is_sent=exchange is not None and exchange.is_sent)

    async def close(self) -> None:
        """Forget the key. Connections end with their requests."""
        self._key = None

    def _headers(self, target: Target, signature: str) -> dict[bytes | str, bytes | str]:
        return {
            "Host": target.authority,
            "User-Agent": f"django-durable-streams/{__version__}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "Webhook-Signature": signature,
        }

    def _exchange(self, target: Target) -> Exchange:
        from .http_client import Exchange, default_ssl_context

        if self._ssl_context is None and target.scheme == "https":
            self._ssl_context = default_ssl_context()
        return Exchange(target, self._resolver, self._ssl_context)

    async def _active_key(self) -> SigningKey:
        key = self._key
        if key is None or time.monotonic() >= self._key_expires_at:
            key = await self._load_key()
            self._key, self._key_expires_at = key, time.monotonic() + KEY_SECONDS
        return key


def _result_of(response: Response) -> WebhookResult:
    if not 200 <= response.status < 300:
        hint = " Redirects are not followed." if 300 <= response.status < 400 else ""
        return WebhookResult("failed", f"The receiver answered with status {response.status}.{hint}")
    return WebhookResult("done" if _is_done(response.body) else "accepted")


def _is_done(body: bytes) -> bool:
    """Return whether a body is exactly `{"done": true}`.

    Anything more, such as `acks`, may mean less than all work. It belongs into a callback.
    """
    try:
        fields: Any = json.loads(body, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return False
    return isinstance(fields, tuple) and len(fields) == 1 and fields[0][0] == "done" and fields[0][1] is True


def _result_of_error(error: Exception, *, is_sent: bool) -> WebhookResult:
    """Return the result of a request without a response.

    A receiver whose connection is lost after the request was sent may be at work, whatever it has sent last.
    """
    if isinstance(error, ImportError):
        logger.error("A webhook could not be sent.", exc_info=error)
        return WebhookResult("failed", f"A package of this server is missing or too old. {extra.INSTALL}")
    import httpcore

    from .http_client import ResponseTooLarge

    if isinstance(error, ResponseTooLarge):
        return WebhookResult("failed", "The response of the receiver is too large.")
    if isinstance(error, TimeoutError | httpcore.TimeoutException):
        reason = "The receiver did not answer in time."
    elif isinstance(error, ssl.SSLError | ssl.CertificateError) or isinstance(error.__cause__, ssl.SSLError):
        reason = "The TLS handshake with the receiver failed."
    elif isinstance(error, OSError | httpcore.NetworkError):
        reason = "The connection to the receiver was lost." if is_sent else "The receiver cannot be reached."
    elif isinstance(error, httpcore.ProtocolError):
        reason = "The receiver closed the connection, or its response is not HTTP."
    else:
        logger.error("A webhook could not be sent.", exc_info=error)
        reason = "The request could not be sent."
    return WebhookResult("unknown" if is_sent else "failed", reason)
