"""A writer ends its stream as it was told, in every way in which it can end, and loses nothing that it has taken."""

import asyncio
import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection

from django_durable_streams.api import stream_appender, writer_endings
from django_durable_streams.engine import engine, engine_for
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import ProducerFenced
from django_durable_streams.runtime import background
from django_durable_streams.store.write import group_commit
from tests import preloaded
from tests.servers import EXAMPLE, example_environment, migrated_sqlite_file

JSON = "application/json"
TOLD: dict[str, Any] = {"on_error": "close", "error_message": "failed"}
real_apply = group_commit.apply


@pytest.fixture
def answer(engines: None) -> Stream:
    engine_for()  # what is there when an engine is made, the garbage collector leaves alone
    return Stream.objects.create(path="answer", content_type=JSON)


def ended(stream: Stream) -> list[Any]:
    """Wait until a stream is closed, and return its messages: some ends wait for nothing."""
    deadline = time.monotonic() + 20
    while not stream.closed:
        assert time.monotonic() < deadline, "the stream was not closed"
        stream.refresh_from_db()
    return list(stream.read())


async def pause() -> None:
    await asyncio.Event().wait()


async def write_two(stream: Stream, then: Callable[[], Awaitable[object]], **options: Any) -> None:
    """Write what is committed and what is not committed yet, and end in some way."""
    async with stream.awriter(**{**TOLD, **options}) as writer:
        await writer.write("first")
        await writer.flush()
        await writer.write("second")
        await then()


def running(work: Callable[[Stream], Awaitable[None]]) -> Callable[[Stream], None]:
    def run(stream: Stream) -> None:
        async def main() -> None:
            await work(stream)

        asyncio.run(main())

    return run


async def is_done(stream: Stream) -> None:
    async def nothing() -> None:
        pass

    await write_two(stream, nothing)


def raises(error: BaseException) -> Callable[[Stream], Awaitable[None]]:
    async def job(stream: Stream) -> None:
        async def fail() -> None:
            raise error

        with contextlib.suppress(type(error)):
            await write_two(stream, fail)

    return job


async def begin(stream: Stream) -> asyncio.Task[None]:
    """Return a job that has written all and waits now."""
    has_written = asyncio.Event()

    async def then() -> None:
        has_written.set()
        await pause()

    task = asyncio.ensure_future(write_two(stream, then))
    await has_written.wait()
    return task


async def is_cancelled(stream: Stream) -> None:
    task = await begin(stream)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def is_cancelled_twice(stream: Stream) -> None:
    task = await begin(stream)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def loses_all_tasks_of_its_loop(stream: Stream) -> None:
    task = await begin(stream)
    for one in asyncio.all_tasks() - {asyncio.current_task()}:
        one.cancel()
    await asyncio.wait([task])


def ends_with_its_run(stream: Stream) -> None:
    """The loop cancels all its tasks at once."""

    async def main() -> None:
        task = await begin(stream)
        assert not task.done()

    asyncio.run(main())


def has_its_loop_closed(stream: Stream) -> None:
    """The loop cancels nothing, and its tasks are forgotten."""
    loop = asyncio.new_event_loop()

    async def main() -> None:
        task = await begin(stream)
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    loop.run_until_complete(main())
    loop.close()
    gc.collect()


def has_its_coroutine_closed(stream: Stream) -> None:
    """As somebody does who steps through coroutines by hand, and gives one up."""

    class Yielding:
        def __await__(self) -> Iterator[str]:
            yield "all is written"

    async def wait() -> None:
        await Yielding()

    async def main() -> None:
        coroutine = write_two(stream, wait)
        waits_for: Any = coroutine.send(None)
        while waits_for != "all is written":
            waits_for._asyncio_future_blocking = False
            await asyncio.wait([waits_for])
            waits_for = coroutine.send(None)
        coroutine.close()

    asyncio.run(main())


async def is_a_generator_that_is_closed(stream: Stream) -> None:
    async def generate() -> AsyncIterator[int]:
        async with stream.awriter(**TOLD) as writer:
            await writer.write("first")
            await writer.flush()
            await writer.write("second")
            yield 1

    generator: Any = generate()
    await anext(generator)
    await generator.aclose()


async def is_a_generator_that_is_forgotten(stream: Stream) -> None:
    async def generate() -> AsyncIterator[int]:
        async with stream.awriter(**TOLD) as writer:
            await writer.write("first")
            await writer.flush()
            await writer.write("second")
            yield 1

    async for _ in generate():
        break
    gc.collect()


async def is_forgotten(stream: Stream) -> None:
    writer = await stream.awriter(**TOLD).__aenter__()
    await writer.write("first")
    await writer.flush()
    await writer.write("second")
    del writer
    gc.collect()


ASYNCHRONOUS: dict[str, tuple[Callable[[Stream], None], bool]] = {
    "done": (running(is_done), True),
    "exception": (running(raises(ValueError("x"))), False),
    "CancelledError raised": (running(raises(asyncio.CancelledError())), False),
    "KeyboardInterrupt": (running(raises(KeyboardInterrupt())), False),
    "SystemExit": (running(raises(SystemExit(1))), False),
    "GeneratorExit": (running(raises(GeneratorExit())), False),
    "cancelled": (running(is_cancelled), False),
    "cancelled twice": (running(is_cancelled_twice), False),
    "all tasks cancelled": (running(loses_all_tasks_of_its_loop), False),
    "run ended": (ends_with_its_run, False),
    "loop closed": (has_its_loop_closed, False),
    "coroutine closed": (has_its_coroutine_closed, False),
    "generator closed": (running(is_a_generator_that_is_closed), False),
    "generator forgotten": (running(is_a_generator_that_is_forgotten), False),
    "forgotten": (running(is_forgotten), False),
}


@pytest.mark.parametrize("way", ASYNCHRONOUS)
def test_an_asynchronous_writer_that_is(way: str, answer: Stream) -> None:
    end, is_success = ASYNCHRONOUS[way]
    end(answer)
    assert ended(answer) == ["first", "second", *([] if is_success else ["failed"])]


def test_what_was_taken_is_committed_within_the_interval_though_the_loop_stands_still(answer: Stream) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> Any:
        writer = await answer.awriter(close=False).__aenter__()
        await writer.write("first")
        await writer.flush()
        await writer.write("second")
        return writer

    writer = loop.run_until_complete(begin())
    deadline = time.monotonic() + 20
    while list(answer.read()) != ["first", "second"]:
        assert time.monotonic() < deadline
    loop.run_until_complete(writer.__aexit__(None, None, None))
    loop.close()


def write_two_synchronously(stream: Stream, then: Callable[[], object]) -> None:
    with stream.writer(**TOLD) as writer:
        writer.write("first")
        writer.flush()
        writer.write("second")
        then()


def generate(stream: Stream) -> Iterator[int]:
    with stream.writer(**TOLD) as writer:
        writer.write("first")
        writer.flush()
        writer.write("second")
        yield 1


def closed_generator(stream: Stream) -> None:
    generator: Any = generate(stream)
    next(generator)
    generator.close()


class Holder:
    """Keeps a generator, in a cycle: only the garbage collector ends it."""

    def __init__(self, generator: Iterator[Any]) -> None:
        self.generator = generator
        self.me = self


async def collect() -> None:
    gc.collect()


def collected_by_the_background_loop(stream: Stream) -> None:
    gc.disable()
    try:
        next(Holder(generate(stream)).generator)
        background.run(collect())
    finally:
        gc.enable()


def thrown(error: BaseException) -> Callable[[Stream], None]:
    def run(stream: Stream) -> None:
        def fail() -> None:
            raise error

        with pytest.raises(type(error)):
            write_two_synchronously(stream, fail)

    return run


def in_a_thread(stream: Stream) -> None:
    def work() -> None:
        try:
            write_two_synchronously(stream, lambda: None)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


SYNCHRONOUS: dict[str, tuple[Callable[[Stream], None], bool]] = {
    "done": (lambda stream: write_two_synchronously(stream, lambda: None), True),
    "in a thread": (in_a_thread, True),
    "exception": (thrown(ValueError("x")), False),
    "KeyboardInterrupt": (thrown(KeyboardInterrupt()), False),
    "SystemExit": (thrown(SystemExit(1)), False),
    "GeneratorExit": (thrown(GeneratorExit()), False),
    "generator closed": (closed_generator, False),
    "collected by the background loop": (collected_by_the_background_loop, False),
}


@pytest.mark.parametrize("way", SYNCHRONOUS)
def test_a_synchronous_writer_that_is(way: str, answer: Stream) -> None:
    end, is_success = SYNCHRONOUS[way]
    end(answer)
    assert ended(answer) == ["first", "second", *([] if is_success else ["failed"])]


PROCESS = """
import asyncio, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background has it ignored
import django
django.setup()
from django.db import connection, transaction
from django_durable_streams.models import Stream
from django_durable_streams.runtime.write_lock import write_lock

TOLD = {"on_error": "close", "error_message": "failed"}
stream = Stream.objects.create(path="answer", content_type="application/json")

async def job(then):
    async with stream.awriter(**TOLD) as writer:
        await writer.write("first")
        await writer.flush()
        await writer.write("second")
        await then()

def in_daemon_thread():
    taken = threading.Event()
    def work():
        with stream.writer(**TOLD) as writer:
            writer.write("first")
            writer.flush()
            writer.write("second")
            taken.set()
            threading.Event().wait()
    threading.Thread(target=work, daemon=True).start()
    taken.wait()

def in_a_loop_that_is_given_up():
    global task, loop
    loop = asyncio.new_event_loop()
    async def main():
        global task
        taken = loop.create_future()
        async def then():
            taken.set_result(None)
            await asyncio.Event().wait()
        task = asyncio.ensure_future(job(then))
        task._log_destroy_pending = False
        await taken
    loop.run_until_complete(main())

def by_sys_exit():
    async def then():
        sys.exit(0)
    asyncio.run(job(then))

def by_ctrl_c():
    async def then():
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
    try:
        asyncio.run(job(then))
    except KeyboardInterrupt:
        pass

def with_a_fork():
    with stream.writer(**TOLD) as writer:
        writer.write("first")
        writer.flush()
        writer.write("second")
        child = os.fork()
        if child == 0:
            try:
                writer.write("child")
            except RuntimeError as error:
                assert "parent process" in str(error)
                sys.exit(7)  # through the block, and through the end of the process
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        writer.write("third")

def with_a_fork_whose_child_goes_on():
    with stream.writer(**TOLD) as writer:
        writer.write("first")
        child = os.fork()
        if child == 0:
            connection.close()
            with Stream.objects.create(path="of the child", content_type="text/plain").writer() as own:
                own.write("x")
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert list(Stream.objects.get(path="of the child").read()) == ["x"]
        writer.write("second")

def with_a_fork_while_somebody_commits():
    begun, forked, kept = threading.Event(), threading.Event(), []
    def work():
        with write_lock("default").hold(), transaction.atomic():
            Stream.objects.create(path="of the thread")
            kept.append(connection.connection)  # as an engine keeps those of its threads
            begun.set()
            forked.wait(0.5)  # which it is not, as the fork waits
    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    connection.close()
    child = os.fork()
    if child == 0:
        with stream.writer() as own:
            own.write("first")
            own.write("second")
        os._exit(7)
    forked.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert Stream.objects.filter(path="of the thread").exists()

def forgotten_global():
    global writer
    writer = stream.writer(**TOLD).__enter__()
    writer.write("first")
    writer.flush()
    writer.write("second")

globals()[sys.argv[1]]()
"""

AT_THE_END_OF_THE_PROCESS = {
    "in_daemon_thread": ["first", "second", "failed"],
    "in_a_loop_that_is_given_up": ["first", "second", "failed"],
    "by_sys_exit": ["first", "second", "failed"],
    "by_ctrl_c": ["first", "second", "failed"],
    "with_a_fork": ["first", "second", "third"],
    "with_a_fork_whose_child_goes_on": ["first", "second"],
    "with_a_fork_while_somebody_commits": ["first", "second"],
    "forgotten_global": ["first", "second", "failed"],
}


def run(environment: dict[str, str], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process. If it hangs, fail with the stacks of its threads."""
    command = [sys.executable, "-X", "faulthandler", "-c", code, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=EXAMPLE, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            output, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            pytest.fail(f"The process hangs:\n{process.communicate(timeout=10)[1]}")
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@pytest.mark.parametrize("way", AT_THE_END_OF_THE_PROCESS)
def test_a_writer_of_a_process_that_ends(way: str, tmp_path: Path) -> None:
    file = shutil.copyfile(migrated_sqlite_file(), tmp_path / "db.sqlite3")
    environment = example_environment({"DATABASE_URL": f"sqlite:///{file}"})
    done = run(environment, PROCESS, way)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    look = (
        "import json, django; django.setup()\n"
        "from django_durable_streams.models import Stream\n"
        "stream = Stream.objects.get(path='answer')\n"
        "print(json.dumps([list(stream.read()), stream.closed]))"
    )
    looked = preloaded.run([sys.executable, "-c", look], cwd=EXAMPLE, env=environment, timeout=60)
    assert json.loads(looked.stdout) == [AT_THE_END_OF_THE_PROCESS[way], True]


def cannot(error: BaseException) -> Any:
    raise TypeError("a bug of the project's")


GENERIC = writer_endings.GENERIC_MESSAGE


@pytest.mark.parametrize("is_synchronous", [False, True])
@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("text/plain", lambda error: {"error": str(error)}, GENERIC),
        ("text/plain", {"error": "x"}, GENERIC),
        ("text/plain", cannot, GENERIC),
        (JSON, object(), GENERIC),
        (JSON, cannot, GENERIC),
        (JSON, lambda error: error, GENERIC),
        (JSON, lambda error: None, None),
        (JSON, "", ""),
        ("application/octet-stream", {"error": "x"}, None),
        ("application/octet-stream", cannot, None),
    ],
)
def test_a_message_that_cannot_be_made_hides_no_error_and_leaves_no_stream_open(
    engines: None, kind: str, message: Any, expected: Any, is_synchronous: bool
) -> None:
    stream = Stream.objects.create(path="a", content_type=kind)
    value: Any = b"data" if kind == "application/octet-stream" else "data"
    options: Any = {"on_error": "close", "error_message": message}

    def write() -> None:
        with stream.writer(**options) as writer:
            writer.write(value)
            raise KeyError("the job's own")

    async def awrite() -> None:
        async with stream.awriter(**options) as writer:
            await writer.write(value)
            raise KeyError("the job's own")

    with pytest.raises(KeyError, match="the job's own"):
        write() if is_synchronous else asyncio.run(awrite())
    messages = ended(stream)
    assert messages[0] == value
    assert messages[1:] in (
        [] if expected is None else [expected],
        [GENERIC.encode()] if value == b"data" else [expected],
    )


def in_time(work: Callable[[], object]) -> None:
    """Do work in a thread, and wait for it for a limited time."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def exits_by(error: BaseException) -> dict[str, Any]:
    """Return the options of a writer whose last message is made by code that raises what is no `Exception`."""

    def message(_: BaseException) -> Any:
        raise error

    return {"on_error": "close", "error_message": message}


EXITS = [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]


@pytest.mark.parametrize("exit_error", EXITS, ids=repr)
class TestMessagesWhoseCodeExits:
    """The stream ends with the generic message, and other writers go on."""

    def test_at_the_end_of_the_block(self, answer: Stream, exit_error: BaseException) -> None:
        def write() -> None:
            with answer.writer(**exits_by(exit_error)) as writer:
                writer.write("first")
                raise ValueError("the job's own")

        # A KeyboardInterrupt is a signal's. Nothing else hides the exception of the job.
        with pytest.raises(KeyboardInterrupt if isinstance(exit_error, KeyboardInterrupt) else ValueError):
            in_time(write)
        assert ended(answer) == ["first", GENERIC]

    def test_of_a_writer_that_is_forgotten(self, answer: Stream, exit_error: BaseException) -> None:
        writer = answer.writer(**exits_by(exit_error)).__enter__()
        writer.write("first")
        writer.flush()
        del writer
        gc.collect()
        assert ended(answer) == ["first", GENERIC]
        other = Stream.objects.create(path="other", content_type=JSON)
        in_time(lambda: write_two_synchronously(other, lambda: None))
        assert ended(other) == ["first", "second"]

    def test_of_a_writer_whose_own_commit_fails(
        self, answer: Stream, monkeypatch: pytest.MonkeyPatch, exit_error: BaseException
    ) -> None:
        troubles: list[Exception] = [OperationalError("a disk that is full, for a moment")]

        def apply(operations: Any, using: str, **options: Any) -> Any:
            if troubles and any(b"first" in getattr(operation, "data", b"") for operation in operations):
                raise group_commit.CommitUncertain from troubles.pop()
            return real_apply(operations, using, **options)

        def write() -> None:
            with answer.writer(**exits_by(exit_error)) as writer:
                writer.write("first")

        monkeypatch.setattr(group_commit, "apply", apply)
        with pytest.raises(Exception, match=r"Try again|disk"):
            in_time(write)
        assert ended(answer) == [GENERIC]


def test_it_is_fenced_and_says_nothing_to_the_stream_of_another(answer: Stream) -> None:
    async def main() -> None:
        first = await answer.awriter(producer="job", **TOLD).__aenter__()
        async with answer.awriter(producer="job", close=False) as second:
            await second.write("second")
            await first.write("first")
            with pytest.raises(ProducerFenced):
                await first.__aexit__(None, None, None)

    asyncio.run(main())
    answer.refresh_from_db()
    assert (list(answer.read()), answer.closed) == (["second"], False)


@pytest.mark.parametrize("is_done", [True, False])
def test_one_whose_own_commit_fails_ends_its_stream_too(
    answer: Stream, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    troubles: list[Exception] = [OperationalError("a disk that is full, for a moment")]

    def apply(operations: Any, using: str, **options: Any) -> Any:
        if troubles and any(b"second" in getattr(operation, "data", b"") for operation in operations):
            raise group_commit.CommitUncertain from troubles.pop()
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    with pytest.raises(Exception, match=r"Try again|disk"):
        write_two_synchronously(answer, (lambda: None) if is_done else cannot_write_on)
    assert ended(answer)[-1] == "failed"


def cannot_write_on() -> None:
    raise RuntimeError("Try again")


class TestSources:
    """What a writer takes from a generator ends the same, and the generator ends with it."""

    @pytest.mark.parametrize("message", ["in the middle", object()])
    async def test_one_that_is_not_taken_to_its_end_is_closed(
        self, answer: Stream, message: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        is_closed = False

        async def tokens() -> AsyncIterator[Any]:
            nonlocal is_closed
            try:
                yield "first"
                if message == "in the middle":
                    raise KeyError("the job's own")
                yield message
            finally:
                is_closed = True

        with pytest.raises((KeyError, Exception)):
            await answer.aappend_from(tokens(), close=True, **TOLD)
        assert is_closed
        await answer.arefresh_from_db()
        assert ([one async for one in answer.aread()], answer.closed) == (["first", "failed"], True)

    async def test_one_that_raises_as_it_is_closed_hides_nothing(
        self, answer: Stream, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def tokens() -> AsyncIterator[Any]:
            try:
                yield "first"
                yield object()
            finally:
                raise OSError("the connection to the model")

        with pytest.raises(Exception, match="object") as raised:
            await answer.aappend_from(tokens(), close=True, **TOLD)
        assert not isinstance(raised.value, OSError)
        assert "the connection to the model" in caplog.text
        await answer.arefresh_from_db()
        assert ([one async for one in answer.aread()], answer.closed) == (["first", "failed"], True)

    async def test_a_synchronous_one_too(self, answer: Stream) -> None:
        is_closed = False

        def tokens() -> Iterator[Any]:
            nonlocal is_closed
            try:
                yield "first"
                yield object()
            finally:
                is_closed = True

        with pytest.raises(Exception, match="object"):
            await answer.aappend_from(tokens())
        assert is_closed


def test_a_child_of_a_fork_does_not_wait_for_its_parents_writer(answer: Stream) -> None:
    with answer.writer(close=False) as writer:
        writer._writer.core._process = os.getppid()
        with pytest.raises(RuntimeError, match="parent process"):
            writer.write(1)
        with pytest.raises(RuntimeError, match="parent process"):
            writer.flush()
        writer._writer.core._process = os.getpid()


def test_one_that_was_never_entered_ends_nothing(answer: Stream) -> None:
    answer.awriter(**TOLD)
    gc.collect()
    answer.refresh_from_db()
    assert not answer.closed


def test_a_message_that_comes_too_late_for_one_engine_goes_to_the_next(
    answer: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may stop its engine just when the writer has chosen it."""
    with answer.writer(close=False) as writer:
        ended_engine = engine_for()
        engine.stop_engines()
        engines = iter([ended_engine])
        monkeypatch.setattr(stream_appender, "engine_for", lambda using: next(engines, None) or engine_for(using))
        writer.write("first")
        writer.flush()
    assert list(answer.read()) == ["first"]


def test_a_server_that_stops_its_engines_stops_no_writer(answer: Stream) -> None:
    with answer.writer() as writer:
        writer.write("first")
        engine.stop_engines()
        writer.write("second")
        writer.flush()
        writer.write("third")
        engine.stop_engines()
    assert ended(answer) == ["first", "second", "third"]
