"""Moments as distances in time, for pages. The tooltip has the date."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _

from .. import clock


def ago(moment: datetime | None) -> SafeString | None:
    """Return the time since a moment, if there is one."""
    if moment is None:
        return None
    return _shown(moment, _("%s ago") % timesince(clock.from_project(moment), depth=1), _("just now"))


def ahead(moment: datetime) -> SafeString:
    """Return the time until a moment."""
    return _shown(moment, _("in %s") % timeuntil(clock.from_project(moment), depth=1), _("in under a minute"))


def seconds_ahead(moment: datetime | None) -> SafeString | None:
    """Return the time until a moment that is mostly less than minutes away, in seconds, if there is one."""
    if moment is None:
        return None
    seconds = round((clock.from_project(moment) - clock.now()).total_seconds())
    text = _("in %d s") % seconds if seconds > 0 else _("now")
    return _element(moment, text if seconds < 600 else _("in %s") % timeuntil(clock.from_project(moment), depth=1))


def _shown(moment: datetime, distance: str, close: str) -> SafeString:
    """Return a moment as a distance in time, or as `close` within a minute."""
    is_close = abs(clock.from_project(moment) - clock.now()) < timedelta(minutes=1)
    return _element(moment, close if is_close else distance)


def _element(moment: datetime, text: str) -> SafeString:
    aware = clock.from_project(moment)
    shown = date_format(timezone.localtime(moment) if timezone.is_aware(moment) else moment, "DATETIME_FORMAT")
    return format_html('<time datetime="{}" title="{}">{}</time>', aware.isoformat(), shown, text)
