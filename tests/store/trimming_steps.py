"""The steps of housekeeping that concern retention, one after the other and without a thread."""

from collections.abc import Collection

from django_durable_streams.api import transactions
from django_durable_streams.models import Stream
from django_durable_streams.store.upkeep import retention, trimming

USING = "default"


def drop(stream_ids: Collection[int] | None = None) -> list[int]:
    """Delete all trimmed data, and return the streams of which some is kept."""
    ids = trimming.trimmed(USING, 0, 1000) if stream_ids is None else stream_ids
    for _ in range(100):
        portion = trimming.find(USING, ids)
        if not (portion.chunk_ids or portion.cuts):
            trimming.finish(USING, portion.done)
            return portion.kept
        trimming.delete(USING, portion)
    raise AssertionError("there is no end to what is to be deleted")


def apply_rules(now: int | None = None) -> None:
    """Apply the rules of all streams until nothing is left to do, at a time in microseconds since 1970."""
    ids = list(Stream.objects.filter(path__isnull=False).values_list("id", flat=True))
    for _ in range(100):
        plans, is_unfinished = retention.plan(USING, ids, now)
        retention.save(USING, plans)
        for trim in retention.trims(plans):
            transactions.apply(trim, USING)
        if not is_unfinished and all(plan.trim_position is None for plan in plans):
            return
    raise AssertionError("there is no end to what is to be trimmed")
