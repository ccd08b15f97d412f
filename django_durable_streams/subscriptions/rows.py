"""Reads and writes of the rows of subscriptions, which every other module of this room shares.

The queryset methods of the models refuse to write, so nothing outside this room changes these rows.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.models import QuerySet

from ..models import Subscription, SubscriptionLink
from ..protocol.subscriptions import subscription_not_found


def subscriptions(using: str) -> QuerySet[Subscription]:
    """Return the subscriptions that exist, as a queryset that can write."""
    return Subscription.objects.using(using).unguarded().filter(name__isnull=False)


def links(using: str, **conditions: Any) -> QuerySet[SubscriptionLink]:
    """Return links, as a queryset that can write."""
    return SubscriptionLink.objects.using(using).unguarded().filter(**conditions)


def find(name: str, using: str, *, lock: bool = False) -> Subscription:
    """Return a subscription.

    Args:
        name: its id in URLs.
        using: alias of the database.
        lock: whether to lock its row until the end of the transaction.

    Raises:
        SubscriptionError: there is none of this name (404).
    """
    query = subscriptions(using).filter(name=name)
    subscription = (locked(query, using) if lock else query).first()
    if subscription is None:
        raise subscription_not_found()
    return subscription


def locked(query: QuerySet[Any], using: str, *, skip: bool = False) -> QuerySet[Any]:
    """Return a query that locks its rows, where the database has row locks.

    Args:
        query: the query.
        using: alias of the database.
        skip: whether to leave out the rows that other transactions hold.
    """
    features = connections[using].features
    if not features.has_select_for_update:
        return query
    return query.select_for_update(skip_locked=skip and features.has_select_for_update_skip_locked)


def change(subscription: Subscription, using: str, **values: Any) -> None:
    """Write some columns of a subscription whose row is locked, and set them in the instance."""
    for name, value in values.items():
        setattr(subscription, name, value)
    Subscription.objects.using(using).unguarded().filter(pk=subscription.pk).update(**values)
