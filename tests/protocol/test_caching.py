import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol import caching
from django_durable_streams.protocol.caching import Caching

EPOCH = 1_728_432_000  # 2024-10-09T00:00:00Z
NOW = EPOCH + 20 * 1000 + 7


def test_cursors_count_intervals_of_twenty_seconds_from_the_epoch() -> None:
    assert caching.interval(EPOCH) == 0
    assert caching.interval(EPOCH + 19.9) == 0
    assert caching.interval(EPOCH + 20) == 1


@pytest.mark.parametrize("cursor", [None, "", "abc", "-5", "1.5", "9" * 257, "٣", "1000\n", "999", "0"])
def test_a_cursor_from_the_past_or_from_nowhere_gets_the_current_one(cursor: str | None) -> None:
    assert caching.cursor_floor(cursor, NOW) == 1000


@given(st.integers(1000, 10**20) | st.integers(10**200, 10**256 - 1))
def test_a_cursor_that_has_reached_the_present_gets_a_strictly_greater_one(cursor: int) -> None:
    result = caching.cursor_floor(str(cursor), NOW)
    assert cursor < result <= cursor + 3600 // 20


def test_the_jitter_is_random() -> None:
    assert len({caching.cursor_floor(str(10**6 + n), NOW) - n for n in range(50)}) > 5


def test_those_who_send_the_same_cursor_stay_together_for_an_interval() -> None:
    together = {caching.cursor_floor("2000", NOW + moment) for moment in (0, 3, 12.9)}
    assert len(together) == 1
    assert caching.cursor_floor("1000", NOW + 20) == 1001


tags = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.booleans())


@given(tags, tags)
def test_tags_are_equal_only_for_the_same_range_of_the_same_stream_in_the_same_state(
    one: tuple[int, int, int, bool], other: tuple[int, int, int, bool]
) -> None:
    assert (caching.etag(*one) == caching.etag(*other)) == (one == other)


TAG = b'"1:0:5"'


@pytest.mark.parametrize(
    "value",
    [
        '"1:0:5"',
        'W/"1:0:5"',
        "*",
        " * ",
        '"a", "1:0:5"',
        '"a",W/"1:0:5" , "b"',
        'W/"x","1:0:5"',
        '"1:0:5",',
        '"a,b", "1:0:5"',
    ],
)
def test_if_none_match_names_a_tag(value: str) -> None:
    assert caching.matches(value, TAG)


@pytest.mark.parametrize("value", ["", '"1:0:50"', "1:0:5", '"1:0:5:c"', '"*"', 'W/"a", "b"', '"x1:0:5"', "**"])
def test_if_none_match_does_not_name_a_tag(value: str) -> None:
    assert not caching.matches(value, TAG)


@given(tags, st.text(alphabet='Ww/"*:,5 01c\xe9', max_size=30))
def test_a_list_matches_only_if_the_tag_is_in_it(tag: tuple[int, int, int, bool], value: str) -> None:
    made = caching.etag(*tag)
    if caching.matches(value, made):
        assert value.strip() == "*" or made.decode() in value


@pytest.mark.parametrize(
    ("kind", "everybody_reads", "shared", "expected"),
    [
        (Caching.DATA, True, True, b"public, max-age=60, stale-while-revalidate=300"),
        (Caching.DATA, True, False, b"private, no-cache"),
        (Caching.DATA, False, True, b"private, no-cache"),
        (Caching.DATA, False, False, b"private, no-cache"),
        (Caching.REVALIDATE, True, True, b"no-cache"),
        (Caching.REVALIDATE, True, False, b"no-cache"),
        (Caching.REVALIDATE, False, True, b"private, no-cache"),
        (Caching.REVALIDATE, False, False, b"private, no-cache"),
        *[(Caching.NEVER, everybody, shared, b"no-store") for everybody in (True, False) for shared in (True, False)],
    ],
)
def test_only_what_everybody_may_read_is_ever_kept_without_asking(
    kind: Caching, everybody_reads: bool, shared: bool, expected: bytes
) -> None:
    assert caching.cache_control(kind, everybody_reads=everybody_reads, shared=shared) == expected
