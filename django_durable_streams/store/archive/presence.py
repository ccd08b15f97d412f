"""What of an archive the database has already, and whether the rest fits to it. Only reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ...models import Stream
from .records import ArchiveError, StreamRecord

PATHS_PER_QUERY = 500


class Presence:
    """Which streams of an archive the database has already.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self._using = using

    def check(self, streams: Sequence[StreamRecord]) -> set[str]:
        """Return the paths of those streams that are there already.

        Raises:
            ArchiveError: another stream has one of the paths.
        """
        present: set[str] = set()
        for first in range(0, len(streams), PATHS_PER_QUERY):
            generations = {stream.path: stream.generation for stream in streams[first : first + PATHS_PER_QUERY]}
            rows = Stream.objects.using(self._using).filter(path__in=[*generations])
            for path, generation in rows.values_list("path", "generation"):
                assert path is not None
                if generation != generations[path]:
                    raise ArchiveError(
                        f"The database has another stream at {path}. Delete it, or leave it out of the import. An "
                        "expired one is removed by: streams prune"
                    )
                present.add(path)
        return present

    def check_sources(self, streams: Sequence[StreamRecord], present: Collection[str]) -> None:
        """Check that sources that are there already still have what their forks need. See `check_sources`.

        Args:
            streams: the streams.
            present: the paths of those of them that are there already.
        """
        forks = [stream for stream in streams if stream.path not in present and stream.source is not None]
        if not forks:
            return
        wanted = [*{path for fork in forks for path, _ in fork.owners()}]
        first_positions: dict[str, int] = {}
        for first in range(0, len(wanted), PATHS_PER_QUERY):
            rows = Stream.objects.using(self._using).filter(path__in=wanted[first : first + PATHS_PER_QUERY])
            first_positions |= {path or "": position for path, position in rows.values_list("path", "first_position")}
        for fork in forks:
            check_sources(fork, first_positions)

    def has(self, path: str, generation: int) -> bool:
        """Return whether the database has a stream at a path, with this generation if it is one, and not below 0."""
        streams = Stream.objects.using(self._using).filter(path=path)
        return (streams if generation < 0 else streams.filter(generation=generation)).exists()


def check_sources(stream: StreamRecord, first_positions: Mapping[str, int]) -> None:
    """Check that the sources of a fork still have the data that it needs.

    Args:
        stream: the fork, or another stream.
        first_positions: those of sources that are in the database already, by path.

    Raises:
        ArchiveError: a source was trimmed further. What is left of that data may be deleted any moment.
    """
    for path, start, end, _ in stream.lineage or ():
        if max(start, stream.first_position) < min(end, first_positions.get(path, 0)):
            raise ArchiveError(
                f"The stream {path} is there already and was trimmed, so the data that {stream.path} has from it is "
                f"gone. Leave {stream.path} out of the import, or delete {path} first, to restore both."
            )
