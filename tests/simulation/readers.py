"""Those who read the streams over HTTP, from some offset on to the end, however often they are interrupted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.event_stream import parse

from .clients import ANSWER_SECONDS, Client
from .history import Session, Torn, event_tokens, tokens
from .network import Answer, Exchange, Lost, Refused

if TYPE_CHECKING:
    from .program import Path
    from .world import World

LONG_POLL_SECONDS = 4.0
SSE_SECONDS = 15.0
"""How long live reads last: as the settings say."""


class Gone(Exception):
    """The stream is not there, or the offset is not one of it."""


class Reader(Client):
    """Reads one stream, by one mode after the other."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.path: Path = self.rng.choice(world.program.paths)
        self.is_waiting = False
        """It is in a live read, and has all that it was sent."""
        self.session: Session
        self._modes = self.rng.choice((("catch-up",), ("long-poll",), ("sse",), ("catch-up", "long-poll", "sse")))
        self._is_closed = False

    async def run(self) -> None:
        """Read until the world says that there is no more, and everything was read."""
        self.session = self.history.session(self.path.name, self.name, await self._start())
        while not self.is_done:
            before = self.session.offset
            try:
                await self._read(self.rng.choice(self._modes))
                if self.session.offset == before:
                    await asyncio.sleep(0.3)
            except (Lost, Refused):
                await asyncio.sleep(0.1)
            except Gone:
                self.session = self.history.session(self.path.name, self.name, "-1")
                await asyncio.sleep(0.3)
            except Torn as error:
                self.history.fault(f"{self.name}: torn data in {self.path.name} past {self.session.offset}: {error}")
                return
        self.session.ended = "read to the end"

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to read, nor will be."""
        return self.world.is_end(self.path.name, self.session.offset)

    @property
    def is_behind(self) -> bool:
        """Whether it waits though there is something for it, as the world knows it now."""
        return self.is_waiting and self.world.final is not None and not self.is_done

    async def _start(self) -> str:
        """Return the offset from which to read: the start mostly, and else one that somebody was given."""
        await self.rest()
        offsets = self.world.offsets.get(self.path.name)
        return self.rng.choice(offsets) if offsets and self.rng.random() < 0.4 else "-1"

    async def _read(self, mode: str) -> None:
        target = f"{self.path.name}?offset={self.session.offset}"
        if mode != "catch-up":
            target += f"&live={mode}"
        exchange = self.send(self.server(), "GET", target)
        if mode == "sse":
            await self._follow(exchange, target)
            return
        self.is_waiting = mode == "long-poll"
        try:
            answer = await self.answer(exchange, f"GET {target}")
        finally:
            self.is_waiting = False
        self._check(answer, target)
        if answer.status == 204:
            self._move(answer.headers["stream-next-offset"])
            return
        result = tokens(self.path.content_type, answer.body)
        after = answer.headers["stream-next-offset"]
        self.history.read(self.session, result, after, f"{mode} at {exchange.server.process}")
        if not result or mode == "catch-up":
            await asyncio.sleep(0.05 + 0.5 * self.rng.random())

    def _check(self, answer: Answer, target: str) -> None:
        """See that an answer is one with data, or says that there is none.

        Raises:
            Gone, Lost
        """
        if answer.status in (200, 204):
            return
        if answer.status == 503:
            raise Lost
        if self.path.lasting or answer.status not in (400, 404, 410):
            self.unexpected(f"GET {target}", answer)
        raise Gone

    def _move(self, after: str) -> None:
        """An empty answer names a place as well. It must be the one that was asked for."""
        if after != self.session.offset and self.session.offset != "-1":
            self.history.fault(f"{self.name}: an empty answer past {self.session.offset} goes on at {after}")
        self.history.read(self.session, [], after, "empty")

    async def _follow(self, exchange: Exchange, target: str) -> None:
        """Read events until the response ends."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, _ = await exchange.head()
            if status != 200:
                async with asyncio.timeout(ANSWER_SECONDS):
                    self._check(await exchange.answer(), target)
            async with asyncio.timeout(SSE_SECONDS + ANSWER_SECONDS):
                await self._events(exchange)
        except TimeoutError:
            self.history.fault(f"{self.name}: the event stream {target} did not begin, or did not end")
            raise Lost from None
        finally:
            self.is_waiting = False
            exchange.leave()

    async def _events(self, exchange: Exchange) -> None:
        faults = self.world.faults
        raw = b""
        while not self.is_done:
            self.is_waiting = not raw
            chunk = await exchange.chunk()
            self.is_waiting = False
            if not chunk:
                return
            whole, end, raw = (raw + chunk).rpartition(b"\n\n")
            data: list[int] = []
            for event in parse(whole + end).events:
                if event.kind == "data":
                    data = event_tokens(self.path.content_type, event.data)
                else:
                    after = event.fields["streamNextOffset"]
                    self.history.read(self.session, data, after, f"sse at {exchange.server.process}")
                    data = []
            if data:
                self.history.fault(f"{self.name}: a data event {data} without a control event behind it")
            if faults.happens(faults.rates.disconnect):
                return
