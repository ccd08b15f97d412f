"""Messages that many events cause are logged once in a period."""

from types import SimpleNamespace

import pytest

from django_durable_streams.runtime import log_once
from django_durable_streams.runtime.log_once import LogOnce


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(log_once, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def due(messages: LogOnce, clock: list[float], *seconds: float) -> list[bool]:
    """Return whether events after these times, each from the one before, are logged."""
    results = []
    for later in seconds:
        clock[0] += later
        results.append(messages.is_due())
    return results


def test_an_event_that_goes_on_is_logged_once_in_each_period(clock: list[float]) -> None:
    assert due(LogOnce(60), clock, 0, 0, 40, 40, 40, 40) == [True, False, False, True, False, True]


def test_an_event_that_extends_the_period_is_logged_again_after_its_absence(clock: list[float]) -> None:
    assert due(LogOnce(60, extends=True), clock, 0, 0, 40, 40, 40, 61) == [True, False, False, False, False, True]


def test_each_key_has_a_period_of_its_own(clock: list[float]) -> None:
    messages = LogOnce(60)
    assert [messages.is_due(key) for key in ("a", "b", "a", "b")] == [True, True, False, False]
