"""The example project's application behind a wrapper, as behind any middleware: uvicorn has no fast path then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from config.asgi import application as inner  # type: ignore[import-not-found]


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Pass everything on."""
    await inner(scope, receive, send)
