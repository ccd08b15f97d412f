"""Staged chunks: read like all others, and flushed without a change of any byte or offset."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TransactionTestCase

from django_durable_streams.models import Chunk, StagedChunk, Stream
from django_durable_streams.store import staged_rows
from django_durable_streams.store.chunk_rows import CorruptChunk
from django_durable_streams.store.operations import Append, Create, Delete, Fork
from django_durable_streams.store.read import browsing, log_reader
from django_durable_streams.store.sql import statements
from django_durable_streams.store.upkeep import compaction, removal, staged_chunks
from django_durable_streams.store.write import group_commit
from tests.store.contents import read
from tests.store.contexts import Staging
from tests.tokens import offset_in

pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite has staged chunks")

TEXT = "text/plain"


def small_blocks() -> Iterator[None]:
    """Blocks of eight ids."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagedChunk, "BLOCK_BITS", 3)
        statements.cache_clear()
        yield
    statements.cache_clear()


blocks_of_eight = pytest.fixture(small_blocks)


def append(path: str, *parts: bytes, is_staged: bool = True) -> None:
    group_commit.apply([Append(path, TEXT, part) for part in parts], "default", Staging(is_staged))


def create(*paths: str) -> list[Stream]:
    group_commit.apply([Create(path, TEXT) for path in paths], "default")
    return [Stream.objects.get(path=path) for path in paths]


def fail(stream_id: int, error: CorruptChunk) -> None:
    raise error


def flush_block(number: int) -> None:
    for portion in staged_chunks.portions("default", number, fail):
        assert staged_chunks.flush("default", portion)


def flush_all() -> None:
    for number in staged_rows.blocks("default"):
        flush_block(number)


def where(stream: Stream) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the chunks of a stream, and its staged ones."""
    chunks = Chunk.objects.filter(stream=stream).order_by("end").values_list("start", "end")
    waiting = staged_rows.chunks("default").filter(stream=stream).order_by("end").values_list("start", "end")
    return list(chunks), list(waiting)


@pytest.mark.django_db
def test_staged_chunks_are_read_like_others() -> None:
    (stream,) = create("s")
    append("s", b"one ", is_staged=False)
    append("s", b"two ", b"three ")
    append("s", b"four ", is_staged=False)
    append("s", b"five")
    assert where(stream) == ([(0, 4), (14, 19)], [(4, 14), (19, 23)])
    assert read("s") == (b"one two three four five", [4, 8, 14, 19, 23])
    assert read("s", 8, 2) == (b"three ", [14])
    assert read("s", 23) == (b"", [])


@pytest.mark.django_db
@pytest.mark.usefixtures("blocks_of_eight")
def test_a_flush_makes_one_chunk_of_each_stream_in_a_block() -> None:
    streams = create("a", "b", "c")
    for number in range(10):
        for path in "abc":
            append(path, b"%s%d;" % (path.encode(), number))
    before = {path: read(path) for path in "abc"}
    numbers = staged_rows.blocks("default")
    assert len(numbers) >= 4
    flush_block(numbers[1])
    assert {path: read(path) for path in "abc"} == before
    assert staged_rows.blocks("default") == [numbers[0], *numbers[2:]]
    flush_all()
    assert not StagedChunk.objects.exists()
    assert {path: read(path) for path in "abc"} == before
    assert all(len(where(stream)[0]) <= len(numbers) for stream in streams)
    assert read("b", 3 * 7) == (before["b"][0][21:], before["b"][1][7:])


@pytest.mark.django_db
@pytest.mark.parametrize("rows", [1, 7])
def test_a_block_of_many_streams_is_flushed_in_portions(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MERGE_ROWS", rows)
    paths = [f"s/{number}" for number in range(6)]
    streams = create(*paths)
    for number in range(3):
        for path in paths:
            append(path, b"%d" % number)
    before = {path: read(path) for path in paths}
    (number,) = staged_rows.blocks("default")
    portions = list(staged_chunks.portions("default", number, fail))
    assert [len(portion.ids) for portion in portions] == ([3] * 6 if rows == 1 else [6] * 3)
    assert set().union(*(portion.stream_ids for portion in portions)) == {stream.pk for stream in streams}
    for portion in reversed(portions):
        assert {path: read(path) for path in paths} == before
        assert staged_chunks.flush("default", portion)
    assert {path: read(path) for path in paths} == before
    assert not StagedChunk.objects.exists()


@pytest.mark.django_db
def test_a_flushed_chunk_does_not_span_appends_of_others() -> None:
    (stream,) = create("s")
    append("s", b"aa", b"a")
    append("s", b"b")
    append("s", b"other", is_staged=False)
    append("s", b"c")
    before = read("s")
    flush_all()
    assert where(stream) == ([(0, 4), (4, 9), (9, 10)], [])
    assert read("s") == before


@pytest.mark.django_db
def test_large_chunks_are_not_staged() -> None:
    (stream,) = create("s")
    append("s", b"x" * StagedChunk.MAX_BYTES)
    append("s", b"y" * (StagedChunk.MAX_BYTES + 1))
    chunks, waiting = where(stream)
    assert (len(chunks), len(waiting)) == (1, 1)
    assert read("s")[1] == [512, 1025]


@pytest.mark.django_db
@pytest.mark.parametrize("other", ["flushed it", "removed a stream", "removed one of two and appended to the other"])
def test_a_block_that_has_changed_is_left_alone(other: str) -> None:
    one, _ = create("one", "two")
    append("one", b"1")
    append("two", b"2")
    (number,) = staged_rows.blocks("default")
    (portion,) = staged_chunks.portions("default", number, fail)
    match other:
        case "flushed it":
            flush_all()
        case "removed a stream":
            group_commit.apply([Delete("one")], "default")
            assert removal.purge("default")
            assert not staged_rows.chunks("default").filter(stream=one)
        case _:  # as many chunks as before, and others
            group_commit.apply([Delete("one")], "default")
            StagedChunk.objects.filter(stream=one).unguarded().delete()
            append("two", b"3")
    there = [*Chunk.objects.values_list(), *StagedChunk.objects.values_list()]
    assert not staged_chunks.flush("default", portion)
    assert [*Chunk.objects.values_list(), *StagedChunk.objects.values_list()] == there


@pytest.mark.django_db
@pytest.mark.parametrize("count", [1, 3])
def test_appends_during_a_flush_are_not_lost(count: int) -> None:
    """Only what was read goes: whatever has come into the block since stays, whoever else has taken something away."""
    create("old", "read", "new")
    append("old", b"1")
    append("read", b"2")
    (number,) = staged_rows.blocks("default")
    first, second = (half for portion in staged_chunks.portions("default", number, fail) for half in portion.halves())
    for _ in range(count):
        append("read", b"acknowledged")
        append("new", b"too")
    assert staged_chunks.flush("default", second)
    group_commit.apply([Delete("old")], "default")
    assert removal.purge("default")
    assert not staged_chunks.flush("default", first)
    assert read("read")[0] == b"2" + count * b"acknowledged"
    assert read("new")[0] == count * b"too"
    flush_all()
    assert read("read")[0] == b"2" + count * b"acknowledged"


@pytest.mark.django_db
@pytest.mark.parametrize("damage", [{"ends": b"\1\2\3"}, {"ends": b"\1\0\0\0"}, {"data": b"x"}, {"end": 77}])
def test_a_corrupt_chunk_is_not_flushed(damage: dict[str, object]) -> None:
    streams = create("a", "torn", "z")
    for path in ("a", "torn", "z"):
        append(path, b"12", b"345")
    StagedChunk.objects.filter(stream=streams[1]).unguarded().update(**damage)
    (number,) = staged_rows.blocks("default")
    corrupt = []
    for portion in staged_chunks.portions("default", number, lambda *what: corrupt.append(what)):
        assert staged_chunks.flush("default", portion)
    ((stream_id, error),) = corrupt
    assert (stream_id, type(error)) == (streams[1].pk, CorruptChunk)
    assert StagedChunk.objects.get().stream_id == stream_id
    assert read("a") == read("z") == (b"12345", [2, 5])


@pytest.mark.django_db
def test_a_purge_deletes_staged_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "PURGE_ROWS", 2)
    create("s", "other")
    for _ in range(5):
        append("s", b"x")
    append("s", b"x", is_staged=False)
    append("other", b"y")
    group_commit.apply([Delete("s")], "default")
    while removal.purge("default"):
        pass
    assert StagedChunk.objects.count() == 1
    assert not Chunk.objects.exists()
    assert Stream.objects.count() == 1


@pytest.mark.django_db
def test_rows_of_a_stream_that_was_deleted_by_hand_block_no_flush() -> None:
    gone, _ = create("gone", "there")
    append("gone", b"\xff\0 bytes")
    append("there", b"12", b"3")
    append("gone", b"more")
    append("there", b"4")
    Stream.objects.filter(pk=gone.pk).unguarded()._raw_delete("default")
    flush_all()
    assert not StagedChunk.objects.exists()
    assert list(Chunk.objects.values_list("data", flat=True)) == [b"1234"]
    assert read("there") == (b"1234", [2, 3, 4])


@pytest.mark.django_db
@pytest.mark.usefixtures("blocks_of_eight")
def test_blocks_are_due_when_there_are_many_or_after_a_quiet_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert staged_chunks.due("default") is None
    create("s")
    for _ in range(40):
        append("s", b"x")
    oldest, *others = staged_rows.blocks("default")
    assert staged_chunks.due("default") is None
    assert staged_chunks.due("default", timezone.now() + timedelta(seconds=10)) == (oldest, False)
    monkeypatch.setattr(staged_chunks, "MAX_BLOCKS", len(others))
    assert staged_chunks.due("default") == (oldest, True)
    flush_block(oldest)
    assert staged_chunks.due("default") is None
    for _ in others:
        block_due = staged_chunks.due("default", timezone.now() + timedelta(seconds=10))
        assert block_due is not None
        flush_block(block_due.block)
    assert staged_chunks.due("default", timezone.now() + timedelta(seconds=10)) is None


@pytest.mark.django_db
def test_a_fork_reads_staged_chunks_of_its_source() -> None:
    (source,) = create("source")
    for number in range(6):
        append("source", b"%d" % number)
    group_commit.apply([Create("fork", TEXT, fork=Fork("source", offset_in("source", 4)))], "default")
    append("fork", b"!")
    append("source", b"?")
    assert read("fork")[0] == b"0123!"
    flush_all()
    assert read("fork") == (b"0123!", [1, 2, 3, 4, 5])
    compaction.compact("default", [source.pk])
    assert read("fork")[0] == b"0123!"


@pytest.mark.django_db
def test_people_see_staged_chunks() -> None:
    create("s")
    for number in range(30):
        append("s", b"%02d" % number, is_staged=number % 7 != 3)
    info = log_reader.find_ids([Stream.objects.get().pk], "default").popitem()[1]
    for _ in range(2):
        messages = browsing.before(info, 40, limit=100, count=5, using="default")
        assert [message.data for message in messages] == [b"15", b"16", b"17", b"18", b"19"]
        messages = browsing.before(info, 41, limit=100, count=3, using="default")
        assert [message.data for message in messages] == [b"18", b"19", b"2"]
        flush_all()


@pytest.mark.slow
class ReadsTest(TransactionTestCase):
    """In any order of appends, flushes and compactions, each read returns the appended bytes."""

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["staged", "staged", "staged", "direct", "flush", "compact", "delete"]),
                st.integers(0, 3),
                st.lists(st.binary(min_size=1, max_size=3) | st.just(b"x" * 600), min_size=1, max_size=3),
            ),
            max_size=40,
        )
    )
    def test_reads(self, steps: list[tuple[str, int, list[bytes]]]) -> None:
        for _ in small_blocks():
            paths = [f"s/{number}" for number in range(4)]
            create(*paths)
            expected: dict[str, list[bytes]] = {path: [] for path in paths}
            for step, number, parts in steps:
                path = paths[number]
                match step:
                    case "flush":
                        for block in staged_rows.blocks("default")[: number + 1]:
                            flush_block(block)
                    case "compact":
                        compaction.compact("default", [Stream.objects.get(path=path).pk])
                    case "delete":
                        group_commit.apply([Delete(path), Create(path, TEXT)], "default")
                        expected[path] = []
                        while number and removal.purge("default"):
                            pass
                    case _:
                        append(path, *parts, is_staged=step == "staged")
                        expected[path] += parts
                for path, appended in expected.items():
                    ends = [len(b"".join(appended[: count + 1])) for count in range(len(appended))]
                    assert read(path) == (b"".join(appended), ends)
                    for position, end in pairwise(ends):
                        assert read(path, position, 1) == (b"".join(appended)[position:end], [end])
            Chunk.objects.unguarded().delete()
            Stream.objects.unguarded()._raw_delete("default")
            StagedChunk.objects.unguarded().delete()
