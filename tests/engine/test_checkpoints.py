"""A thread copies SQLite's write-ahead log into the database while the committer goes on."""

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from django.db import connection, connections

from django_durable_streams.engine import Engine, checkpoints, engine_for
from django_durable_streams.engine.checkpoints import STEP_BYTES
from django_durable_streams.protocol.errors import ServiceUnavailable, StreamNotFound
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.runtime import execution
from django_durable_streams.runtime.connection import LOG_PAGES, DedicatedConnection, copy_log, limit_log
from django_durable_streams.store.operations import Append, Create
from tests.server.waiting import until

BINARY = "application/octet-stream"
PAGE = 4096
MEGABYTE = bytes(range(256)) * 4096

pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="the others look after their logs themselves")


@pytest.fixture
def engine(engines: None) -> Engine:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that there is nothing of others in the log
    return engine_for()


def files() -> tuple[Path, Path]:
    """Return the database and its log."""
    database = Path(connection.settings_dict["NAME"])
    return database, database.with_name(f"{database.name}-wal")


def thread_names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


async def test_much_data_is_in_the_database_before_the_log_is_long(engine: Engine) -> None:
    await engine.write(Create("a", BINARY))
    before = files()[0].stat().st_mtime_ns
    for _ in range(6):
        await engine.write(Append("a", BINARY, MEGABYTE))
    # Nobody who writes would have copied it yet.
    assert 6 * len(MEGABYTE) < LOG_PAGES * PAGE
    await until(lambda: files()[0].stat().st_mtime_ns > before)


@pytest.mark.slow
async def test_the_log_starts_over_under_load(engine: Engine) -> None:
    await engine.write(Create("a", BINARY))
    written = 0
    while written < 48 * STEP_BYTES:
        await asyncio.gather(*(engine.write(Append("a", BINARY, MEGABYTE)) for _ in range(2)))
        written += 2 * len(MEGABYTE)
        # On a busy machine the thread may come late: it is its work that is tested, not the machine's.
        await until(lambda: not engine._checkpointer._due.is_set())  # type: ignore[union-attr]
    assert files()[1].stat().st_size < written / 2
    view = await engine.read("a", Sentinel.START)
    assert view.info.tail == written


def limit() -> object:
    with connections["default"].cursor() as cursor:
        return cursor.execute("PRAGMA wal_autocheckpoint").fetchone()[0]


async def test_the_committer_limits_the_log_again_once_little_data_arrives(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "IDLE_SECONDS", 0.5)
    await engine.write(Create("a", BINARY))
    committer = engine._writers[0]
    assert await asyncio.to_thread(committer.write, limit) == LOG_PAGES
    while await asyncio.to_thread(committer.write, limit) == LOG_PAGES:
        await engine.write(Append("a", BINARY, MEGABYTE))
    assert await asyncio.to_thread(committer.write, limit) == checkpoints.MAX_LOG_PAGES
    while await asyncio.to_thread(committer.write, limit) != LOG_PAGES:  # noqa: ASYNC110  there is no event for it
        await asyncio.sleep(0)


async def test_the_answer_to_a_large_append_does_not_wait_for_the_copy(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "REST_SECONDS", 60.0)
    await engine.write(Create("a", BINARY))
    before = files()[0].stat().st_mtime_ns
    await engine.write(Append("a", BINARY, 12 * MEGABYTE))
    assert files()[1].stat().st_size > LOG_PAGES * PAGE
    assert files()[0].stat().st_mtime_ns == before
    # More data ends the rest.
    monkeypatch.setattr(checkpoints, "REST_BYTES", 16 * len(MEGABYTE))
    await engine.write(Append("a", BINARY, 4 * MEGABYTE))
    await until(lambda: files()[0].stat().st_mtime_ns > before)


async def test_the_copy_rests_while_a_client_that_is_alone_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "REST_SECONDS", 60.0)
    await engine.write(Create("a", BINARY))
    before = files()[0].stat().st_mtime_ns
    for _ in range(4):
        await engine.write(Append("a", BINARY, 12 * MEGABYTE))
        await until(lambda: not engine._checkpointer._due.is_set())  # type: ignore[union-attr]
    assert files()[0].stat().st_mtime_ns == before
    await engine.write(Append("a", BINARY, 16 * MEGABYTE))
    await until(lambda: files()[0].stat().st_mtime_ns > before)


async def test_large_commits_during_a_copy_are_not_left_to_the_committer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The committer copies the rest of a long log, and all requests wait for it."""
    loop = asyncio.get_running_loop()
    copies = 0
    changes: list[int] = []
    """By how much each copy of the committer has moved the time at which the database was written."""

    async def append() -> None:
        await engine.write(Append("a", BINARY, 12 * MEGABYTE))

    def copy(using: str) -> int:
        nonlocal copies
        if threading.current_thread().name == "durable-streams-checkpoints":
            copies += 1
            if copies > 2:
                return copy_log(using)
            with closing(sqlite3.connect(files()[0])) as reader:
                # Without a reader the log would start over by itself.
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM durable_streams_stream").fetchall()
                pages = copy_log(using)
                asyncio.run_coroutine_threadsafe(append(), loop).result()
            return pages
        before = files()[0].stat().st_mtime_ns
        pages = copy_log(using)
        changes.append(files()[0].stat().st_mtime_ns - before)
        return pages

    monkeypatch.setattr(checkpoints, "copy_log", copy)
    monkeypatch.setattr(checkpoints, "REST_SECONDS", 60.0)
    monkeypatch.setattr(checkpoints, "REST_BYTES", 40 * len(MEGABYTE))
    await engine.write(Create("a", BINARY))
    for _ in range(4):
        await append()
    await until(lambda: bool(changes))
    assert changes == [0]


async def test_the_committer_limits_the_log_again_after_a_large_append_that_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def note(using: str, pages: int = LOG_PAGES) -> None:
        limits.append(pages)
        limit_log(using, pages)

    monkeypatch.setattr(checkpoints, "limit_log", note)
    monkeypatch.setattr(checkpoints, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "REST_SECONDS", 0.0)
    with pytest.raises(StreamNotFound):
        await engine.write(Append("missing", BINARY, 8 * MEGABYTE))
    assert limits[0] == checkpoints.MAX_LOG_PAGES
    await until(lambda: limits[-1] == LOG_PAGES)


def test_a_thread_that_writes_seldom_leaves_the_log_alone_too(engine: Engine) -> None:
    def limits() -> list[object]:
        seldom = DedicatedConnection("default")
        seldom.open()
        values = [limit()]
        for pages in (checkpoints.MAX_LOG_PAGES, LOG_PAGES):
            with ThreadPoolExecutor(1) as other:
                other.submit(raise_limit, pages).result()
            seldom.open()
            values.append(limit())
        with ThreadPoolExecutor(1) as other:
            other.submit(raise_limit, checkpoints.MAX_LOG_PAGES).result()
        seldom.close()
        seldom.open()
        values.append(limit())
        limit_log("default")
        seldom.close()
        return values

    def raise_limit(pages: int) -> None:
        busy = DedicatedConnection("default")
        busy.open()
        limit_log("default", pages)
        busy.close()

    with ThreadPoolExecutor(1) as thread:
        most = checkpoints.MAX_LOG_PAGES
        assert thread.submit(limits).result() == [LOG_PAGES, most, LOG_PAGES, most]


async def test_without_the_thread_the_committer_copies_the_log(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.write(Create("a", BINARY))
    before = files()[0].stat().st_mtime_ns
    monkeypatch.setattr(execution, "start_thread", mock.Mock(side_effect=ServiceUnavailable("none")))
    assert await engine.write(Append("a", BINARY, 12 * MEGABYTE))
    assert files()[0].stat().st_mtime_ns > before


async def test_with_little_data_the_committer_copies_the_log(engine: Engine) -> None:
    await engine.write(Create("a", BINARY))
    await engine.write(Append("a", BINARY, MEGABYTE))
    assert "durable-streams-checkpoints" not in thread_names()


async def test_the_thread_ends_with_the_engine(engine: Engine) -> None:
    await engine.write(Create("a", BINARY))
    for _ in range(5):
        await engine.write(Append("a", BINARY, MEGABYTE))
    assert "durable-streams-checkpoints" in thread_names()
    await asyncio.to_thread(engine.stop)
    assert "durable-streams-checkpoints" not in thread_names()


async def test_the_next_engine_has_the_usual_limit_if_the_thread_ended_before_its_work(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit_of_another() -> object:
        another = DedicatedConnection("default")
        another.open()
        pages = limit()
        another.close()
        return pages

    await engine.write(Create("a", BINARY))
    monkeypatch.setattr(checkpoints.Checkpointer, "_run", lambda checkpointer: None)
    await engine.write(Append("a", BINARY, 8 * MEGABYTE))
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(limit_of_another).result() == checkpoints.MAX_LOG_PAGES
    await asyncio.to_thread(engine.stop)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(limit_of_another).result() == LOG_PAGES


@pytest.mark.usefixtures("engines")
def test_the_end_leaves_a_thread_whose_committer_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "STOP_SECONDS", 0.1)
    released = threading.Event()
    checkpointer = checkpoints.Checkpointer(DedicatedConnection("default"), lambda work: released.wait(20))
    checkpointer.before_commit(STEP_BYTES)
    thread = checkpointer._thread
    assert thread is not None
    try:
        checkpointer.stop()
        assert thread.is_alive()
        assert "durable-streams-checkpoints does not end" in caplog.text
    finally:
        released.set()
        thread.join(20)
