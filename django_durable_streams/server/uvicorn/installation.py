"""Decides which connections a running uvicorn makes: ours with the fast path, ours without it, or its own.

Knows uvicorn's configuration. How a connection answers requests is unknown here.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import cast

import httptools  # noqa: F401  without it, uvicorn parses requests with h11, and the ImportError says so
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

logger = logging.getLogger(__name__)


def install(application: object, prefix: str | None, server: object) -> None:
    """Let uvicorn make our connections from now on.

    Connections have the fast path if the server's application is `application` itself. If a wrapper stands in front of
    it, or it serves no streams below a prefix, connections have limits and deadlines only. If this uvicorn lacks a part
    that they build on, uvicorn makes its own connections, and the log says so.

    Args:
        prefix: the path below which the application has its streams, or None.
        server: the object of uvicorn's that has called the application, for its lifespan or for a request.
    """
    try:
        _install(application, prefix, server)
    except ImportError as error:
        _warn(f"{error}.")


def _install(application: object, prefix: str | None, server: object) -> None:
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

    from .compatibility import missing_parts

    if isinstance(server, RequestResponseCycle):  # without a lifespan, a request installs the connections
        server = server.transport.get_protocol()
    config = getattr(server, "config", None)
    if not isinstance(config, Config) or config.http_protocol_class is not HttpToolsProtocol:
        return
    missing = missing_parts(config)
    if missing:
        _warn("It has no " + ", ".join(missing) + ".")
        return
    from .connection import Connection
    from .fast_path import FastPathConnection

    loaded: object = config.loaded_app
    if isinstance(loaded, ProxyHeadersMiddleware):  # the fast path leaves the heads that it changes to uvicorn
        loaded = loaded.app
    is_alone = loaded is application and config.limit_concurrency is None and not config.root_path
    if is_alone and prefix is not None:
        config.http_protocol_class = cast("type[asyncio.Protocol]", partial(FastPathConnection, prefix=prefix))
    else:
        config.http_protocol_class = Connection


def _warn(reason: str) -> None:
    logger.warning(
        "The fast path cannot be used with uvicorn %s. %s Requests go through ASGI, and connections have no limits. "
        "Install a version that the extra django-durable-streams[uvicorn] allows.",
        uvicorn.__version__,
        reason,
    )
