"""Families of an archive: a stream, its forks, the forks of these, and so on.

An import writes a family in one transaction where something may end the data of a source before its forks are there:
housekeeping deletes trimmed data that only a fork needs, and removes a source that was deleted or has expired. The
streams of all other families are written as single ones, so that no transaction is long.

Knows no database and no file.
"""

from __future__ import annotations

from collections.abc import Sequence

from .directory import Place


class Families:
    """The forks of an archive whose sources are in it, too."""

    def __init__(self) -> None:
        self._roots: dict[str, str] = {}
        """By the path of each fork: the path of the first stream of its family."""
        self._forks: dict[str, list[Place]] = {}
        self._unstable: set[int] = set()
        """The hashes of the paths of streams whose data may end without forks."""
        self._whole: set[str] = set()
        """The first streams of families that need one transaction."""

    def mark_unstable(self, path: str) -> None:
        """Note that the data of a stream may end while it has no forks. Called before `add` for its forks."""
        self._unstable.add(hash(path))

    def add(self, fork: str, source: str, place: Place) -> None:
        """Add a fork, after its source. `place` is the fork's."""
        root = self._roots.get(source, source)
        self._roots[fork] = root
        self._forks.setdefault(root, []).append(place)
        if hash(source) in self._unstable:
            self._whole.add(root)

    def is_fork(self, path: str) -> bool:
        """Whether a stream is written with its source."""
        return self._roots.get(path) in self._whole

    def forks_of(self, path: str) -> Sequence[Place]:
        """Return the places of all streams to write with the first one of a family, whose path is given."""
        return self._forks[path] if path in self._whole else ()
