"""The headers that every response carries: for caches, for pages of other origins, and against what streams hold.

One function decides, for all entry points. It goes by what kind of answer a response is, by who may read at all, and by
the origin that asks. All lists are made when the settings are read.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from ..access.guard import current_guard
from ..conf import Config, config
from ..protocol import headers
from ..protocol.browsers import NOSNIFF, SANDBOX
from ..protocol.caching import PUBLIC, Caching, cache_control
from ..protocol.messages import Header, Request, Response
from . import cors
from .answers import EventStream

logger = logging.getLogger(__name__)


class Readers(NamedTuple):
    """Who may read streams.

    Args:
        everybody: nothing guards reads.
        varies_on: the request headers that the decision depends on.
    """

    everybody: bool
    varies_on: tuple[str, ...] = ()


class _Headers(NamedTuple):
    """Headers for an origin: of reads, by what caches may do with them, of other answers, and of refused changes."""

    reads: dict[Caching, list[Header]]
    changes: list[Header]
    refusals: list[Header]


class ResponsePolicy:
    """What is added to responses, made once from the settings."""

    def __init__(self, settings: Config, readers: Readers) -> None:
        self._settings = settings
        self._readers = readers
        self.cors = cors.CorsPolicy(settings)
        everybody = self.cors.for_everybody
        # A cache may keep what was asked for without an origin, and give it to a page of another one.
        self._without_origin = self._make(everybody, [])
        self._other_origins = self._make(everybody, everybody)
        self._origins = {
            origin: self._make(granted, granted) for origin, granted in self.cors.for_listed_origins().items()
        }

    def headers(self, method: str, origin: bytes | None, answer: Response | EventStream) -> list[Header]:
        """Return the headers for an answer. What a cache may keep is right for everybody who gets it from there."""
        found = self._without_origin if origin is None else self._origins.get(origin, self._other_origins)
        if method == "GET" or method == "HEAD":
            return found.reads[answer.caching]
        return found.changes if answer.status < 400 else found.refusals

    def _make(self, on_reads: list[Header], on_changes: list[Header]) -> _Headers:
        changes = [NOSNIFF, *on_changes]
        return _Headers(
            {caching: [*self._read_headers(caching), *on_reads] for caching in Caching},
            changes,
            [*changes, (headers.CACHE_CONTROL, cache_control(Caching.NEVER, everybody_reads=False, shared=False))],
        )

    def _read_headers(self, caching: Caching) -> list[Header]:
        everybody = self._readers.everybody
        shared = self._settings.cache_scope == "public"
        # Pages of other origins that may read do so by CORS, which this header leaves alone. It is about what they
        # embed without asking, with the user's cookies.
        embeds = everybody and self.cors.is_on
        kept = cache_control(caching, everybody_reads=everybody, shared=shared)
        found = [
            NOSNIFF,
            SANDBOX,
            (b"cross-origin-resource-policy", b"cross-origin" if embeds else b"same-origin"),
            (headers.CACHE_CONTROL, kept),
        ]
        vary = [] if everybody else list(self._readers.varies_on)
        if kept is PUBLIC:  # without being asked, a cache would show what was read as an image to those who run scripts
            vary.append("Sec-Fetch-Dest")
        if self.cors.depends_on_origin:
            vary.append("Origin")
        if vary:
            found.append((headers.VARY, ", ".join(dict.fromkeys(vary)).encode("latin-1")))
        return found


def common_headers(request: Request, answer: Response | EventStream) -> list[Header]:
    """Return the headers that are added to the answer to a request."""
    return policy().headers(request.method, request.headers.get(headers.ORIGIN), answer)


def complete_refusal(response: Response) -> Response:
    """Return the answer to what could not even be read, with what is added to every answer."""
    return response.with_headers(policy().headers("GET", None, response))


_current: tuple[Config, ResponsePolicy] | None = None


def policy() -> ResponsePolicy:
    """Return the policy of the settings in force, made anew only when they have changed."""
    global _current
    settings = config()
    known = _current
    if known is None or known[0] is not settings:
        known = _current = settings, ResponsePolicy(settings, _readers())
    return known[1]


def _readers() -> Readers:
    try:
        guard = current_guard()
    except (ImproperlyConfigured, ValueError):  # then nobody reads anything, and is told so
        return Readers(everybody=False)
    return Readers(True) if guard is None else Readers(guard.everybody_reads, guard.varies_on)


def _forget(**kwargs: Any) -> None:
    global _current
    _current = None


setting_changed.connect(_forget, dispatch_uid="durable_streams.policy")
