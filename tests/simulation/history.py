"""What was asked of the streams in a run and what was answered, in the order of a counter that goes up with each."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any

TEXT, BYTES, JSON = "text/plain", "application/octet-stream", "application/json"

_MESSAGE = re.compile(rb"<([0-9]+):[a-z]*>")

PENDING, DONE, MAYBE, NEVER = "pending", "done", "maybe", "never"
"""What became of something: no answer yet, it has happened, it may have happened or may still, it has not happened."""


class Torn(ValueError):
    """What was read is not whole messages."""


def body(content_type: str, tokens: list[int], size: int) -> bytes:
    """Return a body that appends some messages, each with a number that only it has."""
    result = [f"<{token}:{'abcdefgh' * (size // 8)}>" for token in tokens]
    if content_type == JSON:
        return json.dumps(result if len(result) > 1 else result[0]).encode()
    return "".join(result).encode()


def tokens(content_type: str, data: bytes) -> list[int]:
    """Return the numbers of the messages that a read has got.

    Raises:
        Torn
    """
    if content_type == JSON:
        try:
            messages = json.loads(data or b"[]")
        except ValueError as error:
            raise Torn(f"{data[:200]!r} is not JSON: {error}") from error
        data = "".join(messages).encode()
    result, position = [], 0
    while position < len(data):
        match = _MESSAGE.match(data, position)
        if match is None:
            raise Torn(f"at {position} of {len(data)} bytes: {data[max(0, position - 20) : position + 40]!r}")
        result.append(int(match[1]))
        position = match.end()
    return result


def event_tokens(content_type: str, data: str) -> list[int]:
    """The same for the payload of a data event."""
    return tokens(content_type, b64decode(data) if content_type == BYTES else data.encode())


@dataclass(eq=False)
class Write:
    """An append: its messages, who sent it where, and what became of it."""

    path: str
    tokens: list[int]
    who: str
    began: int
    ended: int | None = None
    outcome: str = PENDING
    arrivals: list[tuple[object, int]] = field(default_factory=list)
    """Which server it came to, and its place among all requests there."""
    closes: bool = False
    note: str = ""
    loaded: int | None = None
    """When the instance was loaded that it was sent by: it belongs to the stream that was there then."""
    is_unsure: bool = False
    """A request for it was not answered: it may have happened whatever the next one is told."""


@dataclass(eq=False)
class Change:
    """A create, a close or a delete of a stream."""

    kind: str
    path: str
    who: str
    began: int
    ended: int | None = None
    outcome: str = PENDING


@dataclass(eq=False)
class Page:
    """What one read, or one event, has given."""

    tokens: list[int]
    before: str
    after: str
    at: int


@dataclass(eq=False)
class Session:
    """What a reader has got, from one place on without a gap."""

    path: str
    who: str
    start: str
    began: int
    pages: list[Page] = field(default_factory=list)
    ended: str = ""

    @property
    def tokens(self) -> list[int]:
        return [token for page in self.pages for token in page.tokens]

    @property
    def offset(self) -> str:
        return self.pages[-1].after if self.pages else self.start


class History:
    """All of it.

    Args:
        now: returns the virtual time.
    """

    def __init__(self, now: Any) -> None:
        self.writes: list[Write] = []
        self.changes: list[Change] = []
        self.sessions: list[Session] = []
        self.faults: list[str] = []
        """What must not have happened."""
        self.lines: list[str] = []
        self._now = now
        self._moment = 0
        self._token = 0

    def moment(self) -> int:
        self._moment += 1
        return self._moment

    def note(self, who: str, what: str) -> None:
        """Add a line to what is printed of a run that fails."""
        self.lines.append(f"{self._now() - 1000:10.4f} {who:<14} {what}")

    def fault(self, what: str) -> None:
        """Something happened that must not."""
        self.note("FAULT", what)
        self.faults.append(what)

    def write(self, path: str, who: str, count: int = 1, *, closes: bool = False, note: str = "") -> Write:
        """Begin an append of some messages."""
        numbers = list(range(self._token + 1, self._token + count + 1))
        self._token += count
        made = Write(path, numbers, who, self.moment(), closes=closes, note=note)
        self.writes.append(made)
        return made

    def wrote(self, write: Write, outcome: str, why: object = "") -> None:
        """An append has ended."""
        write.outcome, write.ended = outcome, self.moment()
        self.note(write.who, f"append {write.tokens} to {write.path}: {outcome} {why} {write.note}")

    def change(self, kind: str, path: str, who: str) -> Change:
        """Begin a create, close or delete."""
        made = Change(kind, path, who, self.moment())
        self.changes.append(made)
        return made

    def changed(self, change: Change, outcome: str, why: object = "") -> None:
        """It has ended."""
        change.outcome, change.ended = outcome, self.moment()
        self.note(change.who, f"{change.kind} {change.path}: {outcome} {why}")

    def session(self, path: str, who: str, start: str) -> Session:
        """A reader begins."""
        made = Session(path, who, start, self.moment())
        self.sessions.append(made)
        return made

    def read(self, session: Session, result: list[int], after: str, how: str) -> None:
        """A reader has got something."""
        session.pages.append(Page(result, session.offset, after, self.moment()))
        if result:
            self.note(session.who, f"{how} of {session.path} from {session.pages[-1].before}: {result} up to {after}")
