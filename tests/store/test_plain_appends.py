"""Plain appends on PostgreSQL: they go to the tail of an open stream, wherever another process has moved it."""

import itertools
from collections.abc import Callable
from threading import Barrier, Event, Lock, Thread
from typing import Any

import pytest
from django.db import connection
from django.db.transaction import atomic

from django_durable_streams.api import transactions
from django_durable_streams.models import Chunk, Stream
from django_durable_streams.models.stream import LinkState
from django_durable_streams.protocol.errors import ContentTypeMismatch, StreamClosed, StreamNotFound, TailMismatch
from django_durable_streams.protocol.offsets import Offset
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.chunk_rows import MAX_CHUNK_BYTES
from django_durable_streams.store.operations import Append, Appended, Commit, Create, Delete, Operation
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.sql.postgresql import PostgreSQLStatements
from django_durable_streams.store.write import group_commit
from django_durable_streams.store.write.batch import LOCKED, Outcome
from django_durable_streams.store.write.row_cache import PostgreSQLRowCache
from tests.store.contexts import Caching
from tests.store.test_row_cache import data_of, elsewhere

TEXT = "text/plain"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL confirms rows with the write"),
]


class Committer:
    """A connection with a row cache, as a committer has it. Does not repeat what is LOCKED."""

    def __init__(self) -> None:
        self.row_cache = PostgreSQLRowCache()
        self.commits: list[Commit] = []

    def apply(self, *operations: Operation) -> list[Outcome]:
        outcomes, commits = group_commit.apply(operations, "default", Caching(self.row_cache), wait=False)
        self.commits += commits
        return outcomes


def append(path: str = "a", data: bytes = b"x") -> Append:
    return Append(path, TEXT, data)


def committed_elsewhere(*operations: Operation) -> None:
    elsewhere(lambda: [transactions.apply(operation, "default") for operation in operations])


@pytest.fixture
def committer() -> Committer:
    """A committer that has the streams a, b and c in its row cache."""
    made = Committer()
    made.apply(*(Create(path, TEXT) for path in "abc"))
    made.apply(*(append(path, b"0") for path in "abc"))
    made.commits.clear()
    return made


def tails(outcomes: list[Outcome]) -> list[int]:
    assert all(isinstance(outcome, Appended) for outcome in outcomes), outcomes
    return [outcome.tail for outcome in outcomes if isinstance(outcome, Appended)]


def test_it_goes_behind_the_appends_of_other_processes(committer: Committer) -> None:
    committed_elsewhere(append(data=b"other"))
    assert tails(committer.apply(append(data=b"1"), append("b", b"22"), append(data=b"333"))) == [7, 3, 10]
    assert (data_of("a"), data_of("b")) == (b"0other1333", b"022")
    commits = {commit.path: commit for commit in committer.commits}
    assert (commits["a"].start, commits["a"].tail, [*commits["a"].ends], commits["a"].data()) == (
        6,
        10,
        [7, 10],
        b"1333",
    )
    assert (commits["b"].start, commits["b"].tail, [*commits["b"].ends]) == (1, 3, [3])
    # The row cache has the new tails.
    assert not committer.row_cache.needs_repeat
    assert tails(committer.apply(append(data=b"4"))) == [11]
    assert [*Chunk.objects.filter(stream__path="a").order_by("end").values_list("start", "end")] == [
        (0, 1),
        (1, 6),
        (6, 10),
        (10, 11),
    ]


def test_the_row_cache_tells_whether_others_append_to_the_same_streams(committer: Committer) -> None:
    def others_write(*operations: Operation) -> bool:
        committer.apply(*operations)
        return committer.row_cache.others_write

    assert not others_write(append("a"))
    committed_elsewhere(append("b"))
    assert not others_write(append("a"))
    assert others_write(append("a"), append("b"))
    assert not others_write(append("a"), append("b"))
    # A batch that cannot tell says no: only appends meet the appends of others.
    committed_elsewhere(append("a"))
    assert others_write(append("a"))
    assert not others_write(Create("d", TEXT))


def test_a_large_commit_is_cut_into_chunks_at_the_new_tail(committer: Committer) -> None:
    committed_elsewhere(append(data=b"other"))
    part = b"x" * (MAX_CHUNK_BYTES * 2 // 3)
    assert tails(committer.apply(*[append(data=part)] * 3)) == [6 + len(part) * number for number in (1, 2, 3)]
    assert data_of("a") == b"0other" + part * 3
    info = transactions.find("a", "default")
    pages = log_reader.pages([log_reader.PageRequest(info, 6, 10)], SegmentCache(0), "default")
    segment = pages[info.id, 6]
    assert segment is not None
    assert segment.data == part


def close(stream: Stream) -> None:
    stream.close()


def remove(stream: Stream) -> None:
    stream.delete()


def replace(stream: Stream) -> None:
    stream.delete()
    Stream.objects.create(path="a", content_type=TEXT)


def expire_later(stream: Stream) -> None:
    stream.set_lifetime(ttl=60)


def use_sequences(stream: Stream) -> None:
    stream.append("more", seq="5")


def link(stream: Stream) -> None:
    Stream.objects.unguarded().filter(pk=stream.pk).update(link_state=LinkState.SEEN)


@pytest.mark.parametrize("change", [close, remove, replace, expire_later, use_sequences, link])
def test_it_is_not_written_to_a_stream_that_has_become_another(
    committer: Committer, change: Callable[[Stream], None]
) -> None:
    elsewhere(lambda: change(Stream.objects.get(path="a")))
    before = [*Chunk.objects.values_list("pk", flat=True)]
    outcomes = committer.apply(append(), append("b", b"1"))
    assert outcomes[0] is LOCKED
    assert committer.row_cache.needs_repeat
    assert tails(outcomes[1:]) == [2]
    assert Chunk.objects.exclude(pk__in=before).get().stream.path == "b"
    # A committer repeats it with a read.
    (outcome,) = committer.apply(append())
    if change in (close, remove):
        assert isinstance(outcome, StreamClosed if change is close else StreamNotFound)
    else:
        stream = Stream.objects.get(path="a")
        assert tails([outcome]) == [stream.tail_position]
        assert data_of("a").endswith(b"x")
        assert (stream.deadline is not None) == (change is expire_later)
        assert stream.link_state == (LinkState.UNSEEN if change is link else None)


@pytest.mark.parametrize("change", [{"path": "secret"}, {"generation": 5}], ids=str)
def test_it_is_not_written_to_another_stream_that_has_got_the_id(committer: Committer, change: dict[str, Any]) -> None:
    """After a restored backup or `manage.py flush`, sequences begin again."""
    taken = Stream.objects.get(path="a").pk
    elsewhere(lambda: Stream.objects.unguarded().filter(pk=taken).update(**change))
    assert committer.apply(append(), append("b", b"1"))[0] is LOCKED
    assert not Chunk.objects.filter(stream=taken, start__gt=0).exists()


def test_after_a_wait_in_vain_it_waits_only_shortly(committer: Committer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations on other streams arrive while the committer waits for a row that is held for long."""
    waits: list[int | None] = []
    real = PostgreSQLStatements.transaction

    def transaction(self: Any, lock_ms: int | None = None, *others: Any) -> Any:
        waits.append(lock_ms)
        return real(self, lock_ms, *others)

    monkeypatch.setattr(PostgreSQLStatements, "transaction", transaction)
    is_held, may_end = Event(), Event()

    def hold() -> None:
        with atomic():
            Stream.objects.select_for_update().get(path="a")
            is_held.set()
            may_end.wait(30)

    holder = Thread(target=elsewhere, args=(hold,))
    holder.start()
    is_held.wait(30)
    try:
        assert committer.apply(append()) == committer.apply(append()) == [LOCKED]
    finally:
        may_end.set()
        holder.join()
    briefly = group_commit.CACHED_LOCK_MS
    assert [wait for wait in waits if wait is not None] == [group_commit.ONE_ROW_LOCK_MS, briefly]
    committer.row_cache.short_waits_until = 0.0
    committer.apply(append())
    assert waits[-2:] == [group_commit.ONE_ROW_LOCK_MS, None]


def test_an_append_with_a_condition_needs_the_row_of_the_cache(committer: Committer) -> None:
    generation = transactions.find("a", "default").generation
    committed_elsewhere(append(data=b"other"))
    expecting = Append("a", TEXT, b"1", if_tail=Offset(generation, 1))
    assert committer.apply(expecting) == [LOCKED]
    (outcome,) = committer.apply(expecting)
    assert isinstance(outcome, TailMismatch)
    assert data_of("a") == b"0other"


def test_a_producer_needs_the_row_of_the_cache(committer: Committer) -> None:
    def claimed(seq: int) -> Append:
        return Append("a", TEXT, b"p", producer=ProducerClaim("p", 0, seq))

    committer.apply(claimed(0))
    committed_elsewhere(claimed(1))
    assert committer.apply(claimed(1)) == [LOCKED]
    (outcome,) = committer.apply(claimed(1))
    assert isinstance(outcome, Appended)
    assert outcome.duplicate
    assert data_of("a") == b"0pp"


def test_a_refused_append_does_not_hide_that_the_stream_is_gone(committer: Committer) -> None:
    committed_elsewhere(Delete("a"))
    wrong = Append("a", "text/html", b"x")
    assert isinstance(committer.apply(wrong)[0], StreamNotFound)
    committed_elsewhere(Delete("b"))
    assert committer.apply(Append("b", "text/html", b"x"), append("b"), append("c")) == [
        LOCKED,
        LOCKED,
        *[Appended(2, False, generation=transactions.find("c", "default").generation)],
    ]
    assert isinstance(committer.apply(Append("c", "text/html", b"x"), append("c"))[0], ContentTypeMismatch)


def test_two_processes_append_to_one_stream_without_a_second_attempt(
    committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "ONE_ROW_LOCK_MS", 20_000)  # on a busy machine a commit may take long
    rounds, others = 40, Committer()
    both, one_by_one = Barrier(2), Lock()
    results: dict[Committer, list[int]] = {committer: [], others: []}

    def run(one: Committer, letter: bytes) -> None:
        try:
            with one_by_one:  # the row cache is of the connection of this thread, and has nothing yet
                one.apply(append(data=b"0"))
            both.wait()
            for _ in range(rounds):
                results[one] += tails(one.apply(append(data=letter), append(data=letter)))
        finally:
            connection.close()

    threads = [Thread(target=run, args=arguments) for arguments in ((committer, b"1"), (others, b"2"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = data_of("a")
    assert len(stored) == 3 + 4 * rounds
    for one, letter in ((committer, b"1"), (others, b"2")):
        assert len(results[one]) == 2 * rounds == len({*results[one]})
        assert results[one] == sorted(results[one])
        # Each answered tail is the end of this process's own append.
        assert all(stored[tail - 1 : tail] == letter for tail in results[one])
    chunks = [*Chunk.objects.filter(stream__path="a").order_by("end").values_list("start", "end")]
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(chunks))
