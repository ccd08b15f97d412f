"""Limits on the number of requests, counted in Django's cache for all processes that share it."""

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

from ..protocol import headers
from ..protocol.errors import TooManyRequests
from ..runtime.bounded_cache import BoundedCache
from . import workers
from .access_request import AccessRequest
from .base import ACTIONS, Action
from .identities import Identity

logger = logging.getLogger("django_durable_streams.access")

PREFIX = "durable-streams:rate"
"""The beginning of all keys in the cache."""

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

MAX_EXHAUSTED = 10_000
"""Callers over their limit whom a process refuses without a question to the cache. Their keys are short (`_name`)."""

_RATE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})?([smhd])")

_PLAIN = re.compile(r"[A-Za-z0-9@._-]{1,60}")


class Rate(NamedTuple):
    """A number of requests in a window of a number of seconds."""

    requests: int
    seconds: int


def parse_rate(text: str) -> Rate:
    """Return the rate that a text such as `100/s`, `1000/10m` or `5/d` says.

    Raises:
        ValueError: the text is not a rate.
    """
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"A rate must be a text such as '100/s' or '1000/10m', not {text!r}.")
    return Rate(int(match[1]), int(match[2] or 1) * UNIT_SECONDS[match[3]])


class RateLimits:
    """Counts requests by action, and by user. Requests without a user are counted by address.

    A window begins at a multiple of its length. So in a time of that length around a border, twice as many requests may
    pass. While the cache does not answer, all requests pass.

    Args:
        rates: rates by the name of an action.
        alias: the alias of the cache in `CACHES`.

    Raises:
        ValueError: an action or a rate is invalid.
    """

    def __init__(self, rates: Mapping[str, str], alias: str) -> None:
        unknown = set(rates) - set(ACTIONS)
        if unknown:
            raise ValueError(f"Rates are for {', '.join(ACTIONS)}, not {', '.join(sorted(map(str, unknown)))}.")
        self._rates = {Action(name): parse_rate(text) for name, text in rates.items()}
        self._alias = alias
        self._exhausted_windows = BoundedCache[str, int](MAX_EXHAUSTED)

    async def count(self, action: Action, identity: Identity, request: AccessRequest) -> None:
        """Count a request.

        Raises:
            TooManyRequests: the caller exceeds the rate (429, carries `Retry-After`).
        """
        rate = self._rates.get(action)
        if rate is None:
            return
        now = time.time()
        window = int(now // rate.seconds)
        key = f"{PREFIX}:{action.value}:{_name(identity, request)}"
        if self._exhausted_windows.get(key) != window:
            waiting: Awaitable[int] = workers.count(self._count, (key, window, rate.seconds))
            if await waiting <= rate.requests:
                return
            self._exhausted_windows.put(key, window)
        wait_seconds = max(1, math.ceil((window + 1) * rate.seconds - now))
        raise TooManyRequests(
            f"At most {rate.requests} in {rate.seconds} s are allowed. Try again in {wait_seconds} s.",
            ((headers.RETRY_AFTER, b"%d" % wait_seconds),),
        )

    def _count(self, items: Sequence[tuple[str, int, int]]) -> Sequence[int | Exception]:
        """Count requests with one call of the cache for each caller, and return their numbers. Runs in a thread."""
        totals: dict[tuple[str, int, int], int] = {}
        for item in items:
            totals[item] = totals.get(item, 0) + 1
        before: dict[tuple[str, int, int], int] = {}
        try:
            cache = caches[self._alias]
            for item, count in totals.items():
                caller_key, window, seconds = item
                key = f"{caller_key}:{window}"
                if cache.add(key, count, timeout=2 * seconds):
                    before[item] = 0
                else:
                    before[item] = cache.incr(key, count) - count
        except Exception as error:  # any cache backend: an outage of the cache must not stop the service
            logger.warning("Requests are not counted, because the cache fails: %s", error)
            return [0] * len(items)
        positions = []
        for item in items:
            before[item] += 1
            positions.append(before[item])
        return positions


def _name(identity: Identity, request: AccessRequest) -> str:
    if identity.is_authenticated:
        number = str(identity.user.pk)
        # Some caches refuse some characters, and a failing cache counts no requests.
        return f"user:{number if _PLAIN.fullmatch(number) else sha256(number.encode()).hexdigest()}"
    return f"address:{_network(request.address)}"


def _network(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address: its owner has all addresses of that network."""
    try:
        ip = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(ip, IPv6Address):
        return ip.ipv4_mapped.compressed if ip.ipv4_mapped is not None else ip.exploded[:19]
    return address
