"""One run: a seed's processes, clients and faults, and whether all that must hold does."""

from __future__ import annotations

import asyncio
import gc
import random
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

from django.utils import timezone

from django_durable_streams import models
from django_durable_streams.protocol.errors import DurableStreamsError

from . import broker, primitives, sqlite
from .checks import Final, check
from .clients import Maker, Producer, Writer
from .faults import Faults
from .forks import Forker, check_forks
from .history import History, Write, tokens
from .images import Bystanders, Images, Process
from .jobs import Job
from .lifetimes import Mortal
from .loops import SimulatedLoop
from .memory import by_class, left_over, objects
from .nemesis import Nemesis
from .network import Lost, Network, Refused, Server
from .preparing import Log, prepare
from .program import Path, Program
from .programs import LiveTailView, Transactions
from .readers import Reader
from .scheduler import Scheduler
from .tuning import tune

WORK_SECONDS = 600.0
"""Virtual seconds in which all that clients want has to be done."""

TOLD_SECONDS = 4.0
"""Virtual seconds after which a live reader has been told of what is there, once nothing goes wrong any more."""

IDLE_SECONDS = 12.0
"""Virtual seconds after which a process that nobody uses is at rest."""

END_SECONDS = 60.0
"""Virtual seconds in which a process has to end that was asked to: programs in it may hold the database for seconds."""

READ_SECONDS = 60.0
"""Virtual seconds in which readers have to have read all."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so. It is other threads that make it so, and virtual time costs nothing."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@dataclass
class Outcome:
    """What a run came to."""

    program: Program
    faults: list[str]
    lines: list[str]
    steps: int
    digest: int
    seconds: float
    """Virtual ones."""


class World:
    """A run.

    Args:
        database: a file, of a SQLite database with all tables; None for a server's, which is emptied.
    """

    def __init__(self, program: Program, images: Images, database: File | None) -> None:
        self.program = program
        self.models = models
        self.refusal = DurableStreamsError
        self.servers: list[Server] = []
        self.final: dict[str, Final | None] | None = None
        """How each stream is in the end, once nobody writes any more; None for one that is not there."""
        self.offsets: dict[str, list[str]] = {}
        """Offsets that clients were given."""
        self.cuts: dict[str, list[tuple[str, Write]]] = {}
        """The same of single appends, and the append before each."""
        seed = program.seed
        self.scheduler = Scheduler(random.Random(f"{seed}/schedule"), program.switching)
        self.history = History(lambda: self.scheduler.now)
        self.faults = Faults(
            self.scheduler,
            random.Random(f"{seed}/faults"),
            program.rates,
            lambda what: self.history.note("database", f"{self.scheduler.current!r}: {what}"),
        )
        self.faults.active = False
        self.network: Network
        self._unused: Counter[str] = Counter()
        self._images = images
        self._database = database
        self.broker = broker.Broker(self.faults)
        self._programs: list[Transactions | Job] = []
        self._forkers: list[Forker] = []
        self._tails: list[LiveTailView] = []
        self._process = Bystanders(self.scheduler, "clients", {})

    def run(self) -> Outcome:
        """Run it."""
        primitives.use(self.scheduler)
        sqlite.use(self.faults)
        broker.use(self.broker)
        random.seed(self.program.seed)
        prepare(self.program, self._database)
        log = Log(self.history)
        now, timezone.now = timezone.now, self._time
        with self._images, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.scheduler.run(self._process, self._run)
            finally:
                timezone.now = now
                log.remove()
        return Outcome(
            self.program,
            [*self.history.faults, *self.scheduler.failures],
            self.history.lines,
            self.scheduler.steps,
            self.scheduler.digest,
            self.scheduler.now - 1000,
        )

    def size(self, rng: random.Random) -> int:
        """Return about how many bytes a message has."""
        return rng.choice((8, 8, 8, 200, 3000))

    def offset_seen(self, path: str, offset: str, write: Write) -> None:
        """A client was told an offset."""
        self.offsets.setdefault(path, []).append(offset)
        self.cuts.setdefault(path, []).append((offset, write))

    def is_end(self, path: str, offset: str) -> bool:
        """Whether there is nothing past an offset, nor will be."""
        if self.final is None:
            return False
        final = self.final.get(path)
        return final is None or final.offset == offset or (offset == "-1" and not final.tokens)

    def may_be_refused(self, path: Path, status: int) -> bool:
        """Whether an append may be answered with a status, in view of what others do."""
        return status in (404, 410) if not path.lasting else path.closes and status == 409

    def _time(self) -> Any:
        return timezone.datetime.fromtimestamp(  # type: ignore[attr-defined]
            self.scheduler.now + self.scheduler.skew, tz=timezone.get_default_timezone()
        )

    def _run(self) -> None:
        loop = SimulatedLoop(self.scheduler)
        self.network = Network(self.scheduler, self.faults, loop)
        try:
            loop.run_until_complete(self._main())
        finally:
            if not loop.is_running():
                loop.close()

    async def _main(self) -> None:
        self.servers = [self.start(f"p{number}") for number in range(self.program.processes)]
        await self._until_up()
        for path in self.program.paths:
            if path.lasting:
                answer = await self.network.open(
                    "world", self.servers[0], "PUT", path.name, {"content-type": path.content_type}, b""
                ).answer()
                assert answer.status == 201, answer
        self.faults.active = True
        self.scheduler.stalls = self.program.rates.stall
        readers = [Reader(self, f"reader{number}") for number in range(self.program.readers)]
        reading = [self._task(reader.run()) for reader in readers]
        try:
            async with asyncio.timeout(WORK_SECONDS):
                await self._work()
        except TimeoutError:
            self.history.fault(f"what clients wanted was not done in {WORK_SECONDS:.0f} s")
        await self._heal()
        result = await self._look()
        for fault in check(self.history, self.program.paths, result):
            self.history.fault(fault)
        for forker in self._forkers:
            for fault in check_forks(self.history, forker.forks, result):
                self.history.fault(fault)
        await self._finish_reading(readers, reading, result)
        for fault in set(check(self.history, self.program.paths, result)) - set(self.history.faults):
            self.history.fault(fault)
        await self._stop()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    async def _work(self) -> None:
        """Have clients do what they want, while things go wrong."""
        program = self.program
        self._forkers = [Forker(self, f"forker{number}") for number in range(program.forkers)]
        clients = [
            *[Writer(self, f"writer{number}") for number in range(program.writers)],
            *[Producer(self, f"producer{number}") for number in range(program.producers)],
            *[Maker(self, f"maker{number}") for number in range(program.makers)],
            *[Mortal(self, f"mortal{number}") for number in range(program.mortals)],
            *self._forkers,
        ]
        self._programs = [
            *[Transactions(self, f"program{number}") for number in range(program.transactions)],
            *[Job(self, f"job{number}") for number in range(program.jobs)],
        ]
        self._tails = [LiveTailView(self, f"tail{number}") for number in range(program.tails)]
        for number, server in enumerate(self.servers):
            self.start_programs(number, server)
        nemesis = self._task(Nemesis(self, self.broker, self._database is not None).run())
        try:
            await asyncio.gather(*[self._task(client.run()) for client in clients])
            await until(lambda: not any(one.left for one in self._programs))
        finally:
            self.faults.active = False
            await nemesis

    def start(self, name: str) -> Server:
        self.history.note("world", f"{name} starts")
        process = Process(self.scheduler, name, self._images.new())
        program = self.program
        return Server(process, self.scheduler, lambda: tune(process, small=program.small, is_harsh=program.is_harsh))

    def start_again(self, number: int) -> Server:
        """Start a process in the place of one that has ended."""
        name = self.servers[number].process.name.partition(".")[0]
        server = self.servers[number] = self.start(f"{name}.{self.history.moment()}")
        return server

    def start_programs(self, number: int, server: Server) -> None:
        """Have the programs work that belong to a process."""
        for place, program in enumerate(self._programs):
            if place % len(self.servers) == number and program.left:
                program.was_killed()
                server.process.spawn(program.run, program.name)
        for place, tail in enumerate(self._tails):
            if place % len(self.servers) == number and not tail.is_done:
                server.process.spawn(lambda tail=tail: tail.run(server), tail.name)

    async def _until_up(self) -> None:
        await until(lambda: all(server.is_up or server.process.is_dead for server in self.servers))

    async def end(self, server: Server) -> None:
        """Have a process end as after SIGTERM."""
        server.stop()
        try:
            async with asyncio.timeout(END_SECONDS):
                await until(lambda: server.has_ended)
        except TimeoutError:
            self.history.fault(f"{server.process} did not end when it was asked to\n{self.scheduler.stacks()}")

    async def _heal(self) -> None:
        """Let nothing go wrong any more, and wait until what is under way is over."""
        self.history.note("world", "nothing goes wrong any more")
        self.faults.active = False
        self.scheduler.stalls = 0.0
        self.broker.come_back()
        for number, server in enumerate(self.servers):
            if server.process.is_dead:
                self.start_again(number)
        await self._until_up()
        await asyncio.sleep(6.0)

    async def _look(self) -> dict[str, Final | None]:
        """Return how all streams are in the end: every process has to see the same."""
        fresh = self.start("fresh")
        await until(lambda: fresh.is_up)
        result: dict[str, Final | None] = {}
        for path in [*self.program.paths, *(fork.path for forker in self._forkers for fork in forker.forks)]:
            result[path.name] = await self._read(fresh, path)
            for server in self.servers:
                seen = await self._read(server, path)
                if seen != result[path.name]:
                    self.history.fault(f"{server.process} sees {path.name} as {seen}, others as {result[path.name]}")
        self._unused = objects(fresh.process, by_class())
        fresh.process.kill()
        for name, final in result.items():
            self.history.note("world", f"in the end {name} is {final}")
        return result

    async def _read(self, server: Server, path: Path) -> Final | None:
        """Read a stream from its beginning."""
        got: list[int] = []
        offset = "-1"
        while True:
            exchange = self.network.open("world", server, "GET", f"{path.name}?offset={offset}", {}, b"")
            try:
                async with asyncio.timeout(READ_SECONDS):
                    answer = await exchange.answer()
            except (TimeoutError, Lost, Refused):
                self.history.fault(f"{server.process} does not answer a read of {path.name}")
                return None
            if answer.status != 200:
                if answer.status not in (404, 410):
                    self.history.fault(f"{server.process} answers a read of {path.name} with {answer}")
                return None
            try:
                got += tokens(path.content_type, answer.body)
            except ValueError as error:
                self.history.fault(f"{path.name} is torn past {offset}: {error}")
                return None
            offset = answer.headers["stream-next-offset"]
            if answer.headers.get("stream-up-to-date") == "true":
                return Final(got, offset, answer.headers.get("stream-closed") == "true")

    async def _finish_reading(
        self, readers: list[Reader], reading: list[asyncio.Task[None]], result: dict[str, Final | None]
    ) -> None:
        """Wait until all readers have read all. Live ones have to be told at once."""
        self.final = result
        await asyncio.sleep(TOLD_SECONDS)
        for reader in readers:
            if reader.is_behind:
                self.history.fault(
                    f"{reader.name} waits for news of {reader.path.name} past {reader.session.offset}, "
                    f"and is not told of {self.final[reader.path.name]}"
                )
        done, late = await asyncio.wait(reading, timeout=READ_SECONDS)
        for task in done:
            if task.exception() is not None:
                raise task.exception()
        for reader, task in zip(readers, reading, strict=True):
            if task in late:
                self.history.fault(
                    f"{reader.name} did not come to the end of {reader.path.name}, {self.final[reader.path.name]}: "
                    f"it is at {reader.session.offset}"
                )
                task.cancel()
        for tail in self._tails:
            if not tail.is_done:
                self.history.fault(f"{tail.name} did not come to the end: it is at {tail.session.offset}")

    async def _stop(self) -> None:
        """End all processes as they should be ended."""
        await asyncio.sleep(IDLE_SECONDS)
        gc.collect()  # what is in circles would count still
        for fault in self._left_over():
            self.history.fault(fault)
        for server in self.servers:
            await self.end(server)

    def _left_over(self) -> list[str]:
        """Return what the servers have kept that they should have let go of."""
        counts, streams = by_class(), self._stream_count()  # an operation may make a stream anew
        return [fault for server in self.servers for fault in left_over(server.process, counts, self._unused, streams)]

    def _stream_count(self) -> int:
        """Return how many streams there may have been."""
        program = self.program
        return len(program.paths) + program.operations * (1 + program.forkers + program.mortals)
