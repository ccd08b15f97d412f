"""The ceiling: what the ASGI server can do when the application does nothing. No Django, no streams.

Served by the same uvicorn command line as the real server. Any GET gets the same 1,000 bytes, any other
request is read to its end and answered with 204.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

BODY = b"x" * 1000
GET_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/octet-stream"), (b"content-length", b"1000")],
}
OTHER_START: Message = {
    "type": "http.response.start",
    "status": 204,
    "headers": [(b"cache-control", b"no-store")],
}


async def application(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        # uvicorn takes an application that fails at the lifespan scope for one that does not have it.
        raise NotImplementedError(scope["type"])
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body"):
            break
    reading = scope["method"] == "GET"
    await send(GET_START if reading else OTHER_START)
    await send({"type": "http.response.body", "body": BODY if reading else b""})
