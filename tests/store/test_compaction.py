"""Compaction: the same bytes at the same positions, in few rows."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.store.chunk_rows import MAX_CHUNK_BYTES, CorruptChunk
from django_durable_streams.store.operations import Append, Create
from django_durable_streams.store.upkeep import compaction
from django_durable_streams.store.upkeep.compaction import Span
from django_durable_streams.store.write import group_commit
from tests.store.contents import read


def appended(path: str, parts: list[bytes]) -> Stream:
    group_commit.apply([Create(path, "text/plain")], "default")
    for part in parts:
        group_commit.apply([Append(path, "text/plain", part)], "default")
    return Stream.objects.get(path=path)


@pytest.mark.django_db
def test_compaction_changes_no_byte_and_no_offset() -> None:
    stream = appended("tokens", [b"%d " % number for number in range(300)])
    before = read("tokens")
    assert compaction.compact("default", [stream.pk]) > 290
    assert read("tokens") == before
    assert Chunk.objects.filter(stream=stream).count() < 10
    for position in before[1][:-1:17]:
        assert read("tokens", position)[0] == before[0][position:]


@pytest.mark.django_db
def test_appends_continue_after_a_compaction() -> None:
    stream = appended("tokens", [b"a"] * 50)
    compaction.compact("default", [stream.pk])
    group_commit.apply([Append("tokens", "text/plain", b"b")], "default")
    assert read("tokens")[0] == b"a" * 50 + b"b"
    assert compaction.compact("default", [stream.pk]) >= 0
    assert read("tokens")[0] == b"a" * 50 + b"b"


@pytest.mark.django_db
def test_streams_that_grew_side_by_side_are_merged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MERGE_ROWS", 40)
    paths = [f"tokens/{number}" for number in range(7)]
    group_commit.apply([Create(path, "text/plain") for path in paths], "default")
    for number in range(16):
        # Some with several appends in one chunk, and bytes that are no text.
        parts = [b"%d\0\xff" % number] * (1 + number % 3)
        group_commit.apply([Append(path, "text/plain", part) for path in paths for part in parts], "default")
    before = {path: read(path) for path in paths}
    ids = list(Stream.objects.values_list("id", flat=True))
    monkeypatch.setattr(compaction, "PLAN_STREAMS", 3)
    portions = list(compaction.portions("default", ids, set()))
    assert {span.stream_id for portion in portions for span in portion} == set(ids)
    assert len(portions) > 2
    assert all(sum(len(span.ids) for span in portion) <= 40 for portion in portions)
    assert compaction.compact("default", ids) > 7 * 10
    assert {path: read(path) for path in paths} == before


def spans_of(stream: Stream) -> list[Span]:
    chunks = Chunk.objects.filter(stream=stream).order_by("end")
    return list(compaction.plan(chunks.values_list("stream_id", "id", "start", "end")))  # type: ignore[arg-type]


@pytest.mark.django_db
@pytest.mark.parametrize("when", ["before it is read", "after it was read"])
def test_a_span_with_a_missing_chunk_is_left_alone(when: str) -> None:
    stream = appended("tokens", [b"a"] * 10)
    spans = spans_of(stream)
    taken = Chunk.objects.filter(stream=stream).earliest("end")
    torn = next(span for span in spans if taken.pk in span.ids)
    if when == "before it is read":
        Chunk.objects.filter(pk=taken.pk).unguarded().delete()
    mergers = compaction.read("default", spans)
    if when == "after it was read":
        Chunk.objects.filter(pk=taken.pk).unguarded().delete()
    assert compaction.merge("default", mergers) == sum(len(span.ids) for span in spans if span is not torn)
    assert Chunk.objects.filter(pk__in=torn.ids).count() == len(torn.ids) - 1


@given(st.lists(st.integers(1, 3 * MAX_CHUNK_BYTES // 2), max_size=60))
def test_a_plan_leaves_each_chunk_larger_than_the_next_or_large_enough(sizes: list[int]) -> None:
    chunks, position = [], 0
    for number, size in enumerate(sizes):
        chunks.append((7, number, position, position + size))
        position += size
    planned = {span.ids[0]: span for span in compaction.plan(chunks)}
    after = []
    skip: set[int] = set()
    for chunk in chunks:
        if chunk[1] in planned:
            span = planned[chunk[1]]
            assert span.stream_id == 7
            assert list(span.ends) == [chunks[number][3] for number in span.ids]
            after.append((span.start, span.ends[-1]))
            skip.update(span.ids)
        elif chunk[1] not in skip:
            after.append(chunk[2:])
    assert [start for start, _ in after[1:]] == [end for _, end in after[:-1]]
    assert sum(end - start for start, end in after) == position
    for (one, middle), (_, end) in pairwise(after):
        assert middle - one >= 2 * (end - middle) or end - one > MAX_CHUNK_BYTES
    assert all(span.ends[-1] - span.start <= MAX_CHUNK_BYTES for span in planned.values())


def test_no_span_crosses_a_gap() -> None:
    chunks = [(7, number, start, start + 2) for number, start in enumerate([0, 2, 8, 10, 20])]
    assert [span.ids for span in compaction.plan(chunks)] == [(0, 1), (2, 3)]


@pytest.mark.django_db
@pytest.mark.parametrize(("rows", "planned"), [(7, 1000), (1000, 50), (7, 50), (2, 3)])
def test_the_rows_of_a_merging_transaction_are_bounded(
    rows: int, planned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MERGE_ROWS", rows)
    monkeypatch.setattr(compaction, "PLAN_ROWS", planned)
    ids = [appended(path, [b"%d " % number for number in range(120)]).pk for path in ("one", "two", "three")]
    before = [read(path) for path in ("one", "two", "three")]
    sizes = []
    real = compaction.merge

    def merge(using: str, mergers: list[compaction.Merger]) -> int:
        sizes.append(sum(len(merger.span.ids) for merger in mergers))
        return real(using, mergers)

    monkeypatch.setattr(compaction, "merge", merge)
    compaction.compact("default", ids)
    assert max(sizes) <= rows
    assert [read(path) for path in ("one", "two", "three")] == before
    assert all(Chunk.objects.filter(stream_id=stream_id).count() < 10 for stream_id in ids)


@pytest.mark.django_db
@pytest.mark.parametrize("damage", [{"ends": b"\1\2\3"}, {"ends": b"\2\0\0\0"}, {"data": b"xx"}, {"data": b""}])
def test_a_corrupt_chunk_is_not_merged(damage: dict[str, bytes]) -> None:
    fine, torn, other = (appended(path, [b"a", b"b", b"c"] * 4) for path in ("fine", "torn", "other"))
    Chunk.objects.filter(pk=Chunk.objects.filter(stream=torn).order_by("end")[5].pk).unguarded().update(**damage)
    there = list(Chunk.objects.filter(stream=torn).values_list())
    spans = [span for stream in (fine, torn, other) for span in spans_of(stream)]
    with pytest.raises(CorruptChunk):
        compaction.read("default", spans)
    assert compaction.merge("default", compaction.read("default", [s for s in spans if s.stream_id != torn.pk])) == 24
    assert list(Chunk.objects.filter(stream=torn).values_list()) == there
    assert read("fine") == read("other") == (b"abc" * 4, list(range(1, 13)))
