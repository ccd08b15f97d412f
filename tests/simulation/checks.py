"""What must hold of a history: acknowledged is there once and in order, nothing is torn, no reader skips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .history import DONE, NEVER, Change, History, Session, Write
from .program import Path


@dataclass
class Final:
    """A stream as it is in the end.

    tokens: the numbers of its messages.
    offset: its end.
    """

    tokens: list[int]
    offset: str
    closed: bool


def check(history: History, paths: list[Path], final: dict[str, Final | None]) -> Iterator[str]:
    """Yield what is wrong."""
    by_token = {token: write for write in history.writes for token in write.tokens}
    for path in paths:
        writes = [write for write in history.writes if write.path == path.name]
        changes = [change for change in history.changes if change.path == path.name]
        sessions = [session for session in history.sessions if session.path == path.name]
        yield from _by_instances(path.name, writes, changes)
        result = final.get(path.name)
        if result is None:
            if path.lasting:
                yield f"{path.name} is gone"
            for session in sessions:
                yield from _session_by_itself(session, by_token)
            continue
        place = {token: number for number, token in enumerate(result.tokens)}
        yield from _whole(path.name, result, place, writes, by_token)
        yield from _there(path, place, writes, changes)
        yield from _in_order(path.name, place, writes)
        yield from _closed(path, result, writes)
        for session in sessions:
            yield from _session_by_itself(session, by_token)
            yield from _session_in(path, session, result, place, by_token)


def check_appends(history: History, path: Path, tokens: list[int], *, all_there: bool = True) -> Iterator[str]:
    """Yield what is wrong with the messages of a stream, of which nobody closes it or deletes it.

    all_there: whether what was acknowledged has to be there.
    """
    by_token = {token: write for write in history.writes for token in write.tokens}
    writes = [write for write in history.writes if write.path == path.name]
    place = {token: number for number, token in enumerate(tokens)}
    yield from _whole(path.name, Final(tokens, "", closed=False), place, writes, by_token)
    if all_there:
        yield from _there(path, place, writes, [])
    yield from _in_order(path.name, place, writes)


def _whole(
    name: str, result: Final, place: dict[int, int], writes: list[Write], by_token: dict[int, Write]
) -> Iterator[str]:
    """Each message is there once, belongs here, and is in one piece with the others of its append."""
    if len(place) < len(result.tokens):
        twice = sorted({token for token in result.tokens if result.tokens.count(token) > 1})
        yield f"{name} has messages twice: {twice}"
    for token in place:
        if by_token[token].path != name:
            yield f"{name} has message {token} of {by_token[token].path}"
    for write in writes:
        there = [place[token] for token in write.tokens if token in place]
        if there and there != list(range(there[0], there[0] + len(write.tokens))):
            yield f"{name} has the append {write.tokens} in pieces, at {there}"
        if there and write.outcome == NEVER:
            yield f"{name} has the append {write.tokens} that {write.who} was told did not happen ({write.note})"


def _there(path: Path, place: dict[int, int], writes: list[Write], changes: list[Change]) -> Iterator[str]:
    """What was acknowledged is there, unless the stream may have been deleted since."""
    for write in writes:
        if write.outcome != DONE or write.ended is None:
            continue
        deletes = [
            change
            for change in changes
            if change.kind == "delete" and change.outcome != NEVER and (change.ended or 1 << 60) > write.began
        ]
        if write.tokens[0] not in place:
            if not deletes:
                yield f"{path.name} has lost the append {write.tokens} that {write.who} was told is there"
        elif any(
            change.kind == "delete" and change.outcome == DONE and change.began > write.ended for change in changes
        ):
            yield f"{path.name} has the append {write.tokens} that was deleted"


def _by_instances(name: str, writes: list[Write], changes: list[Change]) -> Iterator[str]:
    """What is sent by an instance goes to the stream that this is, and not to another one at the same path."""
    for write in writes:
        for change in changes:
            if (
                write.loaded is not None
                and write.outcome == DONE
                and change.kind == "delete"
                and change.outcome == DONE
                and change.began > write.loaded
                and (change.ended or 0) < write.began
            ):
                yield f"{write.tokens} went into another {name} than the one of the instance that it was sent by"


def _in_order(name: str, place: dict[int, int], writes: list[Write]) -> Iterator[str]:
    """What ended before something else began lies before it, and so does what came to the same server before it."""
    there = [write for write in writes if write.tokens[0] in place]
    done = [write for write in there if write.outcome == DONE]
    for first in done:
        for second in there:
            if first is second or place[first.tokens[0]] < place[second.tokens[0]]:
                continue
            assert first.ended is not None
            if first.ended < second.began:
                yield f"{name} has {second.tokens} before {first.tokens}, which was there before it was sent"
            elif second.outcome == DONE and len(first.arrivals) == len(second.arrivals) == 1:
                (server, number), (other, later) = first.arrivals[0], second.arrivals[0]
                if server is other and number < later and not first.is_unsure and not second.is_unsure:
                    yield f"{name} has {second.tokens} before {first.tokens}, which came to {server} before it"


def _closed(path: Path, result: Final, writes: list[Write]) -> Iterator[str]:
    """A closed stream stays closed, and nothing comes behind what closed it."""
    closing = [write for write in writes if write.closes and write.outcome == DONE]
    if not closing or not path.lasting:
        return
    if not result.closed:
        yield f"{path.name} was closed and is open"
    if result.tokens and result.tokens[-1] != closing[0].tokens[-1]:
        yield f"{path.name} goes on behind {closing[0].tokens}, with which it was closed: {result.tokens[-3:]}"
    for write in writes:
        ended = closing[0].ended
        if write.outcome == DONE and write is not closing[0] and ended is not None and write.began > ended:
            yield f"{path.name} was closed, and then took {write.tokens}"


def _session_by_itself(session: Session, by_token: dict[int, Write]) -> Iterator[str]:
    """A reader gets whole appends of its stream, each once, and nothing that did not happen."""
    seen: set[int] = set()
    for page in session.pages:
        for token in page.tokens:
            write = by_token.get(token)
            if write is None or write.path != session.path:
                yield f"{session.who} was given message {token} that is not of {session.path}"
                return
            if token in seen:
                yield f"{session.who} was given message {token} of {session.path} twice"
                return
            seen.add(token)
            if write.outcome == NEVER:
                yield f"{session.who} was given {token} of {session.path}, which did not happen ({write.note})"
        if page.tokens and not _are_whole(page.tokens, by_token):
            yield f"{session.who} was given a part of an append of {session.path}: {page.tokens}"


def _are_whole(tokens: list[int], by_token: dict[int, Write]) -> bool:
    return by_token[tokens[0]].tokens[0] == tokens[0] and by_token[tokens[-1]].tokens[-1] == tokens[-1]


def _session_in(
    path: Path, session: Session, result: Final, place: dict[int, int], by_token: dict[int, Write]
) -> Iterator[str]:
    """What a reader got is a piece of the stream without a gap, from where it began."""
    got = session.tokens
    there = [token for token in got if token in place]
    if not there:
        if got and path.lasting:
            yield f"{session.who} was given {got} of {path.name}, which are not there"
        return
    first = place[there[0]]
    if path.lasting and session.start == "-1":
        first = 0
    expected = result.tokens[first : first + len(got)]
    if got != expected:
        wrong = next(
            number for number, pair in enumerate(zip(got, [*expected, None], strict=False)) if len(set(pair)) > 1
        )
        around = slice(max(0, wrong - 2), wrong + 3)
        yield (
            f"{session.who}, who reads {path.name} from {session.start}, was given {got[around]} "
            f"where the stream has {expected[around]}"
        )
