"""Streams with a TTL: they live for as long as they are used, end when they are not, and do not come back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .clients import Client, headers_of
from .history import DONE, MAYBE, NEVER, TEXT, Write, body, tokens
from .network import Answer, Lost, Refused
from .program import Path

if TYPE_CHECKING:
    from .world import World

GRACE_SECONDS = 0.5
"""How much longer than its TTL a stream may live."""

UNSURE_SECONDS = 90.0
"""Within this time a request that was not answered has happened, or never will."""


class Mortal(Client):
    """Uses one stream with a TTL, at a path that nobody else uses, by one request at a time, and rests in between.

    Its times are those of all clocks: they are not set in a run that has such a client.
    """

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._path = Path(name, TEXT, lasting=False)
        self._ttl = self.rng.choice((1, 2, 5))
        self._lives_until = 0.0
        """It is there until then: it was used, and that was answered."""
        self._may_live_until = 0.0
        """It may be there until then, by all that may have happened."""
        self._there: list[int] = []
        """Messages that are in it, if it has not ended meanwhile."""
        self._acknowledged: set[int] = set()
        self._gone: set[int] = set()
        """Messages of streams that have ended."""
        self._began = self._ended = 0.0
        """Of the last request."""
        self._could_live_until = 0.0
        """`_may_live_until` before it."""

    async def run(self) -> None:
        for _ in range(self.world.program.operations):
            await self.rng.choice((self._create, self._append, self._append, self._read))()
            await self._wait()

    async def _wait(self) -> None:
        await asyncio.sleep(self.rng.choice((0.0, 0.3, 0.9, 1.2, 3.0)) * self._ttl * self.rng.random())

    async def _create(self) -> None:
        change = self.history.change("create", self._path.name, self.name)
        answer = await self._ask("PUT", headers_of(self._path, stream_ttl=str(self._ttl)))
        outcome = DONE if answer is not None and answer.status in (200, 201) else MAYBE
        self.history.changed(change, outcome, answer)
        if answer is None:
            return
        if answer.status == 201:
            self._must_have_ended("was made anew")
            self._lives_until = self._began + self._ttl
        elif answer.status == 200:
            self._must_be_there_still("is said to be there")
        elif answer.status != 503:
            self.unexpected(f"create {self._path.name}", answer)

    async def _append(self) -> None:
        write = self.history.write(self._path.name, self.name)
        answer = await self._ask("POST", headers_of(self._path), body(TEXT, write.tokens, 8))
        self._took(write, answer)
        if answer is None or answer.status == 503:
            return
        if answer.status == 204:
            self._must_be_there_still("took an append")
            if self._ended >= self._lives_until:
                self._there = []  # a create that was not answered may have made it anew meanwhile
            self._there += write.tokens
            self._acknowledged.update(write.tokens)
            self._lives_until = self._began + self._ttl
        elif answer.status == 404:
            self._must_have_ended("takes no append")
        else:
            self.unexpected(f"append {write.tokens} to {self._path.name}", answer)

    def _took(self, write: Write, answer: Answer | None) -> None:
        outcome = MAYBE if answer is None or answer.status == 503 else DONE if answer.status == 204 else NEVER
        self.history.wrote(write, outcome, answer.status if answer is not None else "lost")

    async def _read(self) -> None:
        answer = await self._ask("GET", {}, target=f"{self._path.name}?offset=-1")
        if answer is None or answer.status == 503:
            return
        if answer.status == 404:
            self._must_have_ended("is not found")
        elif answer.status != 200:
            self.unexpected(f"GET {self._path.name}", answer)
        else:
            self._must_be_there_still("was read")
            self._check(tokens(TEXT, answer.body), is_whole=answer.headers.get("stream-up-to-date") == "true")

    def _check(self, read: list[int], *, is_whole: bool) -> None:
        self.history.note(self.name, f"read {read}")
        if self._gone.intersection(read):
            self.history.fault(f"{self.name} reads {read}, of which {self._gone.intersection(read)} have ended")
        certain = [token for token in read if token in self._there]
        if len(set(read)) < len(read) or certain != sorted(certain):
            self.history.fault(f"{self.name} reads {read}, twice or not in the order of {self._there}")
        if is_whole and self._ended < self._lives_until and certain != self._there:
            self.history.fault(f"{self.name} reads {read}, and {self._there} are there")

    async def _ask(
        self, method: str, headers: dict[str, str], data: bytes = b"", *, target: str | None = None
    ) -> Answer | None:
        """Send a request, and note when it may have been done. Return None where there is no answer."""
        now = self.world.scheduler
        self._began = now.now
        answer = None
        is_sure = True
        try:
            answer = await self.ask(self.server(), method, target or self._path.name, headers, data)
            is_sure = answer.status != 503
        except Refused:
            pass
        except Lost:
            is_sure = False
        self._ended = now.now
        self._could_live_until = self._may_live_until
        last = self._ended if is_sure else self._ended + UNSURE_SECONDS
        if answer is None or answer.status != 404:
            self._may_live_until = max(self._may_live_until, last + self._ttl + GRACE_SECONDS)
        return answer

    def _must_have_ended(self, what: str) -> None:
        """The stream has ended, or there was none: it must not have been used within its TTL."""
        if self._ended < self._lives_until:
            left = self._lives_until - self._ended
            self.history.fault(f"{self.name} {what} {left:.3f} s before the end of its TTL of {self._ttl} s")
        self._lives_until = 0.0
        self._there = []
        self._gone |= self._acknowledged

    def _must_be_there_still(self, what: str) -> None:
        """The stream is there: something must have used it within its TTL."""
        if self._began > self._could_live_until:
            late = self._began - self._could_live_until
            self.history.fault(f"{self.name} {what} {late:.3f} s after the end of its TTL of {self._ttl} s")
