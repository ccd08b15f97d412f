"""The addresses of names, asked of the system's resolver in threads of its own.

The resolver of the system blocks, and a name may belong to somebody whose name servers never answer. So these threads
are no pool that others use, there are few of them, and no process waits for them at its end. Knows nothing of rules.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from threading import Thread
from typing import Any

from ..access.webhook_hosts import Address

MAX_LOOKUPS = 32
"""Names that one resolver looks up at the same time. A lookup that nobody waits for any more counts until it ends."""

Lookup = Callable[[str, int], list[Address]]


def system_addresses(host: str, port: int) -> list[Address]:
    """Return the addresses that the system has for a name. Blocks.

    Raises:
        OSError: the name has no address, or the resolver does not answer.
    """
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [ip_address(str(sockaddr[0])) for family, _, _, _, sockaddr in entries if family in _FAMILIES]


_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Resolver:
    """Looks up names for one event loop.

    Args:
        lookup: blocks, and returns the addresses of a name or raises OSError.
    """

    def __init__(self, lookup: Lookup = system_addresses) -> None:
        self._lookup = lookup
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return all addresses of a name.

        Raises:
            OSError: the name has no address, or the resolver does not answer.
        """
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[Address]] = loop.create_future()

        def finish(addresses: list[Address] | None, error: Exception | None) -> None:
            self._slots.release()
            if result.done():  # nobody waits any more
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(addresses or [])

        def look_up() -> None:
            outcome: tuple[Any, Exception | None]
            try:
                outcome = self._lookup(host, port), None
            except Exception as error:
                outcome = None, error if isinstance(error, OSError) else OSError(f"{host} cannot be resolved: {error}")
            try:
                loop.call_soon_threadsafe(finish, *outcome)
            except RuntimeError:  # the loop was closed
                pass

        try:
            Thread(target=look_up, name="durable-streams-resolver", daemon=True).start()
        except RuntimeError as error:  # no more threads
            self._slots.release()
            raise OSError(f"{host} cannot be resolved now: {error}") from error
        return await result
