"""Headers for browsers: CORS, by setting, and protection that every response carries (specification, section 12.7)."""

from __future__ import annotations

from ..conf import Config, config
from .messages import Header, Request, Response

METHODS = b"GET, HEAD, POST, PUT, DELETE, OPTIONS"

_ALLOW_HEADERS = (
    b"authorization, content-type, if-none-match, stream-seq, stream-ttl, stream-expires-at, stream-closed, "
    b"stream-forked-from, stream-fork-offset, stream-fork-sub-offset, producer-id, producer-epoch, producer-seq"
)
_EXPOSE_HEADERS = (
    b"stream-next-offset, stream-cursor, stream-up-to-date, stream-closed, stream-ttl, stream-expires-at, "
    b"stream-sse-data-encoding, producer-epoch, producer-seq, producer-expected-seq, producer-received-seq, "
    b"etag, location, retry-after"
)
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_ANYBODY = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]


class CorsPolicy:
    """What pages of other origins may do, made once from the settings."""

    def __init__(self, config: Config) -> None:
        self._any = "*" in config.cors_origins
        self._origins = frozenset(origin.encode() for origin in config.cors_origins)
        self._plain: list[Header] = [_NOSNIFF]
        self._cacheable: list[Header] = [
            _NOSNIFF,
            (b"cross-origin-resource-policy", b"cross-origin" if self._origins else b"same-origin"),
        ]
        if self._any:
            self._cacheable += _ANYBODY
        elif self._origins:
            self._cacheable.append((b"vary", b"Origin"))

    def headers(self, method: str, origin: bytes | None) -> list[Header]:
        """Return the headers of the response to a request with this `Origin`.

        What a cache may keep has to be right for everybody who gets it from there. Everything else carries only what
        the one who asks can use.
        """
        found = self._cacheable if method == "GET" else self._plain
        if origin is None:
            return found
        if self._any:
            return found if method == "GET" else [*found, *_ANYBODY]
        if origin not in self._origins:
            return found
        return [
            *found,
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSE_HEADERS),
        ]

    def preflight(self, request: Request) -> Response:
        """Answer OPTIONS: to a browser that asks whether it may send a request, and to anybody else."""
        found: list[Header] = [(b"allow", METHODS)]
        origin = request.headers.get(b"origin")
        if self._any or origin in self._origins:
            found += [
                (b"access-control-allow-methods", METHODS),
                (b"access-control-allow-headers", _ALLOW_HEADERS),
                (b"access-control-max-age", b"7200"),
            ]
        return Response(204, found)


def common_headers(request: Request) -> list[Header]:
    """Return the headers that every response to a request carries."""
    return policy().headers(request.method, request.headers.get(b"origin"))


_current: tuple[Config, CorsPolicy] | None = None


def policy() -> CorsPolicy:
    """Return the policy of the settings in force, made anew only when they have changed."""
    global _current
    settings = config()
    known = _current
    if known is None or known[0] is not settings:
        known = _current = settings, CorsPolicy(settings)
    return known[1]
