"""Engines in tests: inside the test's own transaction, or ended with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import current_thread
from typing import Any
from unittest.mock import patch

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections

from ..engine.engine import running_engines
from ..engine.engine import stop_engines as _stop_engines
from ..runtime import background, test_transactions
from ..runtime.batch_worker import BatchWorker, PendingBatch
from ..runtime.connection import DedicatedConnection
from ..store.write.row_cache import RowCache


def stop_engines() -> None:
    """End the engines of this process, with all live reads, their threads and their database connections.

    The thread in which coroutines of pytest-asyncio, anyio and `asyncio.run` have their synchronous code run is told to
    close its connections too: a test database with open connections cannot be removed.
    """
    for engine in running_engines():
        engine.end_live_reads()
    _stop_engines()
    executor = SyncToAsync.single_thread_executor
    if executor._threads and current_thread() not in executor._threads:
        executor.submit(connections.close_all).result()


@contextmanager
def inline_engines() -> Iterator[None]:
    """Let engines do their work in the test's thread, on its connection and so in its transaction.

    An engine's threads have connections of their own, and see nothing of what a `TestCase` has not committed; nor can
    they share a SQLite database in memory. While this lasts there are none: what a request would leave to them runs as
    Django's asynchronous tests run synchronous code, by `sync_to_async`.
    """
    stop_engines()
    with ExitStack() as patches:
        patches.enter_context(patch.object(test_transactions, "engines_join", True))
        for module in ("runtime.batch_worker", "engine.housekeeping", "engine.checkpoints", "runtime.monitor"):
            patches.enter_context(patch(f"django_durable_streams.{module}.Thread", _NoThread))
        patches.enter_context(patch.object(BatchWorker, "_hand_over", _work_here))
        # The connection is the test's, not a thread's own.
        patches.enter_context(patch.object(DedicatedConnection, "open", lambda line: False))
        patches.enter_context(patch.object(DedicatedConnection, "close", lambda line: None))
        # Writers commit in the background loop, whose thread would have a connection of its own.
        patches.enter_context(patch.object(background, "loop", _loop_of_test))
        # What the test itself writes over it, or rolls back, would not be noticed.
        patches.enter_context(patch.object(RowCache, "put", lambda known, state: None))
        patches.enter_context(patch.object(RowCache, "put_new", lambda known, like, numbers: None))
        try:
            yield
        finally:
            stop_engines()


_background_loop = background.loop


def _loop_of_test() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # synchronous code, which would wait for itself
        return _background_loop()


def needs_inline_engines(in_transaction: bool) -> bool:
    """Whether a test needs `inline_engines`: as it runs in a transaction, or on a SQLite database in memory."""
    return in_transaction or any(
        connection.vendor == "sqlite" and connection.is_in_memory_db()  # type: ignore[attr-defined]
        for connection in connections.all()
    )


class _NoThread:
    """Stands for a thread, and does nothing."""

    def __init__(self, **options: Any) -> None:
        pass

    def start(self) -> None:
        """Do not start."""

    def join(self, timeout: float | None = None) -> None:
        """There is nothing to wait for."""


_at_work: set[asyncio.Task[None]] = set()


def _work_here(worker: BatchWorker[Any], batch: PendingBatch[Any]) -> None:
    del worker._open[batch.thread]
    task = batch.loop.create_task(_work(worker, batch))
    _at_work.add(task)
    task.add_done_callback(_at_work.discard)


async def _work(worker: BatchWorker[Any], batch: PendingBatch[Any]) -> None:
    await sync_to_async(worker._do)([batch])
