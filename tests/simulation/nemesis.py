"""What happens to whole processes, to Redis, to the database and to the clock."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from typing import TYPE_CHECKING

from django.conf import settings

from .broker import Broker

if TYPE_CHECKING:
    from .world import World


class Nemesis:
    """Does it, for as long as anything goes wrong.

    Args:
        is_sqlite: whether the database is a file.
    """

    def __init__(self, world: World, broker: Broker, is_sqlite: bool) -> None:
        self._world = world
        self._broker = broker
        self._is_sqlite = is_sqlite
        self._rng = random.Random(f"{world.program.seed}/world")

    async def run(self) -> None:
        """What happens to whole processes, to Redis and to the clock."""
        rates, rng = self._world.program.rates, self._rng
        while self._world.faults.active:
            await asyncio.sleep(1.0 * rng.random())
            if self._world.faults.happens(rates.killed_process):
                number = rng.randrange(len(self._world.servers))
                await self._replace(number, gently=rng.random() < 0.3)
            if self._world.faults.happens(rates.redis_down):
                self._world.history.note("world", "Redis goes down")
                self._broker.go_down()
                await asyncio.sleep(2.0 * rng.random())
                self._broker.come_back()
                self._world.history.note("world", "Redis comes back")
            if self._is_sqlite and self._world.faults.happens(rates.held_database):
                await self._hold_database(2.5 * rng.random())
            if self._world.faults.happens(rates.clock_jump):
                jump = rng.choice((-1, 1)) * rng.choice((0.1, 3.0)) * rng.random()
                self._world.history.note("world", f"the clock jumps by {jump:.3f} s")
                self._world.scheduler.skew += jump

    async def _hold_database(self, seconds: float) -> None:
        """Hold SQLite's lock, as a backup does, or a command that loads data."""
        connection = sqlite3.connect(settings.DATABASES["default"]["NAME"], timeout=0.0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:  # somebody writes
            return
        else:
            self._world.history.note("world", f"somebody holds the database for {seconds:.3f} s")
            await asyncio.sleep(seconds)
            connection.execute("ROLLBACK")
            self._world.history.note("world", "nobody holds the database any more")
        finally:
            connection.close()

    async def _replace(self, number: int, *, gently: bool) -> None:
        """End a process, and start another one in its place."""
        server = self._world.servers[number]
        if gently:
            self._world.history.note("world", f"{server.process} is asked to end")
            await self._world.end(server)
        self._world.history.note("world", f"{server.process} is killed")
        server.process.kill()
        await asyncio.sleep(1.0 * self._rng.random())
        server = self._world.servers[number] = self._world.start(
            f"{server.process.name.split('.')[0]}.{self._world.history.moment()}"
        )
        while not server.is_up:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._world.start_programs(number, server)
