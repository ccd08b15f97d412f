"""An HTTP cache as RFC 9111 allows one to be, which uses what it has kept whenever it may.

A browser has a private cache, a CDN or nginx has a shared one. Time passes only when a test says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.asgi_client import AsgiClient, Reply, encoded

# What a cache may keep without being told for how long (RFC 9110, section 15.1), and for how long this one does.
HEURISTIC = {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}
HEURISTIC_SECONDS = 3600


@dataclass
class Stored:
    """A response that is kept, the request headers that it varies on, and when it came."""

    reply: Reply
    varies: Mapping[str, str | None]
    time: float


@dataclass
class HttpCache:
    """Sends GETs through a cache. `asked` counts the requests that reached the server."""

    client: AsgiClient
    shared: bool = False
    now: float = 0.0
    asked: int = 0
    _kept: dict[str, list[Stored]] = field(default_factory=dict)

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Return the response to a GET, from the cache wherever that may be."""
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        stored = self._find(target, sent)
        if stored is None:
            return self._store(target, sent, await self._ask(target, sent))
        directives = _directives(stored.reply)
        age = self.now - stored.time
        fresh_for = _freshness(stored.reply, directives)
        if "no-cache" not in directives:
            if age < fresh_for:
                return stored.reply
            if age < fresh_for + int(directives.get("stale-while-revalidate") or 0):
                await self._revalidate(target, sent, stored)
                return stored.reply  # the old one once more: the new one is for the next who ask
        return await self._revalidate(target, sent, stored)

    async def _revalidate(self, target: str, sent: Mapping[str, str], stored: Stored) -> Reply:
        tag = stored.reply.headers.get("etag")
        reply = await self._ask(target, {**sent, "if-none-match": tag} if tag is not None else sent)
        self._kept[target].remove(stored)
        if reply.status != 304:
            return self._store(target, sent, reply)
        merged = encoded({**stored.reply.headers, **reply.headers})
        return self._store(target, sent, Reply(stored.reply.status, merged, stored.reply.body))

    async def _ask(self, target: str, sent: Mapping[str, str]) -> Reply:
        self.asked += 1
        return await self.client.request("GET", target, sent)

    def _find(self, target: str, sent: Mapping[str, str]) -> Stored | None:
        for stored in self._kept.get(target, []):
            if all(sent.get(name) == value for name, value in stored.varies.items()):
                return stored
        return None

    def _store(self, target: str, sent: Mapping[str, str], reply: Reply) -> Reply:
        directives = _directives(reply)
        vary = [name.strip().lower() for name in reply.headers.get("vary", "").split(",") if name.strip()]
        refused = "no-store" in directives or "*" in vary
        if self.shared:
            refused = refused or "private" in directives or ("authorization" in sent and "public" not in directives)
        if not refused and (reply.status in HEURISTIC or "max-age" in directives):
            varies = {name: sent.get(name) for name in vary}
            self._kept.setdefault(target, []).append(Stored(reply, varies, self.now))
        return reply


def _directives(reply: Reply) -> dict[str, str]:
    received = reply.headers.get("cache-control", "")
    return {name.lower(): value for name, value in re.findall(r"([a-zA-Z-]+)(?:=([0-9]+))?", received)}


def _freshness(reply: Reply, directives: Mapping[str, str]) -> float:
    if "max-age" in directives:
        return int(directives["max-age"])
    return HEURISTIC_SECONDS if reply.status in HEURISTIC else 0
