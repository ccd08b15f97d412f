import gc
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.engine import engine_for
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.store.operations import Commit
from django_durable_streams.store.read.segment_cache import SegmentCache

LIMIT = 40_000


def segment(size: int, start: int = 0) -> Segment:
    return Segment(start, b"x" * size, [start + size])


def test_a_segment_is_found_by_its_stream_and_position() -> None:
    cache = SegmentCache(LIMIT)
    kept = segment(10)
    cache.put(1, 0, kept)
    assert cache.get(1, 0) is kept
    assert cache.get(1, 1) is None
    assert cache.get(2, 0) is None


def test_a_stream_with_the_id_of_another_one_gets_none_of_its_segments() -> None:
    cache = SegmentCache(LIMIT)
    cache.put(1, 0, segment(10), generation=5)
    assert cache.get(1, 0, generation=6) is None
    assert cache.get(1, 0, generation=5) is not None
    cache.forget(1)
    assert cache.get(1, 0, generation=5) is None


def test_a_newer_segment_replaces_an_older_one() -> None:
    cache = SegmentCache(LIMIT)
    newer = segment(20)
    cache.put(1, 0, segment(10))
    cache.put(1, 0, newer)
    assert cache.get(1, 0) is newer


def test_one_large_segment_does_not_evict_all_others() -> None:
    cache = SegmentCache(LIMIT)
    cache.put(1, 0, segment(10))
    cache.put(2, 0, segment(LIMIT // 4))
    assert cache.get(2, 0) is None
    assert cache.get(1, 0) is not None


def test_a_cache_without_memory_caches_nothing() -> None:
    cache = SegmentCache(0)
    cache.put(1, 0, segment(1))
    assert cache.get(1, 0) is None


def test_a_stream_can_be_forgotten() -> None:
    cache = SegmentCache(LIMIT)
    for position in range(5):
        cache.put(1, position, segment(1, position))
    cache.put(2, 0, segment(1))
    cache.forget(1)
    assert [cache.get(1, position) for position in range(5)] == [None] * 5
    assert cache.get(2, 0) is not None


def test_segments_that_are_read_often_stay() -> None:
    cache = SegmentCache(LIMIT)
    for number in range(50):
        cache.put(number, 0, segment(3000))
        assert cache.get(0, 0) is not None
    assert cache.get(1, 0) is None


@pytest.mark.parametrize("appends", [1, 2000])
def test_many_small_segments_or_appends_are_bounded_too(appends: int) -> None:
    cache = SegmentCache(LIMIT)
    many = Segment(0, b"x" * appends, list(range(1, appends + 1)))
    for number in range(1000):
        cache.put(number, 0, many)
    assert sum(cache.get(number, 0) is not None for number in range(1000)) * (appends * 10 + 100) < LIMIT


operations = st.lists(
    st.tuples(st.sampled_from(["put", "get", "forget"]), st.integers(0, 4), st.integers(0, 3), st.integers(1, 4000)),
    max_size=60,
)


@given(operations)
def test_the_least_recently_used_segments_are_dropped_first(steps: list[tuple[str, int, int, int]]) -> None:
    """Whatever the cache still has is a suffix of what was used, in the order of use."""
    cache = SegmentCache(LIMIT)
    used: OrderedDict[tuple[int, int], Segment] = OrderedDict()
    for step, stream_id, position, size in steps:
        key = (stream_id, position)
        if step == "put":
            used.pop(key, None)
            used[key] = segment(size, position)
            cache.put(*key, used[key])
        elif step == "forget":
            cache.forget(stream_id)
            for key in [key for key in used if key[0] == stream_id]:
                del used[key]
        elif cache.get(*key) is not None:
            used.move_to_end(key)
        else:
            used.pop(key, None)
    kept = []
    for key, put in list(used.items()):
        entry = cache._entries.get((*key, 0))
        assert entry is None or entry.segment is put
        kept.append(entry is not None)
    assert kept == sorted(kept)
    assert sum(entry.size for entry in cache._entries.values()) == cache._size <= LIMIT
    assert cache._newest.keys() == {key[0] for key in cache._entries}


JSON = "application/json"
BUDGET = 1_000_000


def text_of(appends: int, size: int) -> Segment:
    return Segment(10**9, bytes([120]) * (appends * size), [10**9 + size * number for number in range(1, appends + 1)])


def json_of(appends: int, size: int) -> Segment:
    data = (b'"' + b"x" * (size - 3) + b'"\n') * appends
    return Segment(10**9, bytes(bytearray(data)), [10**9 + size * number for number in range(1, appends + 1)])


@pytest.mark.parametrize("forms", [(), ("body",), ("body", "data_event")], ids=" and ".join)
@pytest.mark.parametrize("make", [text_of, json_of])
@pytest.mark.parametrize(("appends", "size"), [(1, 10), (1, 100), (50, 8), (2000, 10), (100, 1000), (1, 80_000)])
@pytest.mark.slow
def test_the_counted_size_is_the_memory_in_use(
    appends: int, size: int, make: Callable[[int, int], Segment], forms: tuple[str, ...]
) -> None:
    cache = SegmentCache(BUDGET)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(BUDGET // max(appends * size, 400)):
            segment = make(appends, size)
            cache.put(10**6 + number, 10**9 + number, segment)
            for form in forms:
                getattr(segment, form)(JSON if make is json_of else "text/plain")
        del segment
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1.05 * BUDGET
    assert cache._size <= BUDGET
    assert 0.75 * cache._size < taken < 1.05 * cache._size + 20_000


def test_encoding_a_segment_evicts_others() -> None:
    cache = SegmentCache(LIMIT)
    segments = [json_of(1, 8000) for _ in range(4)]
    for number, kept in enumerate(segments):
        cache.put(number, 0, kept)
    assert all(cache.get(number, 0) is not None for number in range(4))
    for kept in segments:
        kept.body(JSON)
    remaining = [number for number in range(4) if cache.get(number, 0) is not None]
    assert remaining == [2, 3]
    segments[0].data_event(JSON)  # nobody keeps it any more
    assert [number for number in range(4) if cache.get(number, 0) is not None] == remaining


def test_forgetting_a_stream_touches_no_segments_of_others(engines: None) -> None:
    """A delete or an expiry must not scan the segments of all streams: that would block the commits."""

    class Untouched(OrderedDict[tuple[int, int, int], Any]):
        def __iter__(self) -> Iterator[tuple[int, int, int]]:
            raise AssertionError("the whole cache is scanned")

    engine = engine_for()
    engine.cache._entries = Untouched()
    for number in range(100):
        engine.cache.put(number, 0, segment(1))
    engine.feed([Commit(number, f"s/{number}", "text/plain", 0, 1, False, removed=True) for number in range(90)])
    assert [number for number in range(100) if engine.cache.get(number, 0) is not None] == list(range(90, 100))


def test_a_segment_that_is_cached_for_two_positions_counts_its_encoded_form() -> None:
    cache = SegmentCache(100_000)
    shared = Segment(0, b'"x"\n' * 1000, [4000])
    for position in (0, 1):
        cache.put(1, position, shared)
    cache.put(1, 0, Segment(0, b'"y"\n', [4]))  # the segment stays, for the other position
    before = cache._size
    body = shared.body("application/json")
    assert cache._size >= before + len(body)
