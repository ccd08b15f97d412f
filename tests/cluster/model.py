"""What streams are, as the specification describes them to a client: paths, appends, and offsets that were handed out.

Offsets are opaque here. The model knows behind how many appends each one lies, and nothing of how it is made. It shares
no code with the server.
"""

import json
from dataclasses import dataclass, field
from typing import Any

TEXT, JSON = "text/plain", "application/json"
START = "-1"


def messages(content_type: str, body: bytes) -> list[Any]:
    """What one append adds: in JSON mode each element of an array is a message."""
    if content_type != JSON:
        return [body.decode()]
    value = json.loads(body)
    return value if isinstance(value, list) else [value]


def content(content_type: str, body: bytes) -> Any:
    """What a read has got: text, or a list of messages."""
    return json.loads(body or b"[]") if content_type == JSON else body.decode()


@dataclass(eq=False)
class Stream:
    content_type: str
    closed: bool = False
    appends: list[list[Any]] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    closed_by: tuple[str, int, int] | None = None
    source: "Stream | None" = None
    gone: bool = False
    """Deleted, and kept for its forks."""

    def past(self, offset: str) -> Any:
        """What a read from an offset has to return."""
        result = [message for append in self.appends[self.behind(offset) :] for message in append]
        return result if self.content_type == JSON else "".join(result)

    def behind(self, offset: str) -> int:
        return 0 if offset == START else self.offsets[offset]

    def handed_out(self, offset: str, behind: int | None = None) -> None:
        """Take note of an offset that the server has returned: one for each place, greater for each later one."""
        behind = len(self.appends) if behind is None else behind
        existing = self.offsets.setdefault(offset, behind)
        assert existing == behind, f"{offset} is behind {existing} appends and behind {behind}"
        for other, place in self.offsets.items():
            assert (other < offset, other == offset) == (place < behind, place == behind)

    def append(self, body: bytes, close: bool, claim: tuple[str, int, int] | None) -> int:
        """Append and return the status that a client gets."""
        if self.closed:
            repeated = claim is not None and claim == self.closed_by
            return 204 if repeated or (close and not body and claim is None) else 409
        if claim is not None:
            name, epoch, seq = claim
            existing = self.producers.get(name)
            if existing is None:
                if seq:
                    return 409
            elif epoch < existing[0]:
                return 403
            elif epoch > existing[0]:
                if seq:
                    return 400
            elif seq <= existing[1]:
                return 204
            elif seq > existing[1] + 1:
                return 409
            self.producers[name] = epoch, seq
        if body:
            self.appends.append(messages(self.content_type, body))
        if close:
            self.closed, self.closed_by = True, claim
        return 204 if claim is None or (close and not body) else 200


class Model:
    """All streams by path."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}

    def status(self, path: str) -> int:
        """What a request for a stream gets that needs it to be there."""
        result = self.streams.get(path)
        if result is None:
            return 404
        return 410 if result.gone else 200

    def create(self, path: str, content_type: str, body: bytes, closed: bool) -> int:
        existing = self.streams.get(path)
        if existing is not None:
            same = (existing.content_type, existing.closed, existing.gone) == (content_type, closed, False)
            return 200 if same and existing.source is None else 409
        self.streams[path] = made = Stream(content_type, closed)
        if body:
            made.appends.append(messages(content_type, body))
        return 201

    def fork(self, path: str, source: str, offset: str | None) -> int:
        """Fork a stream to a path that is free, at an offset that was handed out, or at its tail."""
        origin = self.streams.get(source)
        if origin is None or origin.gone:
            return 404 if origin is None else 409
        cut = len(origin.appends) if offset is None else origin.behind(offset)
        existing = {other: place for other, place in origin.offsets.items() if place <= cut}
        self.streams[path] = Stream(origin.content_type, False, origin.appends[:cut], existing, source=origin)
        return 201

    def delete(self, path: str) -> int:
        status = self.status(path)
        if status != 200:
            return status
        result = self.streams[path]
        if any(other.source is result for other in self.streams.values()):
            result.gone = True
            return 204
        del self.streams[path]
        while (source := result.source) is not None and source.gone:
            if any(other.source is source for other in self.streams.values()):
                break
            del self.streams[next(name for name, stream in self.streams.items() if stream is source)]
            result = source
        return 204
