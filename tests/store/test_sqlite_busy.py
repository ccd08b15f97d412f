"""Waiting for SQLite's one lock while another process holds it."""

import sqlite3
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import OperationalError, connection

from django_durable_streams.models import Stream
from django_durable_streams.store.operations import Create, Operation
from django_durable_streams.store.sql import sqlite_busy
from django_durable_streams.store.write import group_commit
from tests.store.contexts import Caching

TEXT = "text/plain"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="the others have a lock for each row"),
]


@pytest.fixture
def other() -> Iterator[sqlite3.Connection]:
    """Another connection that has begun to write. The test's own connection does not wait."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()
    connection.close()


class Clock:
    """Stands for the module `time`. In place of sleeping it does something, and a tenth of RETRY_SECONDS is over."""

    def __init__(self, then: Callable[[int], object]) -> None:
        self.pauses: list[float] = []
        self._then = then

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._then(len(self.pauses))

    def monotonic(self) -> float:
        return len(self.pauses) * sqlite_busy.RETRY_SECONDS / 10


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([Create("a", TEXT)], id="one statement by itself"),
        pytest.param([Create("a", TEXT), Create("b", TEXT), Create("c", TEXT)], id="one statement over several rows"),
        pytest.param([Create("a", TEXT, data=b"x")], id="a transaction"),
    ],
)
def test_attempts_are_repeated_until_the_lock_is_free(
    operations: list[Operation], other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(lambda number: other.execute("ROLLBACK") if number == 3 else None)
    monkeypatch.setattr(sqlite_busy, "time", clock)
    outcomes, _ = group_commit.apply(operations, "default", Caching(), wait=False)
    assert [getattr(outcome, "created", None) for outcome in outcomes] == [True] * len(operations)
    assert Stream.objects.count() == len(operations)
    assert clock.pauses == [sqlite_busy.RETRY_PAUSE_SECONDS] * 3


def test_attempts_end_after_a_time(other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(lambda number: None)
    monkeypatch.setattr(sqlite_busy, "time", clock)
    with pytest.raises(OperationalError, match="locked"):
        group_commit.apply([Create("a", TEXT, data=b"x")], "default", wait=False)
    assert len(clock.pauses) == 10


def test_a_connection_that_has_waited_itself_makes_no_second_attempt(
    other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 50")
    clock = Clock(lambda number: None)
    monkeypatch.setattr(clock, "monotonic", time.monotonic)
    monkeypatch.setattr(sqlite_busy, "time", clock)
    monkeypatch.setattr(sqlite_busy, "RETRY_SECONDS", 0.04)
    with pytest.raises(OperationalError, match="locked"):
        group_commit.apply([Create("a", TEXT, data=b"x")], "default", wait=False)
    assert not clock.pauses
