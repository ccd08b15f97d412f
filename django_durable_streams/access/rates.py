"""How often somebody may do something: counted in Django's cache, so for all processes that share it."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Awaitable, Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from django.core.cache import caches

from ..protocol.errors import TooManyRequests
from . import workers
from .access_request import AccessRequest
from .base import ACTIONS, Action
from .identities import Identity

logger = logging.getLogger("django_durable_streams.access")

PREFIX = "durable-streams:rate"

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

MAX_EXHAUSTED = 10_000
"""Callers over their limit whom a process turns away without asking the cache."""

_RATE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})?([smhd])")

_PLAIN = re.compile(r"[A-Za-z0-9@._-]{1,60}")


class Rate(NamedTuple):
    """So many requests in a window of so many seconds."""

    requests: int
    seconds: int


def parse_rate(text: str) -> Rate:
    """Read a rate such as `100/s`, `1000/10m` or `5/d`.

    Raises:
        ValueError: it is none.
    """
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"A rate is a text such as '100/s' or '1000/10m', not {text!r}.")
    return Rate(int(found[1]), int(found[2] or 1) * UNITS[found[3]])


class RateLimits:
    """Counts requests by action, and by user or, of those who are not logged in, by address.

    A window begins at a whole multiple of its length; around its border, twice as many may pass in its time. Where the
    cache does not answer, nobody is turned away.

    Args:
        given: rates by action.
        alias: of the cache.

    Raises:
        ValueError: an action or a rate means nothing.
    """

    def __init__(self, given: Mapping[str, str], alias: str) -> None:
        unknown = set(given) - set(ACTIONS)
        if unknown:
            raise ValueError(f"Rates are for {', '.join(ACTIONS)}, not {', '.join(sorted(map(str, unknown)))}.")
        self._rates = {Action(name): parse_rate(text) for name, text in given.items()}
        self._alias = alias
        self._exhausted: dict[str, int] = {}

    async def count(self, action: Action, caller: Identity, request: AccessRequest) -> None:
        """Count a request.

        Raises:
            TooManyRequests: it is one too many (429, carries `Retry-After`).
        """
        rate = self._rates.get(action)
        if rate is None:
            return
        now = time.time()
        window = int(now // rate.seconds)
        who = f"{PREFIX}:{action.value}:{_name(caller, request)}"
        if self._exhausted.get(who) != window:
            waiting: Awaitable[int] = workers.count(self._count, (who, window, rate.seconds))
            if await waiting <= rate.requests:
                return
            if len(self._exhausted) >= MAX_EXHAUSTED:
                self._exhausted.clear()
            self._exhausted[who] = window
        wait = max(1, math.ceil((window + 1) * rate.seconds - now))
        raise TooManyRequests(
            f"At most {rate.requests} in {rate.seconds} s are allowed. Try again in {wait} s.",
            ((b"retry-after", b"%d" % wait),),
        )

    def _count(self, items: Sequence[tuple[str, int, int]]) -> Sequence[int | Exception]:
        """Count requests, one call of the cache for each caller, and return the number of each. In a thread."""
        totals: dict[tuple[str, int, int], int] = {}
        for item in items:
            totals[item] = totals.get(item, 0) + 1
        before: dict[tuple[str, int, int], int] = {}
        try:
            cache = caches[self._alias]
            for item, count in totals.items():
                who, window, seconds = item
                key = f"{who}:{window}"
                if cache.add(key, count, timeout=2 * seconds):
                    before[item] = 0
                else:
                    before[item] = cache.incr(key, count) - count
        except Exception as error:  # whatever kind of cache it is: to stand still is worse than to let through
            logger.warning("Requests are not counted; the cache fails: %s", error)
            return [0] * len(items)
        found = []
        for item in items:
            before[item] += 1
            found.append(before[item])
        return found


def _name(caller: Identity, request: AccessRequest) -> str:
    if caller.is_known:
        number = str(caller.user.pk)
        # Not every cache takes every text, and where one fails nobody is counted.
        return f"user:{number if _PLAIN.fullmatch(number) else sha256(number.encode()).hexdigest()}"
    return f"address:{_network(request.address)}"


def _network(address: str) -> str:
    """An address as far as it names somebody: who has one address of IPv6 has 2**64 of them."""
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        return found.ipv4_mapped.compressed if found.ipv4_mapped is not None else found.exploded[:19]
    return address
