"""Staged chunks as a queryset, for reads that need Django's ORM. The queries use the index of the blocks."""

from __future__ import annotations

from django.db import connections
from django.db.models import QuerySet

from ..models import StagedChunk
from .sql import statements


def blocks(using: str) -> list[int]:
    """Return the numbers of the blocks that have staged chunks, the oldest first."""
    with connections[using].cursor() as cursor:
        return statements(using).staged_blocks(cursor)


def chunks(using: str) -> QuerySet[StagedChunk]:
    """Return the staged chunks as a query whose index leads to the chunks of one stream."""
    return StagedChunk.objects.using(using).filter(block__in=blocks(using))
