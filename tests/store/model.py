"""Streams as the specification describes them, in plain Python. The tests compare the store with these.

It applies one operation after the other, knows no batches, rows or bytes of a database, and shares no code with them.
"""

from dataclasses import dataclass, field

from django_durable_streams.store.operations import Append, Create, Delete, Operation, Touch


@dataclass
class ModelStream:
    content_type: str
    closed: bool = False
    appends: list[bytes] = field(default_factory=list)
    last_seq: str | None = None
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    closed_by: tuple[str, int, int] | None = None

    @property
    def content(self) -> bytes:
        return b"".join(self.appends)

    @property
    def ends(self) -> list[int]:
        ends, position = [], 0
        for data in self.appends:
            position += len(data)
            ends.append(position)
        return ends


class Model:
    """All streams by path. Outcomes are words: that of a success, or the name of the error's class."""

    def __init__(self) -> None:
        self.streams: dict[str, ModelStream] = {}

    def apply(self, operation: Operation) -> str:
        stream = self.streams.get(operation.path)
        if isinstance(operation, Create):
            return self._create(operation, stream)
        if stream is None:
            return "StreamNotFound"
        if isinstance(operation, Append):
            return _append(stream, operation)
        if isinstance(operation, Delete):
            del self.streams[operation.path]
        assert isinstance(operation, Delete | Touch)
        return "done"

    def _create(self, operation: Create, stream: ModelStream | None) -> str:
        if stream is not None:
            same = (stream.content_type, stream.closed) == (operation.content_type, operation.closed)
            return "found" if same else "StreamExists"
        made = ModelStream(operation.content_type or "", operation.closed)
        if operation.data:
            made.appends.append(operation.data)
        self.streams[operation.path] = made
        return "created"


def _append(stream: ModelStream, operation: Append) -> str:
    claim = tuple(operation.producer) if operation.producer is not None else None
    if stream.closed:
        if claim is not None and claim == stream.closed_by:
            return "duplicate"
        return "appended" if operation.close and not operation.data and claim is None else "StreamClosed"
    if operation.data and operation.content_type != stream.content_type:
        return "ContentTypeMismatch"
    if operation.producer is not None:
        verdict = _producer_outcome(
            stream.producers.get(operation.producer.id), operation.producer.epoch, operation.producer.seq
        )
        if verdict != "new":
            return verdict
    if operation.seq is not None:
        if stream.last_seq is not None and operation.seq.encode() <= stream.last_seq.encode():
            return "SequenceConflict"
        stream.last_seq = operation.seq
    if operation.producer is not None:
        stream.producers[operation.producer.id] = operation.producer.epoch, operation.producer.seq
    if operation.data:
        stream.appends.append(operation.data)
    if operation.close:
        stream.closed = True
        stream.closed_by = claim  # type: ignore[assignment]
    return "appended"


def _producer_outcome(last: tuple[int, int] | None, epoch: int, seq: int) -> str:
    """The validation logic of section 5.2.1, from top to bottom."""
    if last is None:
        return "new" if seq == 0 else "ProducerSequenceGap"
    if epoch < last[0]:
        return "ProducerFenced"
    if epoch > last[0]:
        return "new" if seq == 0 else "InvalidEpoch"
    if seq <= last[1]:
        return "duplicate"
    return "new" if seq == last[1] + 1 else "ProducerSequenceGap"
