"""The row cache of a committer's connection, and that no outcome comes from a stale row."""

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
from django_durable_streams.protocol.producers import ProducerClaim, ProducerState
from django_durable_streams.runtime.collecting import Collector
from django_durable_streams.store.operations import Append, Appended, Create, Delete, Operation
from django_durable_streams.store.stream_info import StreamInfo
from django_durable_streams.store.write import group_commit, row_cache
from django_durable_streams.store.write.batch import LOCKED, Outcome
from django_durable_streams.store.write.row_cache import PostgreSQLRowCache, SQLiteRowCache, make_row_cache
from django_durable_streams.store.write.stream_state import StreamState
from tests.store.contexts import Caching

TEXT = "text/plain"

pytestmark = pytest.mark.django_db(transaction=True)


def append(path: str = "a", data: bytes = b"x", seq: int | None = None, close: bool = False) -> Append:
    claim = None if seq is None else ProducerClaim("p", 0, seq)
    return Append(path, TEXT, data, close=close, producer=claim)


class CommitterConnection:
    """A connection with a row cache, as a committer has it."""

    def __init__(self) -> None:
        self.row_cache = make_row_cache("default")

    def apply(self, *operations: Operation) -> list[Outcome]:
        outcomes, _ = group_commit.apply(operations, "default", Caching(self.row_cache), wait=False)
        stale = [operation for operation, outcome in zip(operations, outcomes, strict=True) if outcome is LOCKED]
        if stale:  # a committer applies them once more
            redone = iter(group_commit.apply(stale, "default", Caching(self.row_cache), wait=False)[0])
            outcomes = [next(redone) if outcome is LOCKED else outcome for outcome in outcomes]
        return outcomes

    def selects(self, *operations: Operation) -> list[str]:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            self.apply(*operations)
        return [query["sql"] for query in queries if query["sql"].startswith("SELECT")]


def elsewhere(work: Callable[[], object]) -> None:
    """Do work over another connection."""

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
def test_a_batch_does_not_read_rows_that_the_last_batch_has_written() -> None:
    committer = CommitterConnection()
    committer.apply(Create("a", TEXT), append(seq=0))
    selects = committer.selects(append(seq=1), append())
    assert selects == [] if connection.vendor == "sqlite" else selects
    assert Stream.objects.get().tail_position == 3
    assert Producer.objects.get().seq == 1


@pytest.mark.skipif(connection.vendor == "postgresql", reason="its statements go past Django's cursors")
def test_streams_that_were_created_together_are_not_read_again() -> None:
    committer = CommitterConnection()
    committer.apply(*(Create(f"s{number}", TEXT, ttl=60) for number in range(3)))
    selects = committer.selects(append("s1", seq=0), append("s2", b"22", close=True))
    # The row cache has no producers of streams that were created together.
    assert len(selects) == 1 and "producer" in selects[0] if connection.vendor == "sqlite" else selects
    infos = [(info.tail, info.closed, info.ttl) for info in (transactions.find(f"s{n}", "default") for n in range(3))]
    assert infos == [(0, False, 60), (1, False, 60), (2, True, 60)]
    elsewhere(lambda: transactions.apply(Delete("s0"), "default"))
    assert isinstance(committer.apply(append("s0"))[0], StreamNotFound)


def test_writes_of_other_connections_are_seen() -> None:
    committer = CommitterConnection()
    committer.apply(Create("a", TEXT), append(seq=0))
    elsewhere(lambda: transactions.apply(append(data=b"yy", seq=1), "default"))
    (repeated, more) = committer.apply(append(seq=1), append(seq=2))
    assert isinstance(repeated, Appended)
    assert (repeated.duplicate, repeated.tail, tail_of(more)) == (True, 3, 4)
    elsewhere(lambda: transactions.apply(append(close=True), "default"))
    assert isinstance(committer.apply(append())[0], StreamClosed)
    elsewhere(lambda: transactions.apply(Delete("a"), "default"))
    assert isinstance(committer.apply(append())[0], StreamNotFound)


def test_with_one_stale_row_all_appends_are_written_once() -> None:
    committer = CommitterConnection()
    committer.apply(Create("a", TEXT), Create("b", TEXT), append("a", seq=0), append("b", b"1"))
    elsewhere(lambda: transactions.apply(append("a", b"else"), "default"))
    outcomes = committer.apply(append("a", seq=1), append("b", b"22"), append("b", b"333"))
    assert [tail_of(outcome) for outcome in outcomes] == [6, 3, 6]
    assert [data_of("a"), data_of("b")] == [b"xelsex", b"122333"]
    # The next batch continues from the rows that the other connection has written.
    assert [tail_of(outcome) for outcome in committer.apply(append("a", seq=2), append("b"))] == [7, 7]


def data_of(path: str) -> bytes:
    chunks = Chunk.objects.filter(stream__path=path).order_by("end").values_list("data", flat=True)
    return b"".join(bytes(data) for data in chunks)


def test_the_outcome_of_a_duplicate_comes_from_the_database() -> None:
    committer = CommitterConnection()
    committer.apply(Create("a", TEXT), append(seq=0), append(seq=1))
    (repeated,) = committer.apply(append(seq=1))
    assert isinstance(repeated, Appended)
    assert (repeated.duplicate, repeated.tail) == (True, 2)
    # A duplicate changes nothing, so only a read finds out that the stream was deleted.
    elsewhere(lambda: transactions.apply(Delete("a"), "default"))
    assert isinstance(committer.apply(append(seq=1))[0], StreamNotFound)


def test_no_append_goes_to_an_expired_stream() -> None:
    committer = CommitterConnection()
    committer.apply(Create("a", TEXT, ttl=1000), append())
    elsewhere(lambda: Stream.objects.unguarded().update(deadline=timezone.now() - timedelta(seconds=1)))
    assert isinstance(committer.apply(append())[0], StreamNotFound)


def test_after_a_stale_row_the_next_batches_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "MAX_PAUSE_BATCHES", 4)
    cache, now, driver = PostgreSQLRowCache(), timezone.now(), object()
    cache.pop_unconfirmed([], driver, now)  # the first call with this connection clears the cache

    def is_used() -> bool:
        state = StreamState(StreamInfo(1, "a", TEXT))
        state.row_version = 7
        cache.put([state])
        return bool(cache.pop_unconfirmed([append()], driver, now))

    def batches_until_it_is_used() -> int:
        return next(count for count in range(100) if is_used())

    assert is_used()
    pauses = []
    for _ in range(4):
        cache.record_write(met_stale_row=True)
        pauses.append(batches_until_it_is_used())
    cache.record_write(met_stale_row=False)
    cache.record_write(met_stale_row=True)
    assert pauses == [1, 2, 4, 4]
    assert batches_until_it_is_used() == 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only its cache has pauses")
def test_in_a_pause_others_still_count_as_writing_and_a_lone_client_does_not_wait() -> None:
    committer = CommitterConnection()
    cache = committer.row_cache
    assert isinstance(cache, PostgreSQLRowCache)
    committer.apply(Create("a", TEXT), append(seq=0))
    seq = 0

    def others_write() -> bool:
        nonlocal seq
        seq += 1
        committer.apply(append(seq=seq))
        return cache.others_write

    assert not others_write()
    for left in (0, 1, 3):  # each attempt meets a stale row, and its repetition is the first batch of the pause
        elsewhere(lambda: transactions.apply(append(data=b"else"), "default"))
        assert others_write()
        assert cache._pause == left
        assert [others_write() for _ in range(left)] == [True] * left
    assert not others_write()
    # What follows from it: batches collect tasks, but not after a batch of a lone client.
    collector = Collector()
    collector.start(1, 0, 1.0)
    assert collector.seconds_left(0) == 0.0


@pytest.mark.skipif(connection.vendor == "sqlite", reason="its one lock is for all")
def test_a_batch_does_not_wait_for_a_locked_row() -> None:
    cache = make_row_cache("default")

    def apply(*operations: Operation) -> list[Outcome]:
        return group_commit.apply(operations, "default", Caching(cache), wait=False)[0]

    # Another thread holds the row: the connection of this thread is the committer's.
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
        for tail in (2, 3):  # the second time with the row cache of the first
            locked, other = apply(append("a"), append("b"))
            assert (locked, tail_of(other)) == (LOCKED, tail)
    finally:
        done.set()
        holder.join()
    assert tail_of(apply(append("a"))[0]) == 2


def test_a_batch_that_fails_leaves_no_wrong_row_in_the_cache() -> None:
    committer = CommitterConnection()
    committer.apply(Create("a", TEXT), append())
    stream = Stream.objects.get()
    # This chunk has the end of the next append's chunk, which must be unique.
    Chunk.objects.unguarded().bulk_create([Chunk(stream=stream, start=100, end=2, data=b"")])
    with pytest.raises(DatabaseError):
        committer.apply(append())
    Chunk.objects.filter(start=100).unguarded().delete()
    assert tail_of(committer.apply(append())[0]) == 2
    assert transactions.find("a", "default").tail == 2


def test_a_new_connection_clears_the_cache() -> None:
    committer = CommitterConnection()
    committer.apply(Create("a", TEXT), append())
    connection.close()
    transactions.apply(append(), "default")
    assert tail_of(committer.apply(append())[0]) == 3


def test_a_deleted_stream_leaves_the_cache() -> None:
    committer = CommitterConnection()
    committer.apply(Create("a", TEXT), append())
    committer.apply(Delete("a"))
    committer.apply(Create("a", TEXT))
    assert tail_of(committer.apply(append())[0]) == 1


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "MAX_STREAMS", 3)
    monkeypatch.setattr(row_cache, "MAX_PRODUCERS", 2)
    committer = CommitterConnection()
    for number in range(5):
        committer.apply(Create(f"s{number}", TEXT), append(f"s{number}"))
    for number in range(3):
        committer.apply(append("s0", seq=None), Append("s1", TEXT, b"x", producer=ProducerClaim(f"p{number}", 0, 0)))
    cache = committer.row_cache
    assert {path for path in ("s0", "s1", "s2") if cache is not None and cache.pop(path) is not None} == {
        "sqlite": {"s0"},
        "postgresql": {"s0", "s1"},  # s1 with the producer of the last batch only
        "mysql": set(),
    }[connection.vendor]
    assert Stream.objects.get(path="s1").tail_position == 4


def test_the_producers_and_lineages_of_all_cached_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "MAX_ENTRIES", 10)
    cache = SQLiteRowCache()
    cache._commit_count = 1

    def put(path: str, producers: int = 0, lineage: int = 0) -> list[str]:
        state = StreamState(StreamInfo(1, path, TEXT, lineage=[[1, 0, 1, 1]] * lineage or None))
        state.producers = {str(number): ProducerState(0, 0) for number in range(producers)}
        cache.put([state])
        return [*cache._states]

    assert put("a", producers=4) == ["a"]
    assert put("b", lineage=6) == ["a", "b"]
    assert put("c") == ["a", "b", "c"]
    assert put("d", producers=1) == ["b", "c", "d"]
    assert cache.pop("b") is not None
    assert put("e", producers=9) == ["c", "d", "e"]
    assert put("f", producers=2, lineage=9) == []
    assert put("g", producers=10) == ["g"]
