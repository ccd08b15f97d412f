"""The codes with which the server closes a socket (RFC 6455, section 7.4.1, and the registry of codes)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..lifespan import Message

POLICY_VIOLATION, TOO_LARGE, INTERNAL_ERROR, SERVICE_RESTART, TRY_AGAIN_LATER = 1008, 1009, 1011, 1012, 1013

PRIVATE_CODES = 3000
"""Is added to a code where a server refuses it. Daphne takes only 1000 and the codes from 3000 on."""


async def close(send: Callable[[Message], Awaitable[None]], code: int, reason: str) -> None:
    """Close a socket.

    Raises:
        OSError: the client takes no data, or has left.
    """
    message: Message = {"type": "websocket.close", "code": code, "reason": reason}
    try:
        await send(message)
    except OSError:
        raise
    except Exception:
        await send({**message, "code": code + PRIVATE_CODES})
