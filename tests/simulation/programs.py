"""Python programs inside the simulated processes, as views and commands are: transactions, and tails."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from django.db import Error, connections, transaction

from . import primitives
from .history import DONE, JSON, MAYBE, NEVER, Session, Write, tokens
from .network import Server

if TYPE_CHECKING:
    from .program import Path
    from .world import World


class Undo(Exception):
    """A program changes its mind."""


class Transactions:
    """A program that appends in transactions of its own, and does other things in them.

    It goes on in the process that comes after the one that was killed.
    """

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.left = world.program.operations
        self._world = world
        self._rng = random.Random(f"{world.program.seed}/{name}")
        self._writes: list[Write] = []

    def run(self) -> None:
        """Work until all is done."""
        while self.left > 0:
            primitives.sleep(self._world.program.pace * self._rng.random())
            self.left -= 1
            others = [self._instance] * self._world.program.instances + [self._save] * self._world.program.saves
            self._rng.choice([self._transaction, self._transaction, *others])()
            connections.close_all()

    def was_killed(self) -> None:
        """What was under way has happened or not."""
        for write in self._writes:
            if write.ended is None:
                self._world.history.wrote(write, MAYBE, "killed")
        self._writes = []

    def _transaction(self) -> None:
        """Append some in one transaction."""
        history = self._world.history
        done: list[Write] = []
        undone: list[Write] = []
        self._writes = []
        outcome, why = NEVER, ""
        try:
            with transaction.atomic():
                for _ in range(self._rng.choice((1, 2, 3))):
                    if self._rng.random() < 0.2:
                        try:
                            with transaction.atomic():
                                self._append(undone)
                                raise Undo
                        except Undo:
                            if transaction.get_rollback():
                                raise  # the way back to the savepoint was lost: Django will undo all, and not say so
                    else:
                        self._append(done)
                    self._hold()
                if self._rng.random() < 0.2:
                    raise Undo
            outcome = DONE
        except (Undo, self._world.refusal, self._world.models.Stream.DoesNotExist) as error:
            why = repr(error)
        except Error as error:
            why = repr(error)
            # An error of SQLite says that nothing was committed. From others the answer may have been lost.
            outcome = NEVER if connections["default"].vendor == "sqlite" else MAYBE
        except Exception as error:
            why, outcome = self._strange(error), MAYBE
        for write in done:
            history.wrote(write, outcome, why)
        for write in undone:
            history.wrote(write, NEVER, "rolled back to its savepoint")

    def _instance(self) -> None:
        """Keep an instance for a while and append with it: there may be another stream at its path by then."""
        path, history = self._rng.choice(self._world.program.paths), self._world.history
        self._writes = []
        try:
            stream = self._world.models.Stream.objects.get(path=path.name)
            loaded = history.moment()  # not before: there may be another stream by the time that the database looks
            primitives.sleep(self._rng.random())
            write = history.write(path.name, self.name, note="by an instance")
            write.loaded = loaded
            self._writes.append(write)
            stream.append(f"<{write.tokens[0]}:>")
            history.wrote(write, DONE)
        except Error as error:
            self._give_up(MAYBE, error)
        except (self._world.models.Stream.DoesNotExist, self._world.refusal) as error:
            self._give_up(NEVER, error)
        except Exception as error:
            self._give_up(MAYBE, error)
            self._strange(error)

    def _strange(self, error: Exception) -> str:
        """A caller is given Django's errors and the package's own, and no others."""
        self._world.history.fault(f"{self.name} was given {error!r}, which is no error that callers know")
        return repr(error)

    def _save(self) -> None:
        """Save an instance that was loaded a while ago: most of its row is not the program's to write."""
        path = self._rng.choice(self._world.program.paths)
        self._world.history.note(self.name, f"save {path.name}")
        try:
            stream = self._world.models.Stream.objects.get(path=path.name)
            primitives.sleep(self._rng.random())
            stream.save()
        except Exception as error:  # how it is refused is for others to say
            self._world.history.note(self.name, f"save {path.name}: {error!r}")

    def _give_up(self, outcome: str, error: Exception) -> None:
        for write in self._writes:
            self._world.history.wrote(write, outcome, repr(error))
        self._writes = []

    def _append(self, writes: list[Write]) -> None:
        path: Path = self._rng.choice(self._world.program.paths)
        stream = self._world.models.Stream.objects.get(path=path.name)
        write = self._world.history.write(path.name, self.name)
        writes.append(write)
        self._writes.append(write)
        text = f"<{write.tokens[0]}:{'abcdefgh' * (self._world.size(self._rng) // 8)}>"
        stream.append(text)

    def _hold(self) -> None:
        faults = self._world.faults
        if faults.happens(faults.rates.held_lock):
            primitives.sleep(self._rng.choice((0.05, 0.5, 1.5, 3.0)) * self._rng.random())


class LiveTailView:
    """A program that follows a stream, synchronously."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self._world = world
        self._rng = random.Random(f"{world.program.seed}/{name}")
        self._path: Path = self._rng.choice([path for path in world.program.paths if path.lasting])
        self.session: Session = world.history.session(self._path.name, name, "-1")

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to read, nor will be."""
        return self._world.is_end(self._path.name, self.session.offset)

    def run(self, server: Server) -> None:
        """Read until the world says that there is no more, and everything was read."""
        from django_durable_streams.protocol.errors import ServiceUnavailable

        while not self.is_done and server.is_up:
            try:
                stream = self._world.models.Stream.objects.get(path=self._path.name)
                for page in stream.tail(self.session.offset, timeout=1.0):
                    result = tokens(JSON, _as_json(page.messages))
                    self._world.history.read(self.session, result, page.next_offset, f"tail in {server.process}")
            except (Error, ServiceUnavailable) as error:
                self._world.history.note(self.name, f"tail of {self._path.name}: {error!r}")
            connections.close_all()
            primitives.sleep(0.2)


def _as_json(messages: list[Any]) -> bytes:
    import json

    return json.dumps([one.decode() if isinstance(one, bytes) else one for one in messages]).encode()
