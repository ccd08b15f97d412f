"""Pages, against streams in plain Python."""

from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams import clock
from django_durable_streams.models import Chunk, Stream
from django_durable_streams.protocol.errors import StreamGone, StreamNotFound
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.store import chunk_rows
from django_durable_streams.store.operations import Append, Create, Delete, Fork
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.read.log_reader import PageRequest
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.stream_info import StreamInfo
from django_durable_streams.store.write import group_commit
from tests.store.model import ModelStream
from tests.tokens import offset_in

pytestmark = pytest.mark.django_db

BYTES = "application/octet-stream"
_numbers = count()


def fresh() -> str:
    return f"r{next(_numbers)}"


def create(*batches: list[bytes]) -> StreamInfo:
    """Create a stream with several commits of several appends each, and return it as a reader sees it."""
    path = fresh()
    group_commit.apply([Create(path, BYTES)], "default")
    for batch in batches:
        group_commit.apply([Append(path, BYTES, data) for data in batch], "default")
    return find(path)


def find(path: str) -> StreamInfo:
    info = log_reader.find([path], "default")[path]
    assert isinstance(info, StreamInfo)
    return info


def page(info: StreamInfo, position: int, limit: int, cache: SegmentCache | None = None) -> Segment | None:
    request = PageRequest(info, position, limit)
    return log_reader.pages([request], cache or SegmentCache(0), "default")[info.id, position]


def expected(model: ModelStream, position: int, limit: int) -> tuple[int, list[int]] | None:
    """The start of a page from a position, and the ends of its appends: as many as fit, and at least one."""
    start = 0
    ends: list[int] = []
    for end in model.ends:
        if end <= position:
            start = end
        elif not ends or end <= position + limit:
            ends.append(end)
    return (start, ends) if ends else None


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_rows, "MAX_CHUNK_BYTES", 12)


commits = st.lists(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=6), max_size=6)
limits = st.integers(1, 40)
caches = st.sampled_from([0, 6000, 10_000_000]).map(SegmentCache)


@given(commits, limits)
def test_a_page_from_any_position_has_as_many_whole_appends_as_fit(batches: list[list[bytes]], limit: int) -> None:
    info = create(*batches)
    model = ModelStream(BYTES, appends=[data for batch in batches for data in batch])
    for position in range(info.tail + 1):
        segment = page(info, position, limit)
        wanted = expected(model, position, limit)
        assert (segment is None) == (wanted is None)
        if segment is not None and wanted is not None:
            assert (segment.start, list(segment.ends)) == wanted
            assert segment.data == model.content[segment.start : segment.end]


@given(commits, st.lists(st.tuples(st.integers(0, 80), limits), min_size=1, max_size=12), caches)
def test_with_any_cached_segments_pages_are_exact_and_of_whole_appends(
    batches: list[list[bytes]], reads: list[tuple[int, int]], cache: SegmentCache
) -> None:
    path = fresh()
    group_commit.apply([Create(path, BYTES)], "default")
    model = ModelStream(BYTES)
    for step in range(max(len(batches), 1)):
        if step < len(batches):
            group_commit.apply([Append(path, BYTES, data) for data in batches[step]], "default")
            model.appends += batches[step]
        info = find(path)
        for position, limit in reads:
            position %= info.tail + 1
            segment = page(info, position, limit, cache)
            assert (segment is None) == (position == info.tail)
            if segment is None:
                continue
            assert segment.start in [0, *model.ends]
            assert segment.start <= position < segment.ends[0]
            assert set(segment.ends) <= set(model.ends)
            assert segment.data == model.content[segment.start : segment.end]
            assert segment.end <= position + limit or len(segment.ends) == 1


@given(commits, limits, caches, st.integers(0, 80))
def test_pages_that_follow_each_other_have_all_data(
    batches: list[list[bytes]], limit: int, cache: SegmentCache, begin: int
) -> None:
    info = create(*batches)
    model = ModelStream(BYTES, appends=[data for batch in batches for data in batch])
    position = min(begin, info.tail)
    wanted = expected(model, position, info.tail + 1)
    got = b""
    for _ in range(len(model.appends) + 1):
        segment = page(info, position, limit, cache)
        if segment is None:
            break
        assert segment.end > position
        got += segment.data
        position = segment.end
    assert position == info.tail
    assert got == (model.content[wanted[0] :] if wanted is not None else b"")


@given(st.lists(st.tuples(commits, st.integers(0, 60)), min_size=1, max_size=4), limits, caches)
@pytest.mark.slow
def test_a_chain_of_forks_reads_like_one_stream(
    generations: list[tuple[list[list[bytes]], int]], limit: int, cache: SegmentCache
) -> None:
    model = ModelStream(BYTES)
    path = fresh()
    group_commit.apply([Create(path, BYTES)], "default")
    for number, (batches, cut) in enumerate(generations):
        if number:
            source, path, cut = path, fresh(), min(cut, len(model.content))
            group_commit.apply([Create(path, None, fork=Fork(source, offset_in(source, cut)))], "default")
            whole = [data for data, end in zip(model.appends, model.ends, strict=True) if end <= cut]
            rest = model.content[sum(map(len, whole)) : cut]
            model = ModelStream(BYTES, appends=[*whole, *([rest] if rest else [])])
        for batch in batches:
            group_commit.apply([Append(path, BYTES, data) for data in batch], "default")
            model.appends += batch
    info = find(path)
    assert info.tail == len(model.content)
    for position in range(info.tail):
        segment = page(info, position, limit, cache)
        assert segment is not None
        assert segment.start <= position < segment.ends[0]
        assert set(segment.ends) <= set(model.ends)
        assert segment.data == model.content[segment.start : segment.end]
        assert segment.end <= position + limit or len(segment.ends) == 1


@given(st.lists(st.tuples(commits, st.integers(0, 40), limits), min_size=1, max_size=12))
def test_many_pages_at_once_are_the_same_as_each_alone(reads: list[tuple[list[list[bytes]], int, int]]) -> None:
    requests = [
        PageRequest(info, min(position, info.tail), limit)
        for batches, position, limit in reads
        for info in [create(*batches)]
    ]
    together = log_reader.pages(requests, SegmentCache(0), "default")
    for request in requests:
        one = together[request.info.id, request.position]
        alone = page(request.info, request.position, request.limit)
        assert (one and (one.start, one.data, one.ends)) == (alone and (alone.start, alone.data, alone.ends))


def test_no_page_begins_after_the_tail() -> None:
    info = create([b"abc"])
    assert page(info, 3, 10) is None
    assert page(info, 99, 10) is None


def test_a_cached_page_takes_no_query() -> None:
    info = create([b"abc", b"def"])
    cache = SegmentCache(10_000)
    page(info, 0, 100, cache)
    with CaptureQueriesContext(connection) as captured:
        segment = page(info, 0, 100, cache)
    assert segment is not None
    assert segment.data == b"abcdef"
    assert len(captured) == 0


def test_many_reads_at_the_tail_of_one_stream_take_one_query() -> None:
    info = create([b"abc", b"def"])
    with CaptureQueriesContext(connection) as captured:
        log_reader.pages([PageRequest(info, 3, 100)] * 500, SegmentCache(0), "default")
    assert len(captured) <= 1


def test_a_page_of_a_large_stream_reads_only_its_own_chunks() -> None:
    info = create(*[[b"x" * 9] for _ in range(50)])
    with CaptureQueriesContext(connection) as captured:
        page(info, 90, 20)
    (query,) = captured
    with connection.cursor() as cursor:
        cursor.execute(query["sql"])
        assert len(cursor.fetchall()) <= 4


def test_a_page_ends_before_missing_data() -> None:
    info = create([b"aaaaaaaaa"], [b"bbbbbbbbb"], [b"ccccccccc"])
    Chunk.objects.filter(stream_id=info.id).unguarded().delete()
    assert page(info, 0, 100) is None
    torn = create([b"aaaaaaaaa"], [b"bbbbbbbbb"], [b"ccccccccc"])
    Chunk.objects.filter(stream_id=torn.id, start=9).unguarded().delete()
    segment = page(torn, 0, 100)
    assert segment is not None
    assert segment.data == b"aaaaaaaaa"


def test_many_paths_take_one_query() -> None:
    paths = [create().path for _ in range(50)]
    with CaptureQueriesContext(connection) as captured:
        results = log_reader.find([*paths, "nowhere"], "default")
    assert len(captured) <= 1
    assert [results[path].id for path in paths] == sorted(
        info.id for info in results.values() if isinstance(info, StreamInfo)
    )
    assert isinstance(results["nowhere"], StreamNotFound)


def test_an_expired_stream_is_not_found_and_can_be_created_again() -> None:
    path = fresh()
    group_commit.apply([Create(path, BYTES, ttl=60, data=b"old")], "default")
    old = find(path).id
    Stream.objects.filter(path=path).unguarded().update(deadline=timezone.now() - timedelta(microseconds=1))
    assert isinstance(log_reader.find([path], "default")[path], StreamNotFound)
    assert log_reader.find_ids([old], "default") == {}
    outcomes, commits = group_commit.apply([Append(path, BYTES, b"x"), Create(path, BYTES, data=b"new")], "default")
    assert isinstance(outcomes[0], StreamNotFound)
    assert [commit.stream_id for commit in commits if commit.removed] == [old]
    info = find(path)
    segment = page(info, 0, 100)
    assert info.id != old
    assert segment is not None
    assert segment.data == b"new"


def test_the_clock_alone_ends_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    path = fresh()
    now = timezone.now()
    group_commit.apply([Create(path, BYTES, expires_at=now + timedelta(hours=1))], "default")

    def read_at(moment: timedelta) -> Any:
        monkeypatch.setattr(clock, "now", lambda: now + moment)
        return log_reader.find([path], "default")[path]

    assert isinstance(read_at(timedelta(minutes=59)), StreamInfo)
    assert isinstance(read_at(timedelta(minutes=61)), StreamNotFound)


def test_a_deleted_source_is_gone_while_its_fork_reads_on() -> None:
    source, fork = create([b"abc", b"def"]).path, fresh()
    group_commit.apply([Create(fork, None, fork=Fork(source, offset_in(source, 3))), Delete(source)], "default")
    assert isinstance(log_reader.find([source], "default")[source], StreamGone)
    segment = page(find(fork), 0, 100)
    assert segment is not None
    assert segment.data == b"abc"
