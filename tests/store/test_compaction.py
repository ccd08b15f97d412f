"""Merging small chunks: the same bytes at the same positions, in few rows."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.store import compaction, reading, writing
from django_durable_streams.store.cache import SegmentCache
from django_durable_streams.store.compaction import Span
from django_durable_streams.store.operations import Append, Create
from django_durable_streams.store.rows import MAX_CHUNK_BYTES


def appended(path: str, parts: list[bytes]) -> Stream:
    writing.apply([Create(path, "text/plain")], "default")
    for part in parts:
        writing.apply([Append(path, "text/plain", part)], "default")
    return Stream.objects.get(path=path)


def everything(path: str, position: int = 0) -> tuple[bytes, list[int]]:
    info = reading.find([path], "default")[path]
    request = reading.PageRequest(info, position, 1 << 30)
    segment = reading.pages([request], SegmentCache(0), "default")[info.id, position]
    return segment.data, list(segment.ends)


@pytest.mark.django_db
def test_merging_changes_no_byte_and_no_offset():
    stream = appended("tokens", [b"%d " % number for number in range(300)])
    before = everything("tokens")
    assert compaction.compact("default", stream.pk) > 290
    assert everything("tokens") == before
    assert Chunk.objects.filter(stream=stream).count() < 10
    for position in before[1][:-1:17]:
        assert everything("tokens", position)[0] == before[0][position:]


@pytest.mark.django_db
def test_a_merged_stream_goes_on():
    stream = appended("tokens", [b"a"] * 50)
    compaction.compact("default", stream.pk)
    writing.apply([Append("tokens", "text/plain", b"b")], "default")
    assert everything("tokens")[0] == b"a" * 50 + b"b"
    assert compaction.compact("default", stream.pk) >= 0
    assert everything("tokens")[0] == b"a" * 50 + b"b"


@pytest.mark.django_db
def test_what_others_have_taken_away_is_left_alone():
    stream = appended("tokens", [b"a"] * 10)
    spans = list(
        compaction.plan(
            Span((pk,), start, end)
            for pk, start, end in Chunk.objects.filter(stream=stream).order_by("end").values_list("id", "start", "end")
        )
    )
    taken = Chunk.objects.filter(stream=stream).earliest("end")
    torn = next(span for span in spans if taken.pk in span.ids)
    taken.delete()
    assert compaction.merge("default", stream.pk, spans) == sum(len(span.ids) for span in spans if span is not torn)
    assert Chunk.objects.filter(pk__in=torn.ids).count() == len(torn.ids) - 1


@given(st.lists(st.integers(1, 3 * MAX_CHUNK_BYTES // 2), max_size=60))
def test_a_plan_leaves_each_chunk_larger_than_what_follows_or_large_enough(sizes):
    chunks, position = [], 0
    for number, size in enumerate(sizes):
        chunks.append(Span((number,), position, position + size))
        position += size
    planned = {span.ids[0]: span for span in compaction.plan(chunks)}
    after = []
    skip: set[int] = set()
    for chunk in chunks:
        if chunk.ids[0] in planned:
            after.append(planned[chunk.ids[0]])
            skip.update(planned[chunk.ids[0]].ids)
        elif chunk.ids[0] not in skip:
            after.append(chunk)
    assert [span.start for span in after[1:]] == [span.end for span in after[:-1]]
    assert sum(span.size for span in after) == position
    for one, following in pairwise(after):
        assert one.size >= 2 * following.size or one.size + following.size > MAX_CHUNK_BYTES
    assert all(span.size <= MAX_CHUNK_BYTES for span in planned.values())


def test_a_plan_does_not_reach_across_a_gap():
    assert list(compaction.plan([Span((1,), 0, 5), Span((2,), 9, 12)])) == []
