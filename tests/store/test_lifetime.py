from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol.arguments import MAX_TTL_SECONDS
from django_durable_streams.store import lifetime

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ttls = st.integers(1, MAX_TTL_SECONDS)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def test_a_stream_without_a_limit_never_ends() -> None:
    assert lifetime.deadline(None, None, NOW) is None
    assert not lifetime.needs_touch(None, None, NOW)


def test_an_absolute_expiry_is_the_deadline_and_nothing_moves_it() -> None:
    moment = NOW + seconds(10)
    assert lifetime.deadline(None, moment, NOW) == moment
    assert not lifetime.needs_touch(None, moment, NOW + seconds(9))


@given(ttls)
def test_a_stream_never_ends_early_and_at_most_the_grace_late(ttl: int) -> None:
    end = lifetime.deadline(ttl, None, NOW)
    assert end is not None
    late = (end - NOW).total_seconds() - ttl
    assert 0 < late <= lifetime.MAX_GRACE


@pytest.mark.parametrize("ttl", [1, 2, 5, 60])
def test_short_lives_show_their_end_within_a_second(ttl: int) -> None:
    end = lifetime.deadline(ttl, None, NOW)
    assert end is not None
    assert end - NOW - seconds(ttl) < seconds(0.9)


@given(ttls, st.lists(st.floats(0, 1), max_size=20))
def test_a_stream_lives_for_its_whole_ttl_after_each_read(ttl: int, pauses: list[float]) -> None:
    now = NOW
    end = lifetime.deadline(ttl, None, now)
    for pause in pauses:
        now += seconds(ttl * pause)
        if lifetime.needs_touch(ttl, end, now):
            end = lifetime.deadline(ttl, None, now)
        assert end is not None
        assert end >= now + seconds(ttl)


@given(ttls)
def test_a_read_right_after_another_writes_nothing(ttl: int) -> None:
    end = lifetime.deadline(ttl, None, NOW)
    assert not lifetime.needs_touch(ttl, end, NOW + seconds(lifetime.MIN_GRACE / 2))
