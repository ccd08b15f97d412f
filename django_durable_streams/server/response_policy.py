"""The headers of every response: for caches, for pages of other origins, and against active content in streams.

`common_headers` decides for all entry points. It depends on the kind of response, on who may read, and on the origin of
the request. The lists are made once, when the settings are read, so a response takes two lookups. Knows no streams.
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
        everybody: whether all reads are allowed.
        varies_on: the request headers that the permission depends on.
        registry_path: the path of the registry, if everybody may read all streams but that. Otherwise empty.
    """

    everybody: bool
    varies_on: tuple[str, ...] = ()
    registry_path: str = ""


class _Headers(NamedTuple):
    """The headers for an origin: for reads by their caching, for changes, and for refused changes."""

    reads: dict[Caching, list[Header]]
    changes: list[Header]
    refusals: list[Header]


class ResponsePolicy:
    """The headers to add to responses, made once from the settings."""

    def __init__(self, settings: Config, readers: Readers) -> None:
        self._settings = settings
        self._readers = readers
        self.registry_path = readers.registry_path
        self.for_registry = self
        """The policy for reads of the registry."""
        if readers.registry_path:
            self.for_registry = ResponsePolicy(settings, Readers(False, readers.varies_on))
        self.cors = cors.CorsPolicy(settings)
        everybody = self.cors.for_everybody
        # A cache may give the response to a page of another origin.
        self._without_origin = self._make(everybody, [])
        self._other_origins = self._make(everybody, everybody)
        self._origins = {
            origin: self._make(granted, granted) for origin, granted in self.cors.for_listed_origins().items()
        }

    def headers(self, method: str, origin: bytes | None, answer: Response | EventStream) -> list[Header]:
        """Return the headers for a response. A response that a cache may keep is right for every reader."""
        by_kind = self._without_origin if origin is None else self._origins.get(origin, self._other_origins)
        if method == "GET" or method == "HEAD":
            return by_kind.reads[answer.caching]
        return by_kind.changes if answer.status < 400 else by_kind.refusals

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
        # This header is about resources that pages of other origins embed, with the user's cookies. CORS is separate.
        embeds = everybody and self.cors.is_on
        kept = cache_control(caching, everybody_reads=everybody, shared=shared)
        header_list = [
            NOSNIFF,
            SANDBOX,
            (b"cross-origin-resource-policy", b"cross-origin" if embeds else b"same-origin"),
            (headers.CACHE_CONTROL, kept),
        ]
        vary = [] if everybody or caching is Caching.KEYS else list(self._readers.varies_on)
        if kept is PUBLIC:  # a cache would otherwise give a response for an image to a script
            vary.append("Sec-Fetch-Dest")
        if self.cors.depends_on_origin:
            vary.append("Origin")
        if vary:
            header_list.append((headers.VARY, ", ".join(dict.fromkeys(vary)).encode("latin-1")))
        return header_list


def common_headers(request: Request, answer: Response | EventStream) -> list[Header]:
    """Return the headers to add to the response to a request."""
    current = _current
    # Most responses find the policy without a call.
    chosen = current[1] if current is not None and current[0] is config() else policy()
    if chosen.registry_path and request.path == chosen.registry_path:
        chosen = chosen.for_registry
    return chosen.headers(request.method, request.headers.get(headers.ORIGIN), answer)


def complete_refusal(response: Response) -> Response:
    """Add the common headers to the response to a request that could not be parsed."""
    return response.with_headers(policy().headers("GET", None, response))


_current: tuple[Config, ResponsePolicy] | None = None


def policy() -> ResponsePolicy:
    """Return the policy of the current settings."""
    global _current
    settings = config()
    current = _current
    if current is None or current[0] is not settings:
        current = _current = settings, ResponsePolicy(settings, _readers())
    return current[1]


def _readers() -> Readers:
    try:
        guard = current_guard()
    except (ImproperlyConfigured, ValueError):  # no request is answered then
        return Readers(everybody=False)
    if guard is None:
        return Readers(True)
    is_hidden = guard.everybody_reads and not guard.everybody_lists
    return Readers(guard.everybody_reads, guard.varies_on, config().registry_path if is_hidden else "")


def _drop_policy(**kwargs: Any) -> None:
    global _current
    _current = None


setting_changed.connect(_drop_policy, dispatch_uid="durable_streams.policy")
