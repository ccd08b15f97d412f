"""How long a batch waits for more tasks."""

import pytest

from django_durable_streams.runtime import collecting
from django_durable_streams.runtime.collecting import FROM_TASKS, GAPS, MAX_SECONDS, Collector


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(collecting, "time", clock)
    return clock


def test_no_batch_waits_before_one_has_competed(clock: Clock) -> None:
    assert Collector().seconds_left(1) == 0


def test_a_batch_waits_for_the_tasks_that_were_answered_and_for_those_that_wait(clock: Clock) -> None:
    collector = Collector()
    collector.start(FROM_TASKS, 3, 0.008)
    for count in (1, 3, FROM_TASKS + 2):
        assert collector.seconds_left(count) == pytest.approx(0.008 / GAPS)
    assert collector.seconds_left(FROM_TASKS + 3) == 0


def test_it_waits_at_most_as_long_as_the_batch_before_it_took(clock: Clock) -> None:
    collector = Collector()
    collector.start(FROM_TASKS, 0, 0.008)
    clock.now += 0.007
    assert collector.seconds_left(1) == pytest.approx(0.001)
    clock.now += 0.002
    assert collector.seconds_left(1) == 0


def test_a_slow_batch_makes_the_next_one_wait_for_a_limited_time(clock: Clock) -> None:
    collector = Collector()
    collector.start(FROM_TASKS, 0, 30.0)
    assert collector.seconds_left(1) == pytest.approx(MAX_SECONDS / GAPS)
    clock.now += MAX_SECONDS + 0.001
    assert collector.seconds_left(1) == 0


def test_after_a_few_tasks_the_next_batch_begins_at_once(clock: Clock) -> None:
    collector = Collector()
    collector.start(FROM_TASKS - 1, 50, 0.008)
    assert collector.seconds_left(1) == 0
