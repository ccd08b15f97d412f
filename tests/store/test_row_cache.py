"""What a connection remembers of streams, and that it never answers by what is not so any more."""

from collections.abc import Callable
from datetime import timedelta
from threading import Event, Thread

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_durable_streams.api import transactions
from django_durable_streams.models import Chunk, Producer, Stream
from django_durable_streams.protocol.errors import StreamClosed, StreamNotFound
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.operations import Append, Appended, Create, Delete, Operation
from django_durable_streams.store.stream_info import StreamInfo
from django_durable_streams.store.write import group_commit, row_cache
from django_durable_streams.store.write.batch import LOCKED, Outcome
from django_durable_streams.store.write.row_cache import RowCache
from django_durable_streams.store.write.stream_state import StreamState
from tests.store.contexts import Remembering

TEXT = "text/plain"

pytestmark = pytest.mark.django_db(transaction=True)


def append(path: str = "a", data: bytes = b"x", seq: int | None = None, close: bool = False) -> Append:
    claim = None if seq is None else ProducerClaim("p", 0, seq)
    return Append(path, TEXT, data, close=close, producer=claim)


class Connection:
    """A connection that remembers, as a lane has it."""

    def __init__(self) -> None:
        self.known = RowCache()

    def apply(self, *operations: Operation) -> list[Outcome]:
        outcomes, _ = group_commit.apply(operations, "default", Remembering(self.known), wait=False)
        again = [operation for operation, outcome in zip(operations, outcomes, strict=True) if outcome is LOCKED]
        if again:  # a lane does them once more
            redone = iter(group_commit.apply(again, "default", Remembering(self.known), wait=False)[0])
            outcomes = [next(redone) if outcome is LOCKED else outcome for outcome in outcomes]
        return outcomes

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


@pytest.mark.skipif(connection.vendor == "postgresql", reason="its statements go past Django's cursors")
def test_streams_that_were_made_together_need_not_be_looked_up() -> None:
    lane = Connection()
    lane.apply(*(Create(f"s{number}", TEXT, ttl=60) for number in range(3)))
    again = lane.selects(append("s1", seq=0), append("s2", b"22", close=True))
    # Nobody knows of a stream's producers but the stream's first batch.
    assert len(again) == 1 and "producer" in again[0] if connection.vendor == "sqlite" else again
    found = [(info.tail, info.closed, info.ttl) for info in (transactions.find(f"s{n}", "default") for n in range(3))]
    assert found == [(0, False, 60), (1, False, 60), (2, True, 60)]
    elsewhere(lambda: transactions.apply(Delete("s0"), "default"))
    assert isinstance(lane.apply(append("s0"))[0], StreamNotFound)


def test_what_others_have_written_meanwhile_is_seen() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append(seq=0))
    elsewhere(lambda: transactions.apply(append(data=b"yy", seq=1), "default"))
    (repeated, more) = lane.apply(append(seq=1), append(seq=2))
    assert isinstance(repeated, Appended)
    assert (repeated.duplicate, repeated.tail, tail_of(more)) == (True, 3, 4)
    elsewhere(lambda: transactions.apply(append(close=True), "default"))
    assert isinstance(lane.apply(append())[0], StreamClosed)
    elsewhere(lambda: transactions.apply(Delete("a"), "default"))
    assert isinstance(lane.apply(append())[0], StreamNotFound)


def test_where_one_stream_is_not_as_it_was_left_all_are_written_once() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), Create("b", TEXT), append("a", seq=0), append("b", b"1"))
    elsewhere(lambda: transactions.apply(append("a", b"else"), "default"))
    outcomes = lane.apply(append("a", seq=1), append("b", b"22"), append("b", b"333"))
    assert [tail_of(outcome) for outcome in outcomes] == [6, 3, 6]
    assert [data_of("a"), data_of("b")] == [b"xelsex", b"122333"]
    # It goes on from there, with what the other one has left.
    assert [tail_of(outcome) for outcome in lane.apply(append("a", seq=2), append("b"))] == [7, 7]


def data_of(path: str) -> bytes:
    chunks = Chunk.objects.filter(stream__path=path).order_by("end").values_list("data", flat=True)
    return b"".join(bytes(data) for data in chunks)


def test_a_duplicate_is_answered_by_what_the_database_has() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append(seq=0), append(seq=1))
    (repeated,) = lane.apply(append(seq=1))
    assert isinstance(repeated, Appended)
    assert (repeated.duplicate, repeated.tail) == (True, 2)
    # Nothing is changed by it, so only a look tells that the stream has gone.
    elsewhere(lambda: transactions.apply(Delete("a"), "default"))
    assert isinstance(lane.apply(append(seq=1))[0], StreamNotFound)


def test_a_stream_that_expires_is_not_appended_to() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT, ttl=1000), append())
    elsewhere(lambda: Stream.objects.unguarded().update(deadline=timezone.now() - timedelta(seconds=1)))
    assert isinstance(lane.apply(append())[0], StreamNotFound)


def test_of_what_was_wrong_less_is_taken_for_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "MAX_PAUSE", 4)
    memory, now, driver = RowCache(), timezone.now(), object()
    memory.get_all([], driver, now)  # it has met the connection

    def is_recalled() -> bool:
        state = StreamState(StreamInfo(1, "a", TEXT))
        state.version = 7
        memory.put(state)
        return bool(memory.get_all([append()], driver, now))

    def batches_until_it_is() -> int:
        return next(count for count in range(100) if is_recalled())

    assert is_recalled()
    pauses = []
    for _ in range(4):
        memory.record_outcome(was_stale=True)
        pauses.append(batches_until_it_is())
    memory.record_outcome(was_stale=False)
    memory.record_outcome(was_stale=True)
    assert (sorted(pauses), pauses[0] < pauses[-1]) == (pauses, True)
    assert batches_until_it_is() == pauses[0]


@pytest.mark.skipif(connection.vendor == "sqlite", reason="its one lock is for all")
def test_a_stream_that_somebody_holds_is_not_waited_for() -> None:
    memory = RowCache()

    def apply(*operations: Operation) -> list[Outcome]:
        return group_commit.apply(operations, "default", Remembering(memory), wait=False)[0]

    # The thread that holds it is another one: this one's connection is the lane's.
    apply(Create("a", TEXT), Create("b", TEXT))
    apply(append("a"), append("b"))
    held, done = Event(), Event()

    def hold() -> None:
        with transaction.atomic():
            Stream.objects.select_for_update().get(path="a")
            held.set()
            done.wait(10)
        connection.close()

    holder = Thread(target=hold)
    holder.start()
    assert held.wait(10)
    try:
        for tail in (2, 3):  # the first time it is found out, the second time it is known
            locked, other = apply(append("a"), append("b"))
            assert (locked, tail_of(other)) == (LOCKED, tail)
    finally:
        done.set()
        holder.join()
    assert tail_of(apply(append("a"))[0]) == 2


def test_a_batch_that_fails_leaves_nothing_behind() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append())
    stream = Stream.objects.get()
    # In the way of the next append's chunk.
    Chunk.objects.unguarded().bulk_create([Chunk(stream=stream, start=100, end=2, data=b"")])
    with pytest.raises(DatabaseError):
        lane.apply(append())
    Chunk.objects.filter(start=100).unguarded().delete()
    assert tail_of(lane.apply(append())[0]) == 2
    assert transactions.find("a", "default").tail == 2


def test_a_new_connection_knows_nothing() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append())
    connection.close()
    transactions.apply(append(), "default")
    assert tail_of(lane.apply(append())[0]) == 3


def test_a_deleted_stream_is_forgotten() -> None:
    lane = Connection()
    lane.apply(Create("a", TEXT), append())
    lane.apply(Delete("a"))
    lane.apply(Create("a", TEXT))
    assert tail_of(lane.apply(append())[0]) == 1


def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "MAX_STREAMS", 3)
    monkeypatch.setattr(row_cache, "MAX_PRODUCERS", 2)
    lane = Connection()
    for number in range(5):
        lane.apply(Create(f"s{number}", TEXT), append(f"s{number}"))
    for number in range(3):
        lane.apply(append("s0", seq=None), Append("s1", TEXT, b"x", producer=ProducerClaim(f"p{number}", 0, 0)))
    assert {path: lane.known.pop(path) is not None for path in ("s0", "s1", "s2")} == {
        "s0": connection.vendor != "mysql",
        "s1": connection.vendor == "postgresql",  # with the producer that the last batch has met
        "s2": False,
    }
    assert Stream.objects.get(path="s1").tail_position == 4
