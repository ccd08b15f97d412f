"""Callers of `group_commit.apply` for tests, each with one thing that a Python caller does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from django_durable_streams.store.write.commit_context import CommitContext
from django_durable_streams.store.write.row_cache import RowCache, make_row_cache


class Caching(CommitContext):
    """Has a row cache, where the database can have one."""

    def __init__(self, row_cache: RowCache | None = None) -> None:
        self.row_cache = make_row_cache("default") if row_cache is None else row_cache


class Unheard(Caching):
    """Needs no commits of streams without data."""

    def reports_empty_streams(self) -> bool:
        return False


class Staging(CommitContext):
    """Stages small chunks, as a busy process does."""

    def __init__(self, is_busy: bool = True) -> None:
        self._is_busy = is_busy

    def stages_chunks(self) -> bool:
        return self._is_busy


class Holding(CommitContext):
    """Has operations that wait on some paths."""

    def __init__(self, paths: Collection[str]) -> None:
        self._paths = paths

    def locked_paths(self, paths: Iterable[str]) -> Collection[str]:
        return self._paths
