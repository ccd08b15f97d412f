"""Times inside the package: aware and in UTC, whatever `USE_TZ` and `TIME_ZONE` are, and integers in the database.

A project with `USE_TZ = False` has naive datetimes in local time, which skips or repeats an hour when clocks change. No
rule of the protocol may depend on that. Times of the project are converted where they enter and leave the package.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.utils import timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_LAST = datetime(9999, 12, 30, tzinfo=UTC)
"""The last time that is a date in every time zone."""


def now() -> datetime:
    """Return the present time, aware and in UTC."""
    return datetime.now(UTC)


def to_microseconds(moment: datetime) -> int:
    """Return an aware time in microseconds since 1970 in UTC, as the database stores it."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Return the time of a number of microseconds since 1970, aware and in UTC."""
    return _EPOCH + timedelta(microseconds=value)


def from_project(moment: datetime) -> datetime:
    """Return a time of the project in UTC. A naive time is in the project's `TIME_ZONE`.

    When clocks are set back, a naive time has two meanings, and its `fold` decides.
    """
    aware = moment if timezone.is_aware(moment) else moment.replace(tzinfo=timezone.get_default_timezone())
    try:
        return aware.astimezone(UTC)
    except OverflowError:  # the first or the last day of the calendar
        return moment.replace(tzinfo=UTC)


def to_project(moment: datetime) -> datetime:
    """Return an aware time for the project: aware with `USE_TZ`, else naive in its `TIME_ZONE`."""
    shown = min(moment, _LAST)
    return shown if settings.USE_TZ else shown.astimezone(timezone.get_default_timezone()).replace(tzinfo=None)
