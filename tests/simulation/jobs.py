"""Python programs that write by a writer, each message once, in whichever process they are started again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from django.db import Error, connections

from . import primitives
from .history import DONE, Write

if TYPE_CHECKING:
    from .program import Path
    from .world import World


class Job:
    """A program that has some messages to write to one stream, under a name by which it finds out how far it came.

    It goes on in the process that comes after the one that was killed.
    """

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.left = world.program.operations
        """How many messages are not known to be in the stream."""
        self._world = world
        self._rng = random.Random(f"{world.program.seed}/{name}")
        paths = [path for path in world.program.paths if path.lasting]
        self._path: Path = self._rng.choice([path for path in paths if not path.closes] or paths)
        self._writes: list[Write] = []

    def was_killed(self) -> None:
        """Do nothing: the next run finds out what has happened."""

    def run(self) -> None:
        """Work until all is done. The messages are the same in each run."""
        while self.left > 0:
            primitives.sleep(self._world.program.pace * self._rng.random())
            try:
                self._write()
            except (Error, self._world.refusal) as error:
                self._world.history.note(self.name, f"fails: {error!r}")
                if self._path.closes and not isinstance(error, Error) and error.status == 409:
                    self.left = 0  # somebody has closed the stream
            connections.close_all()

    def _write(self) -> None:
        world = self._world
        stream = world.models.Stream.objects.get(path=self._path.name)
        with stream.writer(producer=self.name, close=False, interval=self._rng.choice((0.0, 0.05, 0.5))) as writer:
            self._begins(writer.written)
            for number in range(writer.written, world.program.operations):
                if number == len(self._writes):
                    self._writes.append(world.history.write(self._path.name, self.name))
                size = world.size(random.Random(f"{self.name}/{number}"))
                writer.write(f"<{self._writes[number].tokens[0]}:{'abcdefgh' * (size // 8)}>")
                if self._rng.random() < 0.3:
                    writer.flush()
                    self._is_done(number + 1)
                if self._rng.random() < 0.3:
                    primitives.sleep(world.program.pace * self._rng.random())
        self._is_done(world.program.operations)

    def _begins(self, written: int) -> None:
        """A writer says how many messages are there: all that were committed, and none that was not sent."""
        history = self._world.history
        history.note(self.name, f"begins after {written} messages")
        done_count = sum(write.outcome == DONE for write in self._writes)
        if not done_count <= written <= len(self._writes):
            history.fault(
                f"{self.name} begins after {written} messages, of {len(self._writes)}, {done_count} of them done"
            )

    def _is_done(self, count: int) -> None:
        for write in self._writes[:count]:
            if write.ended is None:
                self._world.history.wrote(write, DONE, "by a writer")
        self.left = self._world.program.operations - count
