"""What a connection remembers of streams, and that it never answers by what is not so any more."""

from collections.abc import Callable
from threading import Thread

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from django_durable_streams.models import Chunk, Producer, Stream
from django_durable_streams.protocol.errors import StreamClosed, StreamNotFound
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store import calls, known, writing
from django_durable_streams.store.batch import Outcome
from django_durable_streams.store.known import KnownStreams
from django_durable_streams.store.operations import Append, Appended, Create, Delete, Operation

TEXT = "text/plain"

pytestmark = pytest.mark.django_db(transaction=True)


def append(path: str = "a", data: bytes = b"x", seq: int | None = None, close: bool = False) -> Append:
    claim = None if seq is None else ProducerClaim("p", 0, seq)
    return Append(path, TEXT, data, close=close, producer=claim)


class Connection:
    """A connection that remembers, as a lane has it."""

    def __init__(self) -> None:
        self.known = KnownStreams()

    def apply(self, *operations: Operation) -> list[Outcome]:
        return writing.apply(operations, "default", known=self.known)[0]

    def selects(self, *operations: Operation) -> list[str]:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            self.apply(*operations)
        return [query["sql"] for query in queries if query["sql"].startswith("SELECT")]


def elsewhere(work: Callable[[], object]) -> None:
    """Do something over another connection."""

    def run() -> None:
        work()
        connection.close()

    thread = Thread(target=run)
    thread.start()
    thread.join()


def tail_of(outcome: Outcome) -> int:
    assert isinstance(outcome, Appended), outcome
    return outcome.tail


@pytest.mark.skipif(connection.vendor == "postgresql", reason="its statements go past Django's cursors")
def test_what_one_batch_has_left_the_next_one_need_not_look_up() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append(seq=0))
    again = lane.selects(append(seq=1), append())
    assert again == [] if connection.vendor == "sqlite" else again
    assert Stream.objects.get().tail_position == 3
    assert Producer.objects.get().seq == 1


def test_what_others_have_written_meanwhile_is_seen() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append(seq=0))
    elsewhere(lambda: calls.apply(append(data=b"yy", seq=1), "default"))
    (repeated, more) = lane.apply(append(seq=1), append(seq=2))
    assert isinstance(repeated, Appended)
    assert (repeated.duplicate, repeated.tail, tail_of(more)) == (True, 3, 4)
    elsewhere(lambda: calls.apply(append(close=True), "default"))
    assert isinstance(lane.apply(append())[0], StreamClosed)
    elsewhere(lambda: calls.apply(Delete("a"), "default"))
    assert isinstance(lane.apply(append())[0], StreamNotFound)


def test_a_batch_that_fails_leaves_nothing_behind() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append())
    stream = Stream.objects.get()
    # In the way of the next append's chunk.
    blocker = Chunk.objects.create(stream=stream, start=100, end=2, data=b"")
    with pytest.raises(DatabaseError):
        lane.apply(append())
    blocker.delete()
    assert tail_of(lane.apply(append())[0]) == 2
    assert calls.find("a", "default").tail == 2


def test_a_new_connection_knows_nothing() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append())
    connection.close()
    calls.apply(append(), "default")
    assert tail_of(lane.apply(append())[0]) == 3


def test_a_deleted_stream_is_forgotten() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append())
    lane.apply(Delete("a"))
    lane.apply(Create("a", TEXT))
    assert tail_of(lane.apply(append())[0]) == 1


def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MAX_KNOWN", 3)
    monkeypatch.setattr(known, "MAX_PRODUCERS", 2)
    lane = Connection()
    for number in range(5):
        lane.apply(Create(f"s{number}", TEXT), append(f"s{number}"))
    for number in range(3):
        lane.apply(append("s0", seq=None), Append("s1", TEXT, b"x", producer=ProducerClaim(f"p{number}", 0, 0)))
    assert {path: lane.known.take(path) is not None for path in ("s0", "s1", "s2")} == (
        {"s0": True, "s1": False, "s2": False}
        if connection.vendor == "sqlite"
        else dict.fromkeys(("s0", "s1", "s2"), False)
    )
    assert Stream.objects.get(path="s1").tail_position == 4
