"""Forks of streams that are written to, and of forks: which data each begins with, whatever becomes of its source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .checks import Final, check_appends
from .clients import Client, headers_of
from .history import DONE, MAYBE, NEVER, Change, History, Write, body
from .network import Answer, Lost, Refused
from .program import Path

if TYPE_CHECKING:
    from .world import World


@dataclass
class Fork:
    """A stream that begins with the data of another.

    source: a stream of the program, or an earlier fork.
    cut: the append after which it was cut; None: at the end of its source.
    """

    path: Path
    source: Path | Fork
    cut: Write | None
    change: Change
    is_deleted: bool = False
    """Somebody has asked for it."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def content_type(self) -> str:
        return self.path.content_type


class Forker(Client):
    """Makes forks at paths that nobody else uses, one of the other, appends to them, and deletes some."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.forks: list[Fork] = []

    async def run(self) -> None:
        for number in range(self.world.program.operations):
            kind = self.rng.choice(("fork", "append", "append", "delete"))
            there = [fork for fork in self.forks if not fork.is_deleted]
            if kind == "fork" or not there:
                await self._fork(f"{self.name}-{number}", there)
            elif kind == "append":
                await self._append(self.rng.choice(there))
            elif len(there) > 1:
                await self._delete(self.rng.choice(there))
            await self.rest()

    async def _fork(self, name: str, there: Sequence[Fork]) -> None:
        lasting: list[Path | Fork] = [path for path in self.world.program.paths if path.lasting]
        source = self.rng.choice([*lasting, *there])
        cuts = self.world.cuts.get(source.name)
        offset, cut = self.rng.choice(cuts) if cuts and self.rng.random() < 0.5 else (None, None)
        headers = {"stream-forked-from": f"/v1/stream/{source.name}"}
        if offset is not None:
            headers["stream-fork-offset"] = offset
        fork = Fork(Path(name, source.content_type, True), source, cut, self.history.change("fork", name, self.name))
        if await self._change(fork.change, "PUT", headers, (201,)):
            self.forks.append(fork)

    async def _delete(self, fork: Fork) -> None:
        fork.is_deleted = True  # an answer that is lost does not undo it
        await self._change(self.history.change("delete", fork.name, self.name), "DELETE", {}, (204,))

    async def _change(self, change: Change, method: str, headers: dict[str, str], good: tuple[int, ...]) -> bool:
        """Change a stream that only this client uses, and return whether it is certain to be changed."""
        try:
            answer = await self.ask(self.server(), method, change.path, headers)
        except Refused:
            self.history.changed(change, NEVER, "refused")
        except Lost:
            self.history.changed(change, MAYBE, "lost")
        else:
            self.history.changed(change, self._outcome(change, answer, good), answer.status)
        return change.outcome == DONE

    def _outcome(self, change: Change, answer: Answer, good: tuple[int, ...]) -> str:
        if answer.status in good:
            return DONE
        if answer.status != 503:
            self.unexpected(f"{change.kind} {change.path}", answer)
        return MAYBE

    async def _append(self, fork: Fork) -> None:
        write = self.history.write(fork.name, self.name)
        data = body(fork.content_type, write.tokens, self.world.size(self.rng))
        try:
            answer = await self.ask(self.server(), "POST", fork.name, headers_of(fork.path), data)
        except Refused:
            self.history.wrote(write, NEVER, "refused")
            return
        except Lost:
            self.history.wrote(write, MAYBE, "lost")
            return
        done = answer.status in (200, 204)
        self.history.wrote(write, DONE if done else MAYBE, answer.status)
        if done:
            self.world.offset_seen(fork.name, answer.headers["stream-next-offset"], write)
        elif answer.status != 503:
            self.unexpected(f"append {write.tokens} to {fork.name}", answer)


def check_forks(history: History, forks: Sequence[Fork], final: Mapping[str, Final | None]) -> Iterator[str]:
    """Yield what is wrong with the data of forks."""
    owners = {token: write.path for write in history.writes for token in write.tokens}
    for fork in forks:
        result = final.get(fork.name)
        if result is None:
            if not fork.is_deleted:
                yield f"{fork.name} is gone"
            continue
        yield from _check_fork(history, fork, result.tokens, owners, final)


def _check_fork(
    history: History,
    fork: Fork,
    tokens: Sequence[int],
    owners: Mapping[int, str],
    final: Mapping[str, Final | None],
    *,
    all_there: bool = True,
) -> Iterator[str]:
    own = [token for token in tokens if owners[token] == fork.name]
    inherited = list(tokens[: len(tokens) - len(own)])
    if [*inherited, *own] != list(tokens):
        yield f"{fork.name} has data of its source between its own: {tokens}"
        return
    yield from check_appends(history, fork.path, own, all_there=all_there)
    yield from _check_cut(history, fork, inherited)
    source = final.get(fork.source.name)
    if source is not None:
        if source.tokens[: len(inherited)] != inherited:
            yield f"{fork.name} begins with {inherited}, and its source {fork.source.name} with {source.tokens}"
    elif isinstance(fork.source, Fork):
        # The source is deleted, and its data is kept for this fork.
        yield from _check_fork(history, fork.source, inherited, owners, final, all_there=False)


def _check_cut(history: History, fork: Fork, inherited: Sequence[int]) -> Iterator[str]:
    """What was there when the fork was made, and that alone, is in it."""
    if fork.cut is not None:
        if list(inherited[-1:]) != fork.cut.tokens[-1:]:
            yield f"{fork.name} was cut after {fork.cut.tokens} of {fork.source.name} and begins with {inherited}"
        return
    there = set(inherited)
    for write in history.writes:
        if write.path != fork.source.name or write.outcome != DONE:
            continue
        assert write.ended is not None
        assert fork.change.ended is not None
        if write.ended < fork.change.began and write.tokens[0] not in there:
            yield f"{fork.name} lacks {write.tokens}, which was in {fork.source.name} before it"
        elif write.began > fork.change.ended and write.tokens[0] in there:
            yield f"{fork.name} has {write.tokens}, which came to {fork.source.name} after it"
