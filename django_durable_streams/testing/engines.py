"""Engines in tests: they work inside the test's own transaction, or end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread

from asgiref.sync import SyncToAsync
from django.db import connections

from ..engine.engine import running_engines
from ..engine.engine import stop_engines as _stop_engines
from ..runtime import execution


def stop_engines() -> None:
    """End the engines of this process, with all live reads, their threads and their database connections.

    pytest-asyncio, anyio and `asyncio.run` run synchronous code of coroutines in one thread. It closes its connections,
    too: a test database with open connections cannot be removed.
    """
    for engine in running_engines():
        engine.end_live_reads()
    _stop_engines()
    executor = SyncToAsync.single_thread_executor
    if executor._threads and current_thread() not in executor._threads:
        executor.submit(connections.close_all).result()


@contextmanager
def inline_engines() -> Iterator[None]:
    """Let engines work in the test's thread, on its connection and so in its transaction.

    The threads of an engine have connections of their own. They see no data that a `TestCase` has not committed, and
    cannot share a SQLite database in memory. Inside this block engines have no threads: requests run their database
    work by `sync_to_async`, as Django's asynchronous tests run synchronous code.
    """
    stop_engines()
    with execution.inline():
        try:
            yield
        finally:
            stop_engines()


def needs_inline_engines(in_transaction: bool) -> bool:
    """Return whether a test needs `inline_engines`: in a transaction, or with a SQLite database in memory."""
    return in_transaction or any(
        connection.vendor == "sqlite" and connection.is_in_memory_db()  # type: ignore[attr-defined]
        for connection in connections.all()
    )
