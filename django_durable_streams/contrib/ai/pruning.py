"""The removal of the rows of old runs. The chats keep their messages, which are in their streams.

Knows neither sources nor event loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db.models import QuerySet

from ...subscriptions.rows import transaction
from .models import Run

PORTION = 500
"""Runs that one transaction removes."""


def ended_before(moment: datetime, using: str) -> QuerySet[Run]:
    """Return the runs that had ended before a moment."""
    return Run.objects.using(using).filter(active_chat__isnull=True, ended_at__lt=moment)


def prune(moment: datetime, using: str) -> Iterator[int]:
    """Remove the rows of runs that had ended before a moment. Yields the number of each transaction."""
    after = None
    while True:
        # By primary keys: no index of the times is kept for this, and each row is looked at once.
        runs = ended_before(moment, using).order_by("pk")
        ids = list((runs if after is None else runs.filter(pk__gt=after)).values_list("pk", flat=True)[:PORTION])
        if not ids:
            return
        after = ids[-1]
        with transaction(using):
            Run.objects.using(using).filter(pk__in=ids).delete()
        yield len(ids)
