"""Families of an archive: a stream, its forks, the forks of these, and so on.

An import writes a family in one transaction. Before a fork is there, housekeeping would delete the trimmed data of its
source, which only the fork needs, and the source itself, if it was deleted or has expired.

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

    def add(self, fork: str, source: str, place: Place) -> None:
        """Add a fork, after its source. `place` is the fork's."""
        root = self._roots.get(source, source)
        self._roots[fork] = root
        self._forks.setdefault(root, []).append(place)

    def is_fork(self, path: str) -> bool:
        """Whether a stream is written with its source."""
        return path in self._roots

    def forks_of(self, path: str) -> Sequence[Place]:
        """Return the places of all streams of a family, but for the first one, whose path is given."""
        return self._forks.get(path, ())
