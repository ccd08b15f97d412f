"""The `ModelAdmin` of subscriptions: the columns and actions of the list, and the URLs of the pages."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...models import Subscription
from ...protocol.producers import SERVER_MARK
from ...server.non_atomic import never_atomic
from .. import moments
from ..changelist import MAX_ROWS_PER_ACTION, BoundedList, beginning_with
from .action_views import PAUSE, RESUME, RETRY, Action, ActionViews
from .detail_view import SubscriptionPages, shown_error, shown_pattern
from .filters import StateFilter
from .states import State, is_ahead, with_link_facts
from .stream_names import only_path

ERROR_LENGTH = 100
"""Characters of an error that the list shows."""

HIDDEN_COLUMNS = {"pattern", "wake_stream", "last_error"}
"""Columns that may name a stream which the user may not view."""


class SubscriptionChangeList(ChangeList):
    """Loads what the links tell about the subscriptions of the page, and which streams may be named, all at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        pages: SubscriptionPages = self.model_admin  # type: ignore[assignment]
        ids = [one.pk for one in self.result_list if pages.may(request, "view", one)]
        subscriptions: list[Any] = list(with_link_facts(self.queryset.filter(pk__in=ids)))
        paths = {path for one in subscriptions for path in (one.wake_stream, only_path(one.pattern)) if path}
        named = pages.stream_names(request).of(paths) if paths else {}
        for subscription in subscriptions:
            subscription.shown_pattern = shown_pattern(subscription, named)
            subscription.shown_error = shown_error(subscription, named)
        self.result_list = subscriptions


@admin.register(Subscription)
class SubscriptionAdmin(BoundedList[Subscription], ActionViews):
    """The admin of subscriptions and consumers. You may subclass it, or register it with a site of your own."""

    list_display = ("title", "state", "streams", "last_failure")
    list_filter = (StateFilter, "kind")
    search_fields = ("name",)
    search_help_text = gettext_lazy("The beginning of an id or of a consumer's name")
    ordering = ("-id",)
    actions = ("pause_selected", "resume_selected", "retry_selected", "delete_all_selected")

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of a subscription's pages, and then Django's own.

        None is in a transaction of `ATOMIC_REQUESTS`, as an action takes locks for a moment only.
        """
        views: dict[str, Any] = {
            "pause": self.pause_view,
            "resume": self.resume_view,
            "retry": self.retry_view,
            "reset": self.reset_view,
        }
        own = self.row_urls({name: self.admin_site.admin_view(view) for name, view in views.items()})
        patterns = [*own, *super().get_urls()]
        for pattern in patterns:
            never_atomic(pattern.callback)
        return patterns

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list with the title "Subscriptions"."""
        return super().changelist_view(request, {"title": _("Subscriptions and consumers"), **(extra_context or {})})

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[SubscriptionChangeList]:
        return SubscriptionChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Subscription], search_term: str
    ) -> tuple[QuerySet[Subscription], bool]:
        """Find subscriptions by the beginning of their id, and consumers by that of their name."""
        if not search_term:
            return queryset, False
        of_clients = beginning_with(queryset, search_term, "name")
        return of_clients | beginning_with(queryset, SERVER_MARK + search_term, "name"), False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Refuse conditions on columns that pages may hide: which rows meet them would tell the hidden values."""
        is_hidden = lookup.partition(LOOKUP_SEP)[0] in HIDDEN_COLUMNS
        return not is_hidden and super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the actions, without Django's own deletion."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    # Actions on several subscriptions.

    @admin.action(permissions=["change"], description=gettext_lazy("Pause selected subscriptions"))
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> None:
        """Pause subscriptions."""
        self._act_on(request, queryset, PAUSE, _("Paused: %d."))

    @admin.action(permissions=["change"], description=gettext_lazy("Resume selected subscriptions"))
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> None:
        """End pauses."""
        self._act_on(request, queryset, RESUME, _("Resumed: %d."))

    @admin.action(permissions=["change"], description=gettext_lazy("Try selected subscriptions again now"))
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> None:
        """Make the next attempts now."""
        self._act_on(request, queryset, RETRY, _("Tried again: %d."))

    def _act_on(self, request: HttpRequest, queryset: QuerySet[Subscription], action: Action, text: str) -> None:
        count = self.act(request, self._permitted(request, queryset, "change"), action)
        if count is not None:
            self.message_user(request, text % count, messages.SUCCESS if count else messages.WARNING)

    @admin.action(permissions=["delete"], description=gettext_lazy("Delete selected subscriptions"))
    def delete_all_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> HttpResponse | None:
        """Delete subscriptions, after a confirmation."""
        chosen = self._permitted(request, queryset, "delete")
        if chosen and not request.POST.get("post"):
            return self.confirm_deletion(request, chosen, action="delete_all_selected")
        self.delete_all(request, chosen)
        return None

    def _permitted(self, request: HttpRequest, queryset: QuerySet[Subscription], permission: str) -> list[Subscription]:
        """Return the selected subscriptions on which a user has a permission. A message says how many are left out."""
        chosen = list(queryset[:MAX_ROWS_PER_ACTION])
        permitted = [one for one in chosen if self.may(request, permission, one)]
        count = len(chosen) - len(permitted)
        if count:
            text = ngettext(
                "You lack the permission for %d of these subscriptions.",
                "You lack the permission for %d of these subscriptions.",
                count,
            )
            self.message_user(request, text % count, messages.ERROR)
        return permitted

    # Columns.

    @admin.display(description=gettext_lazy("id"), ordering="name")
    def title(self, subscription: Subscription) -> SafeString:
        """Return the id, or the name of a consumer, and the type."""
        return format_html('{} <small class="ds-quiet">{}</small>', subscription, subscription.get_kind_display())

    @admin.display(description=gettext_lazy("state"))
    def state(self, subscription: Subscription) -> SafeString:
        """Return the state as a badge, with who has the lease and for how long, or with the next attempt."""
        badge = State.of(subscription).badge()
        attempt_at, lease_ends_at = subscription.next_attempt_at, subscription.lease_expires_at
        if attempt_at is not None:
            text = format_html(_("next attempt {}"), moments.seconds_ahead(attempt_at))
        elif lease_ends_at is not None and is_ahead(lease_ends_at):
            holder = f"{subscription.holder}," if subscription.holder else ""
            text = format_html(_("{} lease ends {}"), holder, moments.seconds_ahead(lease_ends_at))
        else:
            return badge
        return format_html('{} <small class="ds-quiet">{}</small>', badge, text)

    @admin.display(description=gettext_lazy("streams"))  # the order by pattern would tell of hidden ones
    def streams(self, subscription: Subscription) -> SafeString:
        """Return the pattern."""
        pattern: str = getattr(subscription, "shown_pattern", "")
        if pattern:
            return format_html('<code class="ds-token">{}</code>', pattern)
        return format_html("<i>{}</i>", _("another stream") if subscription.pattern else _("by path only"))

    @admin.display(description=gettext_lazy("last error"))
    def last_failure(self, subscription: Subscription) -> str | None:
        """Return the beginning of the last error."""
        return Truncator(getattr(subscription, "shown_error", "")).chars(ERROR_LENGTH) or None
