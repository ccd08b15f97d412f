"""CORS: the pages of other origins that may use streams, by setting (specification, section 12.7).

Makes header lists from the settings. `response_policy` adds them to responses.
"""

from __future__ import annotations

import re

from ..access import csrf
from ..conf import Config
from ..protocol import headers
from ..protocol.messages import Header, Request, Response

METHODS = b"GET, HEAD, POST, PUT, DELETE, OPTIONS"

_ALLOW_HEADERS = (
    # Headers of the protocol.
    "stream-seq",
    "stream-ttl",
    "stream-expires-at",
    "stream-closed",
    "stream-forked-from",
    "stream-fork-offset",
    "stream-fork-sub-offset",
    "producer-id",
    "producer-epoch",
    "producer-seq",
    # Headers of HTTP, and of clients of event streams.
    "authorization",
    "content-type",
    "if-match",
    "if-none-match",
    "cache-control",
    "last-event-id",
    "x-requested-with",
    # Headers that tracing adds to every request of a page.
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
)
_EXPOSE_HEADERS = (
    b"stream-next-offset, stream-first-offset, stream-cursor, stream-up-to-date, stream-closed, stream-ttl, "
    b"stream-expires-at, stream-sse-data-encoding, producer-epoch, producer-seq, producer-expected-seq, "
    b"producer-received-seq, etag, location, retry-after"
)
_FOR_ANY_ORIGIN: list[Header] = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]
_MAX_AGE: Header = (b"access-control-max-age", b"7200")


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def is_origin(text: str) -> bool:
    """Return whether a text is `*`, or an origin as browsers send it.

    `null` is not: every page could send it from a sandboxed frame, and would act with the user's session.
    """
    if text == "*":
        return True
    scheme, _, rest = text.partition("://")
    port = rest.rpartition("]")[2].partition(":")[2]
    return _ORIGIN.fullmatch(text) is not None and port != _DEFAULT_PORTS.get(scheme, "none")


class CorsPolicy:
    """The CORS headers, made once from the settings."""

    def __init__(self, config: Config) -> None:
        self._any = "*" in config.cors_origins
        self._origins = frozenset(origin.encode() for origin in config.cors_origins)
        allowed = dict.fromkeys([*_ALLOW_HEADERS, csrf.header_name(), *map(str.lower, config.cors_allow_headers)])
        self._preflight: list[Header] = [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", ", ".join(allowed).encode("latin-1")),
            _MAX_AGE,
        ]

    @property
    def is_on(self) -> bool:
        """Whether pages of another origin may use streams."""
        return bool(self._origins)

    @property
    def depends_on_origin(self) -> bool:
        """Whether a response depends on the origin."""
        return bool(self._origins) and not self._any

    @property
    def for_everybody(self) -> list[Header]:
        """The headers for an origin that is not listed, without credentials."""
        return _FOR_ANY_ORIGIN if self._any else []

    def for_listed_origins(self) -> dict[bytes, list[Header]]:
        """Return the headers for each listed origin. Its pages may send credentials."""
        if self._any:
            return {}
        return {
            origin: [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                (b"access-control-expose-headers", _EXPOSE_HEADERS),
            ]
            for origin in self._origins
        }

    def preflight(self, request: Request) -> Response:
        """Respond to OPTIONS, which browsers send before some requests."""
        header_list: list[Header] = [(headers.ALLOW, METHODS)]
        if self._any or request.headers.get(headers.ORIGIN) in self._origins:
            header_list += self._preflight
        return Response(204, header_list)
