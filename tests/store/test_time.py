"""Lifetimes of streams in any time zone of the project, and when its clocks change."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from django.test import override_settings
from django.utils import timezone

from django_durable_streams import clock
from django_durable_streams.api import transactions
from django_durable_streams.models import Stream
from django_durable_streams.models.fields import InstantField
from django_durable_streams.protocol.errors import StreamNotFound
from django_durable_streams.store.operations import Append, Create, Touch
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.upkeep import removal
from django_durable_streams.store.write import group_commit

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

# In New York clocks are set forward at 7:00 UTC on the first, and back at 6:00 UTC on the second.
SPRING = datetime(2026, 3, 8, 7, 0, tzinfo=UTC)
AUTUMN = datetime(2026, 11, 1, 6, 0, tzinfo=UTC)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=[True, False], ids=["USE_TZ", "no USE_TZ"])
def use_tz(request: pytest.FixtureRequest) -> Iterator[bool]:
    """A project in New York."""
    connections["default"].close()  # PostgreSQL's sessions have a time zone
    with override_settings(USE_TZ=request.param, TIME_ZONE="America/New_York"):
        yield request.param
    connections["default"].close()


class Clock:
    """Stands in for the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moment = SPRING
        monkeypatch.setattr(clock, "now", lambda: self.moment)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, which a test may set."""
    return Clock(monkeypatch)


def is_there(path: str) -> bool:
    """Whether a stream can be read, by the rules and by a query of the project's."""
    try:
        transactions.find(path, "default")
        is_alive = True
    except StreamNotFound:
        is_alive = False
    assert Stream.objects.alive().filter(path=path).exists() == is_alive
    assert Stream.objects.expired().filter(path=path).exists() != is_alive
    return is_alive


@pytest.mark.parametrize("change", [SPRING, AUTUMN], ids=["forward", "back"])
@pytest.mark.parametrize("before", [10 * MINUTE, 50 * MINUTE, 70 * MINUTE], ids=str)
def test_a_ttl_lasts_over_a_change_of_clocks(use_tz: bool, time: Clock, change: datetime, before: timedelta) -> None:
    time.moment = change - before
    Stream.objects.create(path="a", content_type="text/plain", ttl=3600)
    time.moment += 59 * MINUTE
    assert is_there("a")
    assert removal.expire("default") == []
    time.moment += 2 * MINUTE
    assert not is_there("a")
    assert [commit.path for commit in removal.expire("default")] == ["a"]


@pytest.mark.parametrize("change", [SPRING, AUTUMN], ids=["forward", "back"])
def test_a_ttl_is_renewed_over_a_change_of_clocks(use_tz: bool, time: Clock, change: datetime) -> None:
    time.moment = change - 30 * MINUTE
    Stream.objects.create(path="a", content_type="text/plain", ttl=3600)
    for kind in (Append, Touch, Touch):
        time.moment += 40 * MINUTE
        operation = Append("a", "text/plain", b"x") if kind is Append else Touch("a", time.moment)
        transactions.apply(operation, "default")
        assert is_there("a")
    time.moment += 62 * MINUTE
    assert not is_there("a")


@pytest.mark.parametrize("offset", range(-90, 91, 30))
@pytest.mark.parametrize("change", [SPRING, AUTUMN], ids=["forward", "back"])
def test_an_expiry_is_the_requested_moment(use_tz: bool, time: Clock, change: datetime, offset: int) -> None:
    moment = change + offset * MINUTE + timedelta(microseconds=1)
    time.moment = change - 3 * HOUR
    group_commit.apply([Create("a", "text/plain", expires_at=moment)], "default")
    info = log_reader.find(["a"], "default")["a"]
    assert getattr(info, "expires_at", None) == moment
    # The same request again asks for the same stream.
    outcomes, _ = group_commit.apply([Create("a", "text/plain", expires_at=moment)], "default")
    assert not isinstance(outcomes[0], Exception)
    time.moment = moment - timedelta(microseconds=1)
    assert is_there("a")
    time.moment = moment
    assert not is_there("a")


@pytest.mark.parametrize("change", [SPRING, AUTUMN], ids=["forward", "back"])
def test_python_has_times_as_the_project_has_them(use_tz: bool, time: Clock, change: datetime) -> None:
    time.moment = change - 3 * HOUR
    for number, moment in enumerate((change - 30 * MINUTE, change + 30 * MINUTE)):
        group_commit.apply([Create(str(number), "text/plain", expires_at=moment)], "default")
        expires_at = Stream.objects.get(path=str(number)).expires_at
        assert timezone.is_aware(expires_at) == use_tz
        assert clock.from_project(expires_at) == moment
        assert Stream.objects.filter(expires_at=expires_at).count() == 1
        # What was read can be handed over.
        again, created = Stream.objects.ensure(str(number), content_type="text/plain", expires_at=expires_at)
        assert not created
        fork = again.fork(f"{number}/fork", expires_at=expires_at)
        assert fork.expires_at == expires_at


def test_a_naive_expiry_is_in_the_projects_time_zone(time: Clock) -> None:
    with override_settings(USE_TZ=False, TIME_ZONE="America/New_York"):
        stream = Stream.objects.create(path="a", content_type="text/plain", expires_at=datetime(2026, 7, 1, 12, 0))
        assert stream.expires_at == datetime(2026, 7, 1, 12, 0)
    assert log_reader.find(["a"], "default")["a"].expires_at == datetime(2026, 7, 1, 16, 0, tzinfo=UTC)  # type: ignore[union-attr]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize("aware", [True, False])
def test_the_last_moment_of_all_is_no_error(zone: str, aware: bool) -> None:
    last = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    connections["default"].close()
    with override_settings(USE_TZ=aware, TIME_ZONE=zone):
        group_commit.apply([Create("a", "text/plain", expires_at=last)], "default")
        assert log_reader.find(["a"], "default")["a"].expires_at == last  # type: ignore[union-attr]
        shown = Stream.objects.get(path="a").expires_at
        assert timezone.localtime(clock.from_project(shown)).year == 9999
    connections["default"].close()


def test_the_protocol_never_uses_local_time() -> None:
    kinds = {field.name for field in Stream._meta.fields if isinstance(field, InstantField)}
    assert kinds == {"expires_at", "deadline", "deleted_at"}
