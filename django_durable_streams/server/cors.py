"""What pages of other origins may do, by setting (specification, section 12.7)."""

from __future__ import annotations

import re

from ..access import csrf
from ..conf import Config
from ..protocol import headers
from ..protocol.messages import Header, Request, Response

METHODS = b"GET, HEAD, POST, PUT, DELETE, OPTIONS"

_ALLOW_HEADERS = (
    # The protocol's.
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
    # HTTP's, and what clients of event streams send.
    "authorization",
    "content-type",
    "if-none-match",
    "cache-control",
    "last-event-id",
    "x-requested-with",
    # What tracing adds to every request of a page.
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
)
_EXPOSE_HEADERS = (
    b"stream-next-offset, stream-cursor, stream-up-to-date, stream-closed, stream-ttl, stream-expires-at, "
    b"stream-sse-data-encoding, producer-epoch, producer-seq, producer-expected-seq, producer-received-seq, "
    b"etag, location, retry-after"
)
_ANYBODY: list[Header] = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]
_MAX_AGE: Header = (b"access-control-max-age", b"7200")


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def is_origin(text: str) -> bool:
    """Whether a text is `*`, or an origin as browsers send it.

    `null` is none: every page could send it, from a sandboxed frame, and would act with the user's session.
    """
    if text == "*":
        return True
    scheme, _, rest = text.partition("://")
    port = rest.rpartition("]")[2].partition(":")[2]
    return _ORIGIN.fullmatch(text) is not None and port != _DEFAULT_PORTS.get(scheme, "none")


class CorsPolicy:
    """What pages of other origins may do, made once from the settings."""

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
        """Whether pages of any other origin may do anything."""
        return bool(self._origins)

    @property
    def depends_on_origin(self) -> bool:
        """Whether it depends on the origin what a response says."""
        return bool(self._origins) and not self._any

    @property
    def for_everybody(self) -> list[Header]:
        """The headers for an origin that is not listed: the same for all, and without credentials."""
        return _ANYBODY if self._any else []

    def for_listed_origins(self) -> dict[bytes, list[Header]]:
        """Return the headers for each origin that the settings list, whose pages may bring credentials."""
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
        """Answer OPTIONS: to a browser that asks whether it may send a request, and to anybody else."""
        found: list[Header] = [(headers.ALLOW, METHODS)]
        if self._any or request.headers.get(headers.ORIGIN) in self._origins:
            found += self._preflight
        return Response(204, found)
