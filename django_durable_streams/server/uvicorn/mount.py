"""Finds the streams in the application that a uvicorn runs: directly, or inside Channels' routers.

The invariant: a path leads to the same stream here as through ASGI. It holds because the routers themselves decide. A
copy of the application is called with a scope. In this copy, recorders stand in place of all other applications. What
the copy has found for a path is cached: routers of the known kinds depend on the path alone.

Knows uvicorn and Channels. Connections and requests are unknown here.
"""

from __future__ import annotations

import sys
from copy import copy
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeGuard, cast

from django.urls import Resolver404
from django.urls.resolvers import RegexPattern, RoutePattern
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..coroutines import start
from ..hosts import outer_path
from ..lifespan import Application, Receive, Scope, Send

MAX_CACHED_PATH = 256
"""Characters of the longest path whose place is cached."""

MAX_CACHED_PLACES = 4096
"""Paths whose places are cached."""

MAX_CACHED_VALUES = 1024
"""Bytes of the headers of a proxy up to which their meaning is cached."""

NOT_ROUTED: dict[str, Any] = {}
"""Stands for the keys that routers set where there are no routers."""

Address = tuple[str, int]


class StreamApplication(Protocol):
    """An application with streams, `DurableStreams`."""

    prefix: str | None

    def stream_path(self, scope: Scope) -> str | None:
        """Return the path of the stream that a request is for, or None if it is for no stream."""

    def path_below(self, root_path: str | None, path: str) -> str | None:
        """Return the same for a request that no router has passed on."""


class Place(NamedTuple):
    """A stream as routing has found it."""

    path: str
    """The path of the stream, below the root of the streams."""
    outer_path: str
    """The path in the stream's URL."""
    routed: dict[str, Any]
    """The keys of the scope that routers have set. All requests for the path share them: copy them for a scope."""


class Mount:
    """The streams in an application, and the server's rules for the headers of proxies.

    Args:
        application: the application that the server runs.
        root_path: the server's root path, which it puts before the path of each request.
        kind: the class of applications with streams. A subclass with another `__call__` may do more with each request,
            and one with another `stream_path` may look at more than the path.

    Attributes:
        has_streams: whether some requests go from the server to the streams without passing any other application.
    """

    def __init__(self, application: object, root_path: str, kind: type[StreamApplication]) -> None:
        self.root_path = root_path
        self.has_streams = False
        self._forwarding, inner = _split(application)
        self._kind = kind
        self._copy = self._copied(inner)
        self._streams = inner if self._is_ours(inner) else None
        if self._streams is not None and self._streams.prefix is None:
            self.has_streams = False  # Django's URLs serve them
        self._cached_place = lru_cache(MAX_CACHED_PLACES)(self._find)

    def place(self, path: str, *, is_new: bool = False) -> Place | None:
        """Return the stream to which a path leads, or None if the path leads elsewhere.

        Args:
            path: the path of the request, percent-decoded, without the root path.
            is_new: whether the path is not expected again.
        """
        return self._find(path) if is_new or len(path) > MAX_CACHED_PATH else self._cached_place(path)

    def forwarded(
        self, client: Address | None, scheme: str | None, forwarded_for: bytes | None, proto: bytes | None
    ) -> tuple[Address | None, str | None]:
        """Return the address of the client and the scheme, as the server tells them to its application.

        Args:
            client, scheme: those of the connection.
            forwarded_for, proto: the headers `X-Forwarded-For` and `X-Forwarded-Proto`, of which there is one at least.
        """
        if not self._forwarding:
            return client, scheme
        is_long = len(forwarded_for or b"") + len(proto or b"") > MAX_CACHED_VALUES
        apply = _apply.__wrapped__ if is_long else _apply
        return apply(self._forwarding, client, scheme, forwarded_for, proto)

    def _find(self, path: str) -> Place | None:
        root_path = self.root_path
        full_path = root_path + path
        if self._streams is not None:
            stream_path, routed = self._streams.path_below(root_path, full_path), NOT_ROUTED
        else:
            scope: Scope = {"type": "http", "root_path": root_path, "path": full_path}
            called = _call(self._copy, scope)
            if called is None:
                return None
            application, inner_scope = called
            routed = {key: value for key, value in inner_scope.items() if key not in scope}
            stream_path = application.stream_path(inner_scope)
        return None if stream_path is None else Place(stream_path, outer_path(root_path, full_path), routed)

    def _is_ours(self, application: object) -> TypeGuard[StreamApplication]:
        kind = self._kind
        if not isinstance(application, kind):
            return False
        own = type(application)
        # A subclass may find streams in its own way.
        return all(getattr(own, name) is getattr(kind, name) for name in ("__call__", "stream_path", "path_below"))

    def _copied(self, application: Any) -> Application:
        """Return a copy of an application. Where it would call streams, or something else, it raises `_Called`."""
        if self._is_ours(application):
            self.has_streams = True
            return _Recorder(application)
        routing = sys.modules.get("channels.routing")
        if routing is None:
            return _Recorder(None)
        if type(application) is routing.ProtocolTypeRouter:
            return self._copied(application.application_mapping.get("http"))
        if type(application) is routing.URLRouter and all(_is_pure(route.pattern) for route in application.routes):
            router = copy(application)
            router.routes = [self._copied_route(route) for route in application.routes]
            return cast("Application", router)
        return _Recorder(None)

    def _copied_route(self, route: Any) -> Any:
        copied = copy(route)
        copied.callback = self._copied(route.callback)
        return copied


class _Called(BaseException):
    """Ends the call of a copy. Not an Exception, so that no router takes it for an error of its own."""

    def __init__(self, application: Any, scope: Scope) -> None:
        self.application = application
        self.scope = scope


class _Recorder:
    """Stands in place of an application in a copy, and says that it would have been called."""

    def __init__(self, application: object) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise _Called(self._application, scope)


def _call(application: Application, scope: Scope) -> tuple[Any, Scope] | None:
    """Return the streams that an application calls, and the scope that they get. None: it calls something else."""
    try:
        start(application(scope, _no_receive, _no_send))  # type: ignore[arg-type]
    except _Called as call:
        return (call.application, call.scope) if call.application is not None else None
    except (ValueError, Resolver404):  # there is no route
        return None
    return None


async def _no_receive() -> Any:
    raise NotImplementedError


async def _no_send(message: Any) -> None:
    raise NotImplementedError


def _is_pure(pattern: object) -> bool:
    """Return whether the matches of a URL pattern depend on the path alone, and not on the language or other code."""
    if type(pattern) is RoutePattern:
        text: object = pattern._route  # type: ignore[attr-defined]
    elif type(pattern) is RegexPattern:
        text = pattern._regex  # type: ignore[attr-defined]
    else:
        return False
    converters = pattern.converters.values()
    return isinstance(text, str) and all(type(one).__module__ == "django.urls.converters" for one in converters)


def _split(application: object) -> tuple[tuple[ProxyHeadersMiddleware, ...], object]:
    """Return the server's middleware for the headers of proxies, from the outermost on, and the application inside."""
    forwarding: list[ProxyHeadersMiddleware] = []
    while type(application) is ProxyHeadersMiddleware:
        middleware = copy(application)
        application = middleware.app
        middleware.app = _Recorder(None)  # type: ignore[assignment]
        forwarding.append(middleware)
    return tuple(forwarding), application


@lru_cache(maxsize=1024)
def _apply(
    forwarding: tuple[ProxyHeadersMiddleware, ...],
    client: Address | None,
    scheme: str | None,
    forwarded_for: bytes | None,
    proto: bytes | None,
) -> tuple[Address | None, str | None]:
    pairs = [(b"x-forwarded-for", forwarded_for), (b"x-forwarded-proto", proto)]
    header_list = [(name, value) for name, value in pairs if value is not None]
    scope: Scope = {"type": "http", "client": client, "scheme": scheme, "headers": header_list}
    for middleware in forwarding:
        try:
            start(middleware(scope, _no_receive, _no_send))  # type: ignore[arg-type]
        except _Called as call:
            scope = call.scope
    return scope["client"], scope["scheme"]
