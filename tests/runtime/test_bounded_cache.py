"""The bounded cache keeps both limits, whatever the order of calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.runtime.bounded_cache import BoundedCache


def test_the_oldest_entry_makes_room_for_a_new_one() -> None:
    cache = BoundedCache[str, int](2)
    for number, key in enumerate("abc"):
        cache.put(key, number)
    assert [cache.get(key) for key in "abc"] == [None, 1, 2]


def test_an_entry_that_is_stored_again_is_the_newest() -> None:
    cache = BoundedCache[str, int](2)
    for key in "abac":
        cache.put(key, 0)
    assert [key for key in "abc" if cache.get(key) is not None] == ["a", "c"]


def test_keys_count_by_their_bytes() -> None:
    cache = BoundedCache[str, int](100, max_bytes=10, size_of=len)
    cache.put("x" * 6, 1)
    cache.put("y" * 6, 2)
    assert (cache.get("x" * 6), cache.get("y" * 6)) == (None, 2)


def test_a_key_over_the_limit_is_not_stored_and_drops_nothing() -> None:
    cache = BoundedCache[str, int](100, max_bytes=10, size_of=len)
    cache.put("x", 1)
    cache.put("y" * 11, 2)
    assert (cache.get("x"), cache.get("y" * 11)) == (1, None)


def test_entries_are_dropped_by_key_by_value_and_all() -> None:
    cache = BoundedCache[str, int](10)
    for number, key in enumerate("abcd"):
        cache.put(key, number)
    cache.pop("a")
    cache.pop("unknown")
    cache.drop_where(lambda value: value > 2)
    assert [key for key in "abcd" if cache.get(key) is not None] == ["b", "c"]
    cache.clear()
    assert len(cache) == 0
    assert cache.get("b") is None


def test_a_missing_entry_has_a_default() -> None:
    assert BoundedCache[str, int](1).get("a", 7) == 7


@pytest.mark.parametrize("bound", [None, 12])
@given(st.data())
def test_the_limits_hold(bound: int | None, data: st.DataObject) -> None:
    cache = BoundedCache[str, int](4, max_bytes=bound, size_of=len)
    keys = ["x" * size for size in range(1, 15)]
    operations: list[Callable[[str], None]] = [lambda key: cache.put(key, len(key)), cache.pop]
    for key in data.draw(st.lists(st.sampled_from(keys), max_size=40)):
        data.draw(st.sampled_from(operations))(key)
        stored = [key for key in keys if cache.get(key) is not None]
        assert len(stored) == len(cache) <= 4
        assert bound is None or sum(map(len, stored)) <= bound
