"""Filters of the list of subscriptions."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ...models import Subscription
from .states import State, with_link_facts


class StateFilter(admin.SimpleListFilter):
    """Subscriptions by their state."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(value, label) for value, label in State.choices if not State(value).is_of_links_only]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> QuerySet[Subscription]:
        value = self.value()
        if value not in dict(self.lookups(request, None)):
            return queryset
        return with_link_facts(queryset).filter(State(str(value)).condition())
