"""Decides which connections a running uvicorn makes: ours with the fast path, ours without it, or its own.

Knows uvicorn's configuration. How a connection answers requests is unknown here.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, cast

import httptools  # noqa: F401  without it, uvicorn parses requests with h11, and the ImportError says so
import uvicorn

if TYPE_CHECKING:
    from .mount import StreamApplication

logger = logging.getLogger(__name__)


def install(server: object, kind: type[StreamApplication]) -> None:
    """Let uvicorn make our connections from now on.

    Connections have the fast path if streams are the server's application, or are found inside Channels' routers. If
    another wrapper stands in front of them, connections have limits and deadlines only. If this uvicorn lacks a part
    that they build on, uvicorn makes its own connections, and the log says so.

    Args:
        server: the object of uvicorn's that has called the application, for its lifespan or for a request.
        kind: the class of applications with streams.
    """
    try:
        _install(server, kind)
    except ImportError as error:
        _warn(f"{error}.")


def _install(server: object, kind: type[StreamApplication]) -> None:
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
    from .connection import CountedConnection
    from .fast_path import FastPathConnection
    from .mount import Mount

    mount = Mount(config.loaded_app, config.root_path, kind)
    if mount.has_streams:
        config.http_protocol_class = cast("type[asyncio.Protocol]", partial(FastPathConnection, mount=mount))
    else:
        config.http_protocol_class = CountedConnection


def _warn(reason: str) -> None:
    logger.warning(
        "The fast path cannot be used with uvicorn %s. %s Requests go through ASGI, and connections have no limits. "
        "Install a version that the extra django-durable-streams[uvicorn] allows.",
        uvicorn.__version__,
        reason,
    )
