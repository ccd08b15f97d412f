"""Which streams an archive has: those that match, and the sources of forks among them, in the order of generations.

A fork's generation is greater than its source's, so a source comes first. The registry and its forks stay out: the
database of an import has a registry of its own, at the same path. Knows no record.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Mapping, Sequence

from django.db.models import Q

from ... import clock
from ...conf import config
from ...models import Stream
from ...protocol.globs import Glob

logger = logging.getLogger(__name__)


def select(patterns: Sequence[Glob], using: str) -> array[int]:
    """Return the ids of the streams that match one of the patterns, or of all, and of the sources of forks.

    Soft-deleted and expired streams are only there as sources.

    Args:
        patterns: the patterns. None of them: all streams. The registry and its forks are never among them.
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
    registry_path = config().registry_path
    left_out = _with_forks(present.filter(path=registry_path).values_list("pk", flat=True), sources)
    alive = present.filter(is_alive).order_by("generation", "path").values_list("pk", "path")
    for stream_id, path in alive.iterator():
        if path is not None and (not patterns or any(pattern.matches(path) for pattern in patterns)):
            if stream_id in left_out:
                if path != registry_path:
                    logger.warning("%s stays out of the archive, because it is a fork of the registry.", path)
                continue
            chosen.append(stream_id)
            source = sources.get(stream_id)
            while source is not None and source not in needed:
                needed.add(source)
                source = sources.get(source)
    needed.difference_update(chosen)
    return chosen if not needed else _merged(chosen, needed, using)


def _with_forks(stream_ids: Iterable[int], sources: Mapping[int, int]) -> set[int]:
    """Return the ids of streams, and of their forks, and of the forks of these."""
    family = set(stream_ids)
    if not family:
        return family
    forks: dict[int, list[int]] = {}
    for fork_id, source_id in sources.items():
        forks.setdefault(source_id, []).append(fork_id)
    unvisited = [*family]
    while unvisited:
        new = [fork_id for fork_id in forks.get(unvisited.pop(), ()) if fork_id not in family]
        family.update(new)
        unvisited += new
    return family


def _merged(chosen: array[int], needed: set[int], using: str) -> array[int]:
    wanted = needed.union(chosen)
    rows = Stream.objects.using(using).filter(path__isnull=False).order_by("generation", "path")
    return array("q", (pk for pk in rows.values_list("pk", flat=True).iterator() if pk in wanted))
