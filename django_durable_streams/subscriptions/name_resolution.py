"""The addresses of names, asked of the system's resolver in threads of its own.

The resolver of the system blocks, and a name may belong to somebody whose name servers never answer. So these threads
are no pool that others use, a name has one of them at most, and no process waits for them at its end. Knows nothing of
rules.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from threading import Thread

from ..access.webhook_hosts import Address
from ..runtime.bounded_cache import BoundedCache

MAX_LOOKUPS = 256
"""Names that one resolver looks up at the same time. A lookup that nobody waits for any more counts until it ends."""

MORE_LOOKUPS = 64
"""Further ones, for names that were found when they were last looked up. So thousands of names that nobody answers for
cannot keep all lookups from receivers that live."""

MAX_ANSWERED = 10_000
"""Names of which a resolver remembers that they were found."""

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
    """Looks up names for one event loop. Requests for a name share the lookup that runs, if there is one.

    Args:
        lookup: blocks, and returns the addresses of a name or raises OSError.
    """

    def __init__(self, lookup: Lookup = system_addresses) -> None:
        self._lookup = lookup
        self._running: dict[str, asyncio.Future[list[Address] | OSError]] = {}
        self._answered: BoundedCache[str, bool] = BoundedCache(MAX_ANSWERED)
        """Whether the last lookup of a name has found it."""

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return all addresses of a name.

        Raises:
            OSError: the name has no address, or the resolver does not answer, or too many lookups run.
        """
        outcome = await asyncio.shield(self._running.get(host) or self._start(host, port))
        if isinstance(outcome, OSError):
            raise OSError(str(outcome)) from outcome  # one exception for each request
        return outcome

    def _start(self, host: str, port: int) -> asyncio.Future[list[Address] | OSError]:
        """Start a lookup, and return what will be its outcome."""
        if len(self._running) >= MAX_LOOKUPS + (MORE_LOOKUPS if self._answered.get(host) else 0):
            raise OSError("Too many names are looked up.")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[Address] | OSError] = loop.create_future()

        def finish(outcome: list[Address] | OSError) -> None:
            del self._running[host]
            self._answered.put(host, not isinstance(outcome, OSError))
            if not result.done():
                result.set_result(outcome)

        def look_up() -> None:
            outcome: list[Address] | OSError
            try:
                outcome = self._lookup(host, port)
            except OSError as error:
                outcome = error
            except Exception as error:  # such as a UnicodeError for a name
                outcome = OSError(str(error))
            try:
                loop.call_soon_threadsafe(finish, outcome)
            except RuntimeError:  # the loop was closed
                pass

        try:
            Thread(target=look_up, name="durable-streams-resolver", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            raise OSError(str(error)) from error
        self._running[host] = result
        return result
