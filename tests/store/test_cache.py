from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol.segments import Segment
from django_durable_streams.store.cache import SegmentCache

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


def test_a_newer_segment_takes_the_place_of_an_older_one() -> None:
    cache = SegmentCache(LIMIT)
    newer = segment(20)
    cache.put(1, 0, segment(10))
    cache.put(1, 0, newer)
    assert cache.get(1, 0) is newer


def test_one_large_segment_does_not_push_out_all_others() -> None:
    cache = SegmentCache(LIMIT)
    cache.put(1, 0, segment(10))
    cache.put(2, 0, segment(LIMIT // 4))
    assert cache.get(2, 0) is None
    assert cache.get(1, 0) is not None


def test_without_memory_nothing_is_kept() -> None:
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


def test_what_is_read_often_stays() -> None:
    cache = SegmentCache(LIMIT)
    for number in range(50):
        cache.put(number, 0, segment(3000))
        assert cache.get(0, 0) is not None
    assert cache.get(1, 0) is None


@pytest.mark.parametrize("appends", [1, 2000])
def test_many_small_segments_or_appends_are_bounded_too(appends: int) -> None:
    cache = SegmentCache(LIMIT)
    many = Segment(0, b"x" * appends, range(1, appends + 1))
    for number in range(1000):
        cache.put(number, 0, many)
    assert sum(cache.get(number, 0) is not None for number in range(1000)) * (appends * 10 + 100) < LIMIT


operations = st.lists(
    st.tuples(st.sampled_from(["put", "get", "forget"]), st.integers(0, 4), st.integers(0, 3), st.integers(1, 4000)),
    max_size=60,
)


@given(operations)
def test_what_was_used_longest_ago_goes_first(steps: list[tuple[str, int, int, int]]) -> None:
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
            for known in [known for known in used if known[0] == stream_id]:
                del used[known]
        elif cache.get(*key) is not None:
            used.move_to_end(key)
        else:
            used.pop(key, None)
    kept = []
    for key, put in list(used.items()):
        found = cache._segments.get(key)
        assert found is None or found is put
        kept.append(found is not None)
    assert kept == sorted(kept)
    assert sum(2 * len(found.data) for found in cache._segments.values()) <= LIMIT
