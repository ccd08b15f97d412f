"""The rows of staged chunks, found by the index that the database has for them."""

from __future__ import annotations

from django.db import connections
from django.db.models import QuerySet

from ..models import StagedChunk
from .sql import statements


def blocks(using: str) -> list[int]:
    """Return the numbers of the blocks in which there are recent chunks, the oldest first."""
    with connections[using].cursor() as cursor:
        return statements(using).staged_blocks(cursor)


def chunks(using: str) -> QuerySet[StagedChunk]:
    """Return the recent chunks, as a query in which the index leads to those of a stream."""
    return StagedChunk.objects.using(using).filter(block__in=blocks(using))
