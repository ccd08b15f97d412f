"""Those who use the streams over HTTP: writers, producers that repeat what was not answered, makers."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from .history import DONE, MAYBE, NEVER, Write, body
from .network import Answer, Exchange, Lost, Refused, Server

if TYPE_CHECKING:
    from .program import Path
    from .world import World

ANSWER_SECONDS = 60.0
"""Virtual seconds in which every request that does not stay has to be answered."""

ATTEMPTS = 60
"""How often a producer repeats a request."""


class Client:
    """Somebody who sends requests.

    Args:
        home: the number of the server that it uses most.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.history = world.history
        self.rng = random.Random(f"{world.program.seed}/{name}")
        self.home = self.rng.randrange(len(world.servers))

    def server(self) -> Server:
        """Return the server to ask."""
        servers = self.world.servers
        return servers[self.home] if self.rng.random() < 0.7 else self.rng.choice(servers)

    async def rest(self) -> None:
        """Wait before the next operation."""
        pace = self.world.program.pace
        await asyncio.sleep(self.rng.choice((0.0, 0.1, 1.0)) * self.rng.random() * pace)

    def send(
        self, server: Server, method: str, target: str, headers: dict[str, str] | None = None, data: bytes = b""
    ) -> Exchange:
        """Send a request. Those to one server arrive in their order.

        Raises:
            Refused
        """
        return self.world.network.open(self.name, server, method, target, headers or {}, data)

    async def answer(self, exchange: Exchange, what: str, *, may_leave: bool = True) -> Answer:
        """Return the answer to a request.

        Raises:
            Lost: there will not be one.
        """
        faults = self.world.faults
        limit = ANSWER_SECONDS
        leaves = may_leave and faults.happens(faults.rates.disconnect)
        if leaves:
            limit = self.rng.choice((0.0, 0.001, 0.05, 1.0)) * self.rng.random()
        try:
            async with asyncio.timeout(limit):
                answer = await exchange.answer()
        except TimeoutError:
            exchange.leave()
            if not leaves:
                self.history.fault(f"{self.name}: {what} got no answer in {limit:.0f} s")
            raise Lost from None
        except Lost:
            exchange.leave()
            raise
        return answer

    async def ask(self, server: Server, method: str, target: str, headers: dict[str, str], data: bytes = b"") -> Answer:
        """Send a request and return the answer.

        Raises:
            Lost, Refused
        """
        return await self.answer(self.send(server, method, target, headers, data), f"{method} {target}")

    def unexpected(self, what: str, answer: Answer) -> None:
        self.history.fault(f"{self.name}: {what} was answered with {answer.status}: {answer.body[:200]!r}")

    async def run(self) -> None:
        """Do what it does."""
        raise NotImplementedError


def headers_of(path: Path, **others: str) -> dict[str, str]:
    return {"content-type": path.content_type, **{name.replace("_", "-"): value for name, value in others.items()}}


class Writer(Client):
    """Appends, and does not repeat what was not answered. May send several at once."""

    async def run(self) -> None:
        program = self.world.program
        paths = [path for path in program.paths if not (path.closes and path.lasting)] or program.paths
        for _ in range(program.operations):
            path = self.rng.choice(paths)
            server = self.server()
            count = self.rng.choice((1, 1, 1, 3))
            await asyncio.gather(*[self._append(server, path) for _ in range(count)])
            await self.rest()

    def _append(self, server: Server, path: Path) -> Any:
        write = self.history.write(path.name, self.name, self.rng.choice((1, 1, 2)))
        data = body(path.content_type, write.tokens, self.world.size(self.rng))
        headers = headers_of(path)
        try:
            exchange = self.send(server, "POST", path.name, headers, data)
        except Refused:
            self.history.wrote(write, NEVER, "refused")
            return asyncio.sleep(0.1)
        return self._take(exchange, path, write)

    async def _take(self, exchange: Exchange, path: Path, write: Write) -> None:
        try:
            answer = await self.answer(exchange, f"append {write.tokens}")
        except Lost:
            self.history.wrote(write, MAYBE, "lost")
            return
        finally:
            if exchange.arrival is not None:
                write.arrivals.append((exchange.server, exchange.arrival))
        if answer.status in (200, 204):
            self.history.wrote(write, DONE, answer.status)
            self.world.offset_seen(path.name, answer.headers["stream-next-offset"], write)
        elif answer.status == 503:
            self.history.wrote(write, MAYBE, answer.body)
        else:
            self.history.wrote(write, NEVER, answer)
            if not self.world.may_be_refused(path, answer.status):
                self.unexpected(f"append {write.tokens} to {path.name}", answer)


class Producer(Client):
    """Appends exactly once: it numbers what it sends, and repeats it until it is answered. May send several at once."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._seq = 0
        self._width = self.rng.choice((1, 1, 2, 4))

    async def run(self) -> None:
        lasting = [path for path in self.world.program.paths if path.lasting]
        path = self.rng.choice(lasting)
        left = self.world.program.operations
        while left > 0:
            count = min(left, self._width)
            left -= count
            closes = path.closes and left == 0
            if not await self._window(path, count, closes):
                return
            await self.rest()

    async def _window(self, path: Path, count: int, closes: bool) -> bool:
        """Append some, and return whether to go on."""
        size = self.world.size(self.rng)
        writes = []
        for number in range(count):
            write = self.history.write(path.name, self.name, closes=closes and number == count - 1)
            write.note = f"seq {self._seq + number}"
            writes.append((self._seq + number, write))
        self._seq += count
        for _ in range(ATTEMPTS):
            writes = await self._attempt(path, writes, size)
            if not writes or writes[0][1].ended is not None:
                break
            await asyncio.sleep(self.rng.choice((0.05, 0.5, 2.0)) * self.rng.random())
        for _, write in writes:
            if write.ended is None:
                self.history.wrote(write, MAYBE, "given up")
        return not writes

    async def _attempt(self, path: Path, writes: list[tuple[int, Write]], size: int) -> list[tuple[int, Write]]:
        """Send what is not done, in order, and return what still is not."""
        server = self.server()
        sent: list[tuple[int, Write, Exchange | None]] = []
        for seq, write in writes:
            headers = headers_of(path, producer_id=self.name, producer_epoch="0", producer_seq=str(seq))
            if write.closes:
                headers["stream-closed"] = "true"
            data = body(path.content_type, write.tokens, size)
            try:
                sent.append((seq, write, self.send(server, "POST", path.name, headers, data)))
            except Refused:
                sent.append((seq, write, None))
        results = await asyncio.gather(*[self._result(seq, exchange) for seq, _, exchange in sent])
        failed = False
        left = []
        for (seq, write, exchange), answer in zip(sent, results, strict=True):
            what = f"seq {seq} of {self.name}, append {write.tokens} to {path.name}"
            if answer is not None and answer.status in (200, 204):
                if exchange is not None and exchange.arrival is not None and answer.status == 200:
                    write.arrivals.append((server, exchange.arrival))
                self.history.wrote(write, DONE, f"{answer.status} seq {seq}")
                continue
            left.append((seq, write))
            status = answer.status if answer is not None else 0
            self.history.note(self.name, f"{what}: {answer}")
            if answer is not None and status == 409 and b"Expected Producer-Seq" in answer.body:
                if not failed:
                    self.unexpected(f"{what}, with all before it accepted,", answer)
            elif status == 409 and path.closes:
                self.history.wrote(write, MAYBE if write.is_unsure else NEVER, answer)
            elif status in (0, 503):
                write.is_unsure = True
            else:
                self.unexpected(what, answer)  # type: ignore[arg-type]
            failed = True
        return left

    async def _result(self, seq: int, exchange: Exchange | None) -> Answer | None:
        if exchange is None:
            return None
        try:
            return await self.answer(exchange, f"seq {seq} of {self.name}")
        except Lost:
            return None


class Maker(Client):
    """Creates, forks and deletes streams."""

    async def run(self) -> None:
        volatile = [path for path in self.world.program.paths if not path.lasting]
        for _ in range(self.world.program.operations):
            path = self.rng.choice(volatile)
            kind = self.rng.choice(("create", "create", "delete"))
            change = self.history.change(kind, path.name, self.name)
            await self._do(path, change)
            await self.rest()

    async def _do(self, path: Path, change: Any) -> None:
        method, headers = ("PUT", headers_of(path)) if change.kind == "create" else ("DELETE", {})
        try:
            answer = await self.ask(self.server(), method, path.name, headers)
        except Refused:
            self.history.changed(change, NEVER, "refused")
        except Lost:
            self.history.changed(change, MAYBE, "lost")
        else:
            good = {"create": (200, 201), "delete": (204,)}[change.kind]
            maybe = {"create": (409,), "delete": (404, 410)}[change.kind]
            if answer.status in good:
                self.history.changed(change, DONE, answer.status)
            elif answer.status == 503:
                self.history.changed(change, MAYBE, answer.body)
            else:
                self.history.changed(change, NEVER, answer)
                if answer.status not in maybe:
                    self.unexpected(f"{change.kind} {path.name}", answer)
