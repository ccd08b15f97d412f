"""Batches of operations, against the same operations one after the other."""

from collections.abc import Sequence
from itertools import count

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from django_durable_streams.models import Chunk, Producer, Stream
from django_durable_streams.protocol.errors import DurableStreamsError, StreamNotFound
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store import chunk_rows
from django_durable_streams.store.operations import Append, Appended, Commit, Create, Created, Delete, Fork, Operation
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.sql import statements
from django_durable_streams.store.write import group_commit
from django_durable_streams.store.write.batch import Outcome
from tests.examples import enough
from tests.store.model import Model

pytestmark = pytest.mark.django_db

TEXT = "text/plain"
_numbers = count()


def fresh() -> str:
    """A path that no other test, and no other example of this one, has."""
    return f"s{next(_numbers)}"


def apply(*operations: Operation) -> tuple[list[Outcome], list[Commit]]:
    return group_commit.apply(operations, "default")


def content_of(path: str) -> bytes:
    return b"".join(
        bytes(data) for data in Chunk.objects.filter(stream__path=path).order_by("end").values_list("data", flat=True)
    )


def word(outcome: Outcome) -> str:
    """The outcome in the model's words."""
    if isinstance(outcome, Created):
        return "created" if outcome.created else "found"
    if isinstance(outcome, Appended):
        return "duplicate" if outcome.duplicate else "appended"
    return type(outcome).__name__ if isinstance(outcome, DurableStreamsError) else "done"


paths = st.sampled_from("abc")
types = st.sampled_from([TEXT, TEXT, TEXT, "a/b"])
claims = st.builds(ProducerClaim, st.sampled_from(["p", "q"]), st.integers(0, 2), st.integers(0, 2))
appends = st.builds(
    Append,
    paths,
    types,
    st.binary(min_size=1, max_size=5),
    st.sampled_from([False, False, False, True]),
    st.none() | st.sampled_from(["1", "2", "10", "é"]),
    st.none() | claims,
)
closes = st.builds(Append, paths, st.none(), st.just(b""), st.just(True), st.none(), st.none() | claims)
creates = st.builds(
    Create, paths, types, closed=st.sampled_from([False, False, True]), data=st.sampled_from([b"", b"first"])
)
operations = st.one_of(creates, appends, appends, appends, closes, st.builds(Delete, paths))
batches = st.lists(st.lists(operations, min_size=1, max_size=8), min_size=1, max_size=4)


def renamed(operation: Operation, prefix: str) -> Operation:
    operation.path = f"{prefix}-{operation.path}"
    return operation


@given(batches)
@settings(max_examples=enough(150))
@pytest.mark.slow
def test_a_batch_does_what_its_operations_do_one_after_the_other(given_batches: list[list[Operation]]) -> None:
    prefix = fresh()
    model = Model()
    for batch in given_batches:
        batch = [renamed(operation, prefix) for operation in batch]
        expected = [model.apply(operation) for operation in batch]
        outcomes, _ = apply(*batch)
        assert [word(outcome) for outcome in outcomes] == expected
        for path in (f"{prefix}-{name}" for name in "abc"):
            row = Stream.objects.filter(path=path).first()
            copy = model.streams.get(path)
            assert (row is None) == (copy is None)
            if row is None or copy is None:
                continue
            assert (row.content_type, row.closed, row.last_seq) == (copy.content_type, copy.closed, copy.last_seq)
            assert row.tail_position == len(copy.content)
            assert content_of(path) == copy.content
            producers = Producer.objects.filter(stream=row).values_list("producer_id", "epoch", "seq")
            assert {name: (epoch, seq) for name, epoch, seq in producers} == copy.producers


@given(batches)
@settings(max_examples=enough(60))
def test_commits_have_exactly_the_appended_data(given_batches: list[list[Operation]]) -> None:
    """Whoever follows a stream by its commits alone ends up with its content, its closure and its end."""
    prefix = fresh()
    seen: dict[int, tuple[bytes, list[int], bool]] = {}
    for batch in given_batches:
        _, commits = apply(*(renamed(operation, prefix) for operation in batch))
        for commit in commits:
            data, ends, closed = seen.get(commit.stream_id, (b"", [], False))
            if commit.removed:
                seen.pop(commit.stream_id, None)
                continue
            assert commit.start == len(data)
            assert not closed or not commit.data()
            assert commit.tail == commit.start + len(commit.data())
            seen[commit.stream_id] = data + commit.data(), ends + list(commit.ends), commit.closed
    streams = {stream.pk: stream for stream in Stream.objects.filter(path__startswith=f"{prefix}-")}
    assert {key: data for key, (data, _, _) in seen.items() if data} == {
        key: content_of(stream.path) for key, stream in streams.items() if stream.tail_position
    }
    for key, (_, ends, closed) in seen.items():
        assert streams[key].closed == closed
        assert ends == sorted(set(ends))


def test_a_life_in_one_batch() -> None:
    path = fresh()
    outcomes, _ = apply(
        Append(path, TEXT, b"too soon"),
        Create(path, TEXT),
        Append(path, TEXT, b"a"),
        Append(path, TEXT, b"b", close=True),
        Append(path, TEXT, b"too late"),
        Delete(path),
        Delete(path),
        Create(path, "a/b", data=b"again"),
        Append(path, "a/b", b"!"),
    )
    expected = ["StreamNotFound", "created", "appended", "appended", "StreamClosed", "done", "StreamNotFound"]
    assert [word(outcome) for outcome in outcomes] == [*expected, "created", "appended"]
    assert content_of(path) == b"again!"
    assert Stream.objects.get(path=path).content_type == "a/b"


def test_a_refused_operation_does_not_affect_the_others() -> None:
    good, bad = fresh(), fresh()
    apply(Create(good, TEXT), Create(bad, TEXT, closed=True))
    outcomes, commits = apply(
        Append(good, TEXT, b"1"), Append(bad, TEXT, b"x"), Append("nowhere", TEXT, b"x"), Append(good, TEXT, b"2")
    )
    assert [word(outcome) for outcome in outcomes] == ["appended", "StreamClosed", "StreamNotFound", "appended"]
    assert content_of(good) == b"12"
    assert [commit.path for commit in commits] == [good]


def test_a_stream_that_is_created_again_has_a_new_id_and_no_old_data() -> None:
    path = fresh()
    apply(Create(path, TEXT, data=b"old"), Append(path, TEXT, b"x", seq="9", producer=ProducerClaim("p", 5, 0)))
    old = Stream.objects.get(path=path).pk
    apply(Delete(path))
    outcomes, _ = apply(
        Create(path, TEXT, data=b"new"), Append(path, TEXT, b"y", seq="1", producer=ProducerClaim("p", 0, 0))
    )
    assert [word(outcome) for outcome in outcomes] == ["created", "appended"]
    assert Stream.objects.get(path=path).pk != old
    assert content_of(path) == b"newy"


def test_six_hundred_appends_to_one_stream_are_one_chunk_in_order() -> None:
    path = fresh()
    apply(Create(path, TEXT))
    parts = [b"%d," % number for number in range(600)]
    outcomes, commits = apply(*(Append(path, TEXT, part) for part in parts))
    tails = [outcome.tail for outcome in outcomes if isinstance(outcome, Appended)]
    assert tails == sorted(set(tails))
    assert content_of(path) == b"".join(parts)
    assert Chunk.objects.filter(stream__path=path).count() == 1
    assert len(commits) == 1
    assert commits[0].ends == tails


def test_operations_on_twelve_hundred_streams_fit_in_one_batch() -> None:
    names = [fresh() for _ in range(1200)]
    outcomes, _ = apply(*(Create(name, TEXT, data=name.encode()) for name in names))
    assert {word(outcome) for outcome in outcomes} == {"created"}
    claim = ProducerClaim("p", 0, 0)
    outcomes, _ = apply(*(Append(name, TEXT, b"!", producer=claim) for name in names))
    assert {word(outcome) for outcome in outcomes} == {"appended"}
    assert content_of(names[-1]) == names[-1].encode() + b"!"
    outcomes, _ = apply(*(Append(name, TEXT, b"!", producer=claim) for name in names))
    assert {word(outcome) for outcome in outcomes} == {"duplicate"}
    assert {word(outcome) for outcome in apply(*map(Delete, names))[0]} == {"done"}
    assert not Stream.objects.filter(path__in=names).exists()


def queries_of(batch: Sequence[Operation]) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        outcomes, _ = apply(*batch)
    assert not [outcome for outcome in outcomes if isinstance(outcome, DurableStreamsError)]
    return len(captured)


@pytest.mark.parametrize("streams", [1, 20])
def test_the_number_of_queries_does_not_grow_with_the_number_of_appends(streams: int) -> None:
    names = [fresh() for _ in range(streams)]
    apply(*(Create(name, TEXT) for name in names))
    few = queries_of([Append(name, TEXT, b"x") for name in names for _ in range(2)])
    many = queries_of([Append(name, TEXT, b"x") for name in names for _ in range(20)])
    assert many == few <= 6


def test_the_number_of_queries_does_not_grow_with_the_number_of_streams() -> None:
    def batch(size: int) -> list[Operation]:
        names = [fresh() for _ in range(size)]
        return [
            operation
            for name in names
            for operation in (Create(name, TEXT, data=b"a"), Append(name, TEXT, b"b", close=True))
        ]

    assert queries_of(batch(200)) == queries_of(batch(2)) <= 6


def test_a_batch_that_fails_in_the_database_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    path = fresh()
    apply(Create(path, TEXT, data=b"before"))

    def broken(*arguments: object) -> None:
        raise RuntimeError("no chunks today")

    monkeypatch.setattr(type(statements("default")), "insert_chunks", broken)
    with pytest.raises(RuntimeError):
        apply(Append(path, TEXT, b"x", seq="5", producer=ProducerClaim("p", 0, 0)))
    monkeypatch.undo()
    row = Stream.objects.get(path=path)
    assert (row.tail_position, row.last_seq, content_of(path)) == (6, None, b"before")
    assert not Producer.objects.filter(stream=row).exists()


def test_a_large_commit_is_cut_into_chunks_between_appends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_rows, "MAX_CHUNK_BYTES", 10)
    path = fresh()
    apply(Create(path, TEXT))
    parts = [b"1234", b"5678", b"9", b"a" * 25, b"bc", b"d" * 9]
    apply(*(Append(path, TEXT, part) for part in parts))
    chunks = Chunk.objects.filter(stream__path=path).order_by("end")
    assert [bytes(chunk.data) for chunk in chunks] == [b"123456789", b"a" * 25, b"bc", b"d" * 9]
    ends = [end for chunk in chunks for end in chunk_rows.readable_ends(chunk.start, chunk.end, bytes(chunk.ends))]
    assert ends == [4, 8, 9, 34, 36, 45]


def test_a_fork_keeps_its_data_when_its_source_is_created_and_deleted_in_the_same_batch() -> None:
    source, fork = fresh(), fresh()
    outcomes, _ = apply(Create(source, TEXT, data=b"inherited"), Create(fork, None, fork=Fork(source)), Delete(source))
    assert [word(outcome) for outcome in outcomes] == ["created", "created", "done"]
    streams = log_reader.find([source, fork], "default")
    assert not isinstance(streams[source], StreamNotFound)  # gone, and kept for its fork
    info = streams[fork]
    assert not isinstance(info, DurableStreamsError)
    page = log_reader.pages([log_reader.PageRequest(info, 0, 100)], SegmentCache(0), "default")[info.id, 0]
    assert page is not None
    assert page.data == b"inherited"
