"""Time inside: aware and in UTC, whatever `USE_TZ` and `TIME_ZONE` are, and as integers in the database.

A project with `USE_TZ = False` has naive datetimes in local time, which pass an hour twice a year or leave one out.
Nothing that the protocol decides may depend on that. What people are shown, or hand over, is converted at the edge.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.utils import timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_LAST = datetime(9999, 12, 30, tzinfo=UTC)
"""The last moment that is a date everywhere on Earth: a later one has no local time in some zones."""


def now() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


def to_microseconds(moment: datetime) -> int:
    """Return an aware time as microseconds since 1970 in UTC, which is what the database has."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Return the time that microseconds since 1970 stand for, aware and in UTC."""
    return _EPOCH + timedelta(microseconds=value)


def from_project(moment: datetime) -> datetime:
    """Return a time of the project's in UTC. A naive one is in the project's `TIME_ZONE`.

    Of the two that a naive time may mean when clocks are set back, its `fold` tells which it is.
    """
    aware = moment if timezone.is_aware(moment) else moment.replace(tzinfo=timezone.get_default_timezone())
    try:
        return aware.astimezone(UTC)
    except OverflowError:  # the first and the last day of all
        return moment.replace(tzinfo=UTC)


def to_project(moment: datetime) -> datetime:
    """Return an aware time as the project has its own: aware with `USE_TZ`, else naive in its `TIME_ZONE`."""
    shown = min(moment, _LAST)
    return shown if settings.USE_TZ else shown.astimezone(timezone.get_default_timezone()).replace(tzinfo=None)
