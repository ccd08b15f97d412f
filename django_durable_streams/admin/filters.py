"""Filters of the list. Each has a few fixed choices, so no filter reads the whole table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import clock
from ..models import Stream
from .states import Kind, State

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

_Lookups = Iterable[tuple[Any, "_StrOrPromise"]]


class ChoiceFilter(admin.SimpleListFilter):
    """A filter by one of its choices. Another value is refused, also on the page that deletes what matches."""

    def value(self) -> str | None:
        """Return the chosen value, or None for all rows."""
        value = super().value()
        if value and value not in dict(self.lookup_choices):
            raise IncorrectLookupParameters(f"{value!r} is no choice of {self.parameter_name}.")
        return value


class StateFilter(ChoiceFilter):
    """Open, closed, expired, or deleted and kept for its forks."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> _Lookups:
        return State.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[Stream]) -> QuerySet[Stream]:
        value = self.value() or ""
        return queryset.filter(State(value).condition()) if value in State.values else queryset


class ForkFilter(ChoiceFilter):
    """Streams that have forks, and streams that are forks."""

    title = _("forks")
    parameter_name = "forks"

    def lookups(self, request: HttpRequest, model_admin: Any) -> _Lookups:
        return [("has", _("Has forks")), ("is", _("Is a fork")), ("none", _("Neither"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Stream]) -> QuerySet[Stream]:
        forks = Exists(Stream.objects.filter(source_id=OuterRef("pk"), path__isnull=False))
        match self.value():
            case "has":
                return queryset.filter(forks)
            case "is":
                return queryset.filter(source__isnull=False)
            case "none":
                return queryset.filter(~forks, source__isnull=True)
        return queryset


class KindFilter(ChoiceFilter):
    """Streams by the kind of their content type: JSON, text or binary."""

    title = _("kind of data")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> _Lookups:
        return Kind.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[Stream]) -> QuerySet[Stream]:
        value = self.value() or ""
        return queryset.filter(Kind(value).condition()) if value in Kind.values else queryset


class ExpiryFilter(ChoiceFilter):
    """Streams by the time until they expire, if they are not used."""

    title = _("expiry")
    parameter_name = "expiry"

    _WITHIN = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}

    def lookups(self, request: HttpRequest, model_admin: Any) -> _Lookups:
        return [
            ("never", _("Never")),
            ("hour", _("Within an hour")),
            ("day", _("Within a day")),
            ("week", _("Within a week")),
            ("later", _("Later")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Stream]) -> QuerySet[Stream]:
        now = clock.now()
        value = self.value()
        if value == "never":
            return queryset.filter(deadline__isnull=True)
        if value == "later":
            return queryset.filter(deadline__gt=now + self._WITHIN["week"])
        if value in self._WITHIN:
            return queryset.filter(Q(deadline__gt=now) & Q(deadline__lte=now + self._WITHIN[value]))
        return queryset
