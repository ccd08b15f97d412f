"""`manage.py streams stats`."""

from __future__ import annotations

from argparse import ArgumentParser

from django.db.models import Count, F, Q, Sum
from django.db.models.functions import Coalesce

from ... import clock
from ...models import Chunk, Producer, StagedChunk, Stream, Subscription, SubscriptionLink
from .base import Console, Options, Subcommand, size_text, table
from .locations import path_argument


class Stats(Subcommand):
    """Counts streams by their state, and the rows of all tables."""

    name = "stats"
    help = "count streams by their state, and the rows of the tables"
    examples = """
streams stats
streams stats chat/        only streams whose paths begin with chat/
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("prefix", nargs="?", default="", metavar="PREFIX", type=path_argument)

    def run(self, console: Console, options: Options) -> None:
        values = count_streams(options["prefix"], console.using)
        if not options["prefix"]:
            values |= count_rows(console.using)
        if console.is_json:
            console.json(values)
            return
        size = size_text(values["bytes"])
        rows = [(name.replace("_", " "), f"{value:,}") for name, value in values.items()]
        console.write("\n".join([*table(rows), f"That is {size} of data."]))


def count_streams(prefix: str, using: str) -> dict[str, int]:
    """Return the numbers of streams whose paths begin with a prefix, by their state, and their own bytes."""
    now = clock.now()
    is_alive = Q(deleted_at__isnull=True) & (Q(deadline__isnull=True) | Q(deadline__gt=now))
    own_bytes = F("tail_position") - Coalesce(F("fork_position"), 0)
    counts: dict[str, int] = (
        Stream.objects.using(using)
        .with_prefix(prefix)
        .aggregate(
            streams=Count("pk", filter=is_alive),
            closed=Count("pk", filter=is_alive & Q(closed=True)),
            with_ttl=Count("pk", filter=is_alive & Q(deadline__isnull=False)),
            forks=Count("pk", filter=is_alive & Q(fork_position__isnull=False)),
            expired=Count("pk", filter=Q(deleted_at__isnull=True, deadline__lte=now)),
            soft_deleted=Count("pk", filter=Q(deleted_at__isnull=False)),
            bytes=Coalesce(Sum(own_bytes, filter=is_alive), 0),
        )
    )
    return counts


def count_rows(using: str) -> dict[str, int]:
    """Return the number of streams that wait for the purge, and of rows in the other tables."""
    models = {
        "chunks": Chunk,
        "staged_chunks": StagedChunk,
        "producers": Producer,
        "subscriptions": Subscription,
        "links": SubscriptionLink,
    }
    counts = {name: model._default_manager.using(using).count() for name, model in models.items()}
    return {"waiting_for_purge": Stream.objects.using(using).purgeable().count(), **counts}
