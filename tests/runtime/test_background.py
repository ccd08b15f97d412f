"""The event loop in a thread of its own: nothing that is abandoned blocks it, or anybody."""

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from django_durable_streams.api import transactions
from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream
from django_durable_streams.runtime import background
from tests.server.waiting import watched
from tests.servers import EXAMPLE, example_environment, migrated_sqlite_file

JSON = "application/json"


@pytest.fixture
def chat(engines: None) -> Stream:
    engine_for()  # what is there when an engine is made, the garbage collector leaves alone
    return Stream.objects.create(path="chat", content_type=JSON)


@pytest.fixture
def collected_on_purpose() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Holder:
    """Keeps an iterator, in a cycle: only the garbage collector ends it."""

    def __init__(self, pages: Any) -> None:
        self.pages = pages
        self.me = self


async def collect() -> None:
    gc.collect()


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def waits(stream: Stream) -> Holder:
    """Return the holder of a synchronous tail that has waited for its first page, and would wait for the next."""
    holder = Holder(stream.tail("now"))

    def append() -> None:
        soon(lambda: watched() > 0)
        stream.append({"a": 1})
        connection.close()

    thread = threading.Thread(target=append)
    thread.start()
    next(holder.pages)
    thread.join()
    assert watched() == 1
    return holder


def by_the_background_loop() -> None:
    background.run(collect())


def by_another_thread() -> None:
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def by_this_thread() -> None:
    gc.collect()


def by_one_that_holds_the_lock_of_the_loop() -> None:
    with background._lock:
        gc.collect()


def by_another_event_loop() -> None:
    asyncio.run(collect())


@pytest.mark.parametrize(
    "way",
    [
        by_the_background_loop,
        by_another_thread,
        by_this_thread,
        by_one_that_holds_the_lock_of_the_loop,
        by_another_event_loop,
    ],
)
def test_a_tail_that_is_abandoned_blocks_nobody(
    chat: Stream, collected_on_purpose: None, way: Callable[[], None]
) -> None:
    holder = waits(chat)
    del holder
    thread = threading.Thread(target=way, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    soon(lambda: watched() == 0)
    # Others go on.
    with chat.writer(close=False) as writer:
        writer.write({"a": 2})
    assert [page.messages for page in chat.tail(timeout=0)] == [[{"a": 1}, {"a": 2}]]


def test_an_asynchronous_tail_that_is_abandoned_blocks_nobody(chat: Stream, collected_on_purpose: None) -> None:
    async def begin() -> None:
        await chat.aappend(1)
        holder = Holder(chat.atail())
        await anext(holder.pages)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    by_the_background_loop()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert watched() == 0


def test_a_tail_may_be_dropped_in_the_loop_that_it_waits_in(chat: Stream, collected_on_purpose: None) -> None:
    holder = waits(chat)

    async def drop() -> None:
        holder.pages.close()

    background.run(drop())
    soon(lambda: watched() == 0)


def test_waiting_for_oneself_is_an_error_and_no_deadlock(chat: Stream) -> None:
    async def wait_for_oneself() -> None:
        for call in (lambda: list(chat.tail("now")), lambda: chat.writer().__enter__()):
            with pytest.raises(RuntimeError, match="background loop"):
                call()

    info = transactions.find("chat", "default")
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(transactions, "pages", lambda *_: iter(()))
        patches.setattr(transactions, "find", lambda *_: info)
        background.run(wait_for_oneself())


def test_an_iterator_that_is_over_is_not_closed_again() -> None:
    closed = []

    async def values() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            closed.append(threading.current_thread().name)

    assert list(background.iterate(values())) == [1]
    assert closed == ["durable-streams-loop"]


def test_a_loop_whose_thread_cannot_start_is_made_at_the_next_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of Python, or with too many threads: nobody may wait for a loop that does not run."""

    async def value() -> int:
        return 7

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(background, "_loop", None)
    monkeypatch.setattr(background, "_thread", None)
    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            background.run(value())
    assert background.run(value()) == 7
    loop, thread = background.loop(), background._thread
    assert thread is not None
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_task_that_exits_ends_the_loop_for_nobody(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    async def leave() -> None:
        raise error

    async def value() -> int:
        return 7

    outcomes: list[object] = []

    def run() -> None:
        try:
            background.run(leave())
        except BaseException as raised:
            outcomes.append(type(raised))
        outcomes.append(background.run(value()))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert outcomes == [type(error), 7]
    assert "the background loop, which goes on" in caplog.text


PROCESS = """
import asyncio, os, sys, threading
import django
django.setup()
from django_durable_streams.models import Stream

stream = Stream.objects.create(path="a", content_type="text/plain", data="x")
stream.append("y")

class Holder:
    def __init__(self, pages):
        self.pages = pages
        self.me = self

def begin():
    holder = Holder(stream.tail())
    next(holder.pages)
    threading.Timer(0.2, lambda: stream.append("z")).start()
    next(holder.pages)
    return holder

async def abegin():
    global loop
    holder = Holder(stream.atail())
    await anext(holder.pages)
    return holder

kept = []
if sys.argv[1] == "tail":
    kept.append(begin())
elif sys.argv[1] == "atail":
    loop = asyncio.new_event_loop()
    kept.append(loop.run_until_complete(abegin()))
elif sys.argv[1] == "thread":
    threading.Thread(target=lambda: list(stream.tail("now")), daemon=True).start()
elif sys.argv[1] == "fork":
    kept.append(begin())
    child = os.fork()
    if child == 0:
        kept.clear()
        import gc; gc.collect()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
elif sys.argv[1] == "late":
    class Late:
        def __del__(self, holder=begin()):
            holder.pages.close()
    sys.late = Late()
print("end", flush=True)
"""


@pytest.mark.parametrize("way", ["tail", "atail", "thread", "fork", "late"])
def test_tails_that_are_left_do_not_block_the_end_of_the_process(way: str, tmp_path: Path) -> None:
    file = shutil.copyfile(migrated_sqlite_file(), tmp_path / "db.sqlite3")
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, way],
        cwd=EXAMPLE,
        env={**example_environment({"DATABASE_URL": f"sqlite:///{file}"}), "PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert os.path.exists(file)
