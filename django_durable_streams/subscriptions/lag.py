"""How far consumers and subscriptions are behind, for metrics: a bounded look that may be repeated every few seconds.

Only links that are pending count, and of each subscription only the first ones. So a large lag is shown as `MAX_LINKS`
links, and as the bytes of these.
"""

from __future__ import annotations

from typing import NamedTuple

from django.db.models import Count, F, Q, Sum
from django.db.models.functions import Coalesce, Greatest

from ..models import Subscription
from ..protocol.producers import producer_name
from .rows import links, subscriptions

MAX_SUBSCRIPTIONS = 100
"""Subscriptions that are looked at, the oldest first."""

MAX_LINKS = 1000
"""Pending links of one subscription that are looked at."""


class Lag(NamedTuple):
    """The lag of a subscription, or of a consumer."""

    name: str
    kind: str
    """`webhook`, `pull-wake` or `consumer`."""
    streams: int
    """Streams with data after the cursor, up to MAX_LINKS."""
    bytes: int
    """The data of these streams after the cursor. Trimmed data does not count."""


def lags(using: str) -> list[Lag]:
    """Return the lag of each subscription. One query, and one more for each subscription."""
    rows = subscriptions(using).filter(name__isnull=False).order_by("pk")
    return [_lag(subscription, using) for subscription in rows.only("name", "kind")[:MAX_SUBSCRIPTIONS]]


def _lag(subscription: Subscription, using: str) -> Lag:
    pending = links(using, subscription_id=subscription.pk, is_pending=True, stream__path__isnull=False)
    cursor = Greatest(Coalesce(F("acked_position"), 0), F("stream__first_position"))
    behind = Greatest(F("stream__tail_position") - cursor, 0)
    first = pending.annotate(behind=behind).order_by()[:MAX_LINKS]
    sums = first.aggregate(streams=Count("pk", filter=Q(behind__gt=0)), bytes=Coalesce(Sum("behind"), 0))
    return Lag(producer_name(subscription.name or ""), subscription.kind, sums["streams"], sums["bytes"])
