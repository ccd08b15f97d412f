"""The states of subscriptions and of their links at a moment, for badges and as conditions of queries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import BooleanField, Case, Exists, OuterRef, Q, QuerySet, TextChoices, Value, When
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ... import clock
from ...models import Subscription, SubscriptionLink


class State(TextChoices):
    """The state of a subscription or of a link. The first one that applies, in this order."""

    PAUSED = "paused", _("Paused")
    STOPPED = "stopped", _("Stopped")
    FAILING = "failing", _("Failing")
    WORKING = "working", _("In progress")
    PENDING = "pending", _("Pending")
    DONE = "done", _("Up to date")
    # Of links only.
    DORMANT = "dormant", _("Not followed")
    MISSING = "missing", _("No stream")

    @classmethod
    def of(cls, subscription: Subscription, now: datetime | None = None) -> State:
        """Return the state of a subscription that `with_link_facts` has loaded."""
        facts: Any = subscription
        if subscription.is_paused:
            return cls.PAUSED
        if facts.has_stopped:
            return cls.STOPPED
        if subscription.failures or facts.has_failing:
            return cls.FAILING
        if is_ahead(subscription.lease_expires_at, now) or facts.has_leased:
            return cls.WORKING
        return cls.PENDING if facts.has_pending else cls.DONE

    @classmethod
    def of_link(cls, link: SubscriptionLink, lag: int | None, now: datetime | None = None) -> State:
        """Return the state of a link.

        Args:
            link: the link.
            lag: bytes of its stream after the cursor. None: there is no stream.
            now: the moment. None: the present.
        """
        if not (link.is_glob or link.is_explicit):
            return cls.DORMANT
        if lag is None:
            return cls.MISSING
        if link.is_stopped:
            return cls.STOPPED
        if is_ahead(link.lease_expires_at, now):
            return cls.WORKING
        if link.failures:
            return cls.FAILING
        return cls.PENDING if lag else cls.DONE

    def condition(self, now: datetime | None = None) -> Q:
        """Return the condition for subscriptions in this state, for queries with `with_link_facts`."""
        conditions = {
            State.PAUSED: Q(is_paused=True),
            State.STOPPED: Q(has_stopped=True),
            State.FAILING: Q(failures__gt=0) | Q(has_failing=True),
            State.WORKING: Q(lease_expires_at__isnull=False, lease_expires_at__gt=now or clock.now())
            | Q(has_leased=True),
            State.PENDING: Q(has_pending=True),
        }
        condition = conditions.pop(self, Q())
        for state, earlier in conditions.items():
            if self is State.DONE or state.order < self.order:
                condition &= ~earlier
        return condition

    @property
    def is_of_links_only(self) -> bool:
        """Whether no subscription is in this state."""
        return self in (State.DORMANT, State.MISSING)

    @property
    def order(self) -> int:
        """The place of the state among all."""
        return list(State).index(self)

    def badge(self) -> SafeString:
        """Return the state as HTML, with its name as text."""
        return format_html('<span class="ds-badge ds-badge-{}">{}</span>', self.value, self.label)


IS_FOLLOWED = Q(is_glob=True) | Q(is_explicit=True)
"""The condition for links that are followed. A consumer keeps links that its pattern does not match any more."""


def is_ahead(moment: datetime | None, now: datetime | None = None) -> bool:
    """Return whether there is a moment, and it is later than another one: the present, by default."""
    return moment is not None and clock.from_project(moment) > (now or clock.now())


def with_link_facts(queryset: QuerySet[Subscription], now: datetime | None = None) -> QuerySet[Subscription]:
    """Return subscriptions with what their pending links tell about them.

    Whatever does not rest is pending, and an index has these links. Only consumers have states of their own in links.
    """
    pending = SubscriptionLink.objects.filter(IS_FOLLOWED, subscription=OuterRef("pk"), is_pending=True)
    return queryset.annotate(
        has_pending=Exists(pending),
        has_stopped=_of_consumer(pending.filter(is_stopped=True)),
        has_failing=_of_consumer(pending.filter(is_stopped=False, failures__gt=0)),
        has_leased=_of_consumer(pending.filter(lease_expires_at__gt=now or clock.now())),
    )


def _of_consumer(rows: QuerySet[SubscriptionLink]) -> Case:
    is_consumer = When(kind=Subscription.Kind.CONSUMER, then=Exists(rows))
    return Case(is_consumer, default=Value(False), output_field=BooleanField())
