"""Which streams an archive has: those that match, and the sources of forks among them, in the order of generations.

A fork's generation is greater than its source's, so a source comes first. Knows no record.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from django.db.models import Q

from ... import clock
from ...conf import config
from ...models import Stream
from ...protocol.globs import Glob


def select(patterns: Sequence[Glob], using: str) -> array[int]:
    """Return the ids of the streams that match one of the patterns, or of all, and of the sources of forks.

    Soft-deleted and expired streams are only there as sources.

    Args:
        patterns: the patterns. None of them: all streams but the registry.
        using: alias of the database.
    """
    now = clock.now()
    present = Stream.objects.using(using).filter(path__isnull=False)
    sources: dict[int, int] = {}
    for stream_id, source_id in present.filter(source__isnull=False).values_list("pk", "source_id").iterator():
        if source_id is not None:
            sources[stream_id] = source_id
    is_alive = Q(deleted_at__isnull=True) & (Q(deadline__isnull=True) | Q(deadline__gt=now))
    needed: set[int] = set()
    chosen = array("q")
    others = present.exclude(path=config().registry_path)  # the database of an import has a registry of its own
    alive = others.filter(is_alive).order_by("generation", "path").values_list("pk", "path")
    for stream_id, path in alive.iterator():
        if path is not None and (not patterns or any(pattern.matches(path) for pattern in patterns)):
            chosen.append(stream_id)
            source = sources.get(stream_id)
            while source is not None and source not in needed:
                needed.add(source)
                source = sources.get(source)
    needed.difference_update(chosen)
    return chosen if not needed else _merged(chosen, needed, using)


def _merged(chosen: array[int], needed: set[int], using: str) -> array[int]:
    wanted = needed.union(chosen)
    rows = Stream.objects.using(using).filter(path__isnull=False).order_by("generation", "path")
    return array("q", (pk for pk in rows.values_list("pk", flat=True).iterator() if pk in wanted))
