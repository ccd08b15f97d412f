"""Answers in one process: from their source into the chat's stream, to exactly one end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures.thread import _threads_queues
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.test import override_settings

from django_durable_streams.api.writer import Writer
from django_durable_streams.contrib.ai.answers import (
    Answer,
    AnswerContext,
    AnswerError,
    AnswerRunning,
    Chat,
    Run,
    start_answer,
    start_answer_sync,
)
from django_durable_streams.contrib.ai.events import (
    Data,
    Event,
    Failed,
    Finish,
    Message,
    Rewind,
    Start,
    Stopped,
    Text,
    TextPart,
    ToolCall,
    ToolPart,
    ToolResult,
)
from django_durable_streams.contrib.ai.running import SILENT
from django_durable_streams.contrib.ai.service import answers_of
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import ServiceUnavailable

pytestmark = [pytest.mark.usefixtures("engines")]


class Person:
    def __init__(self, pk: int) -> None:
        self.pk = pk


async def words(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        await asyncio.sleep(0)
        yield text


class Gate:
    """A source that yields a text, then waits until it is opened."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_closed = False
        self._opened = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, context: AnswerContext) -> AsyncIterator[str]:
        return self.values()

    async def values(self) -> AsyncIterator[str]:
        self.calls += 1
        self._loop = asyncio.get_running_loop()
        try:
            yield "first"
            await self._opened.wait()
            yield " last"
        finally:
            self.is_closed = True

    def open(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._opened.set)


def user_says(text: str, id: str = "u1") -> Message:
    return Message(id, "user", [TextPart(text)])


async def first_text(run: Run) -> None:
    events = run.aevents()
    async for event in events:
        if isinstance(event, Text):
            break
    await events.aclose()  # type: ignore[attr-defined]


async def events_of(run: Run) -> list[Event]:
    return [event async for event in run.aevents()]


async def test_an_answer_is_written_and_ends() -> None:
    run = await start_answer("chats/1", words("Hello", "", " world"), user=Person(7), turns=[user_says("Hi")])
    name = str(run.pk)
    assert await events_of(run) == [Start(name, run.message_id), Text("Hello"), Text(" world"), Finish(name)]
    await run.await_end()
    assert (run.state, run.active_chat_id, run.owner) == ("done", None, "7")
    chat = await sync_to_async(Chat.at)("chats/1")
    assert chat is not None
    assert chat.owner == "7"
    messages = await chat.amessages()
    assert [(message.role, message.text, message.status) for message in messages] == [
        ("user", "Hi", "done"),
        ("assistant", "Hello world", "done"),
    ]
    assert await sync_to_async(chat.messages)() == messages
    assert await sync_to_async(chat.active_run)() is None


async def test_the_next_answer_knows_the_messages_before_it() -> None:
    seen: list[AnswerContext] = []

    def echo(context: AnswerContext) -> Iterator[str]:
        seen.append(context)
        yield f"You said {context.messages[-1].text}."

    await (await start_answer("chats/1", echo, turns=[user_says("a", "u1")])).await_end()
    run = await (await start_answer("chats/1", echo, turns=[user_says("b", "u2")], user=Person(3))).await_end()
    assert [message.text for message in seen[1].messages] == ["a", "You said a.", "b"]
    assert (seen[1].run, seen[1].user, seen[1].written, seen[1].text) == (str(run.pk), "3", [], "")


async def test_a_second_start_joins_or_is_refused() -> None:
    gate = Gate()
    run = await start_answer("chats/1", gate, turns=[user_says("a")])
    await first_text(run)
    joined = await start_answer("chats/1", words("never"), turns=[user_says("b", "u2")])
    assert joined.joined
    assert joined.pk == run.pk
    with pytest.raises(AnswerRunning):
        await start_answer("chats/1", words("never"), if_active="refuse")
    gate.open()
    await run.await_end()
    assert gate.calls == 1
    chat = await sync_to_async(Chat.at)("chats/1")
    assert chat is not None
    assert [message.text for message in await chat.amessages()] == ["a", "first last"]


async def test_of_many_starts_at_once_one_begins() -> None:
    gate = Gate()

    def start() -> Run:
        try:
            return start_answer_sync("chats/1", gate)
        finally:
            connections.close_all()  # those of this thread, which the garbage collector would find in a later test

    starts = [sync_to_async(start, thread_sensitive=False)() for _ in range(5)]
    runs = await asyncio.gather(*starts)
    assert len({run.pk for run in runs}) == 1
    assert sum(not run.joined for run in runs) == 1
    await first_text(runs[0])
    gate.open()
    await runs[0].await_end()
    assert gate.calls == 1


async def test_a_stop_ends_the_answer_and_its_source() -> None:
    gate = Gate()
    run = await start_answer("chats/1", gate)
    await first_text(run)
    assert await run.astop()
    events = await events_of(run)
    assert events[1:] == [Text("first"), Stopped(str(run.pk))]
    await run.await_end()
    assert run.state == "stopped"
    assert gate.is_closed
    assert not await run.astop()


async def test_a_source_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable_streams.contrib.ai.running.STOP_SECONDS", 0.1)
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def stubborn() -> AsyncIterator[str]:
        yield "first"
        ended = asyncio.Event()
        while not ended.is_set():
            try:
                await asyncio.sleep(3)
                ended.set()
            except asyncio.CancelledError:
                loop.call_soon_threadsafe(released.set)
        yield "late"

    run = await start_answer("chats/1", stubborn())
    await first_text(run)
    await run.astop()
    await run.await_end()
    await released.wait()
    assert run.state == "stopped"


@pytest.mark.parametrize(
    ("error", "shown"),
    [(RuntimeError("secret"), "The answer could not be completed."), (AnswerError("Too long."), "Too long.")],
)
async def test_a_source_that_fails_ends_the_answer(
    error: Exception, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing() -> AsyncIterator[str]:
        yield "first"
        raise error

    run = await start_answer("chats/1", failing())
    assert (await events_of(run))[1:] == [Text("first"), Failed(str(run.pk), shown)]
    await run.await_end()
    assert (run.state, run.error) == ("failed", shown)
    assert [record.name for record in caplog.records] == ["django_durable_streams.contrib.ai.running"]


async def test_a_synchronous_source_has_one_thread_and_one_connection() -> None:
    """It may be in the middle of a query, or of a transaction. The end of the process does not wait for it."""
    seen: list[tuple[threading.Thread, object, bool]] = []

    def source() -> Iterator[str]:
        try:
            with transaction.atomic():
                for text in ("a", "b"):
                    assert not Stream.objects.filter(path="none").exists()
                    connection = connections["default"]
                    seen.append((threading.current_thread(), connection.connection, connection.in_atomic_block))
                    yield text
        finally:
            seen.append((threading.current_thread(), seen[0][1], True))
            closed.set()

    closed = threading.Event()
    run = await (await start_answer("chats/1", source())).await_end()
    assert run.state == "done"
    assert await asyncio.to_thread(closed.wait, 5)
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert seen[0][1] is not None
    assert seen[0][0].daemon
    assert seen[0][0] not in _threads_queues, "Python joins the threads of executors"


async def test_a_synchronous_function_may_block_and_use_the_database() -> None:
    """It may ask a provider before it returns: all answers of the process share the background loop."""
    other = await start_answer("chats/1", words("a"))

    def source(context: AnswerContext) -> list[str]:
        other_is_done.wait(20)
        return [str(Run.objects.filter(state=Run.State.DONE).count())]

    other_is_done = threading.Event()
    run = await start_answer("chats/2", source)
    await other.await_end()
    other_is_done.set()
    assert Text("1") in await events_of(run)


async def test_a_stopped_synchronous_source_is_closed_in_its_thread() -> None:
    threads: list[threading.Thread] = []
    go_on, closed = threading.Event(), threading.Event()

    def source() -> Iterator[str]:
        threads.append(threading.current_thread())
        try:
            yield "first"
            go_on.wait(20)
            yield "last"
        finally:
            threads.append(threading.current_thread())
            closed.set()

    run = await start_answer("chats/1", source())
    await first_text(run)
    await run.astop()
    await run.await_end()
    assert run.state == "stopped"
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 5)
    assert threads[0] is threads[1]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), SystemExit(1)])
async def test_whatever_a_source_raises_ends_the_answer(error: BaseException) -> None:
    async def failing() -> AsyncIterator[str]:
        yield "first"
        raise error

    run = await (await start_answer("chats/1", failing())).await_end()
    assert (run.state, run.error) == ("failed", "The answer could not be completed.")


@pytest.mark.parametrize(
    ("message", "shown"),
    [("half of a pair: \ud83d", "half of a pair: ?"), ("a\0b", "ab"), ("a" * 20_000_000, "a" * 2000)],
    ids=["surrogate", "nul", "long"],
)
async def test_an_error_that_cannot_be_stored_ends_the_answer(message: str, shown: str) -> None:
    async def failing() -> AsyncIterator[str]:
        yield "first"
        raise AnswerError(message)

    run = await (await start_answer("chats/1", failing())).await_end()
    assert (run.state, run.error) == ("failed", shown)


@pytest.mark.parametrize(
    "source", ["no.such.module.source", "tests.ai.test_answers.no_such", "os.getcwd", 5, lambda _: 5]
)
async def test_a_source_that_cannot_begin_ends_the_answer(source: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = await start_answer("chats/1", source)
    (_, failed) = await events_of(run)
    assert failed == Failed(str(run.pk), "The answer could not be completed.")
    assert len(caplog.records) == 1


async def test_a_source_may_yield_events_and_its_own_end() -> None:
    events = [ToolCall("t1", "add", {"a": 1}), ToolResult("t1", 2), Data("chart", {"x": 1}), Finish(reason="length")]

    async def source() -> AsyncIterator[Event]:
        for event in events:
            yield event

    run = await start_answer("chats/1", source())
    assert (await events_of(run))[1:] == [*events[:-1], Finish(str(run.pk), "length")]
    chat = await sync_to_async(Chat.at)("chats/1")
    assert chat is not None
    (message,) = await chat.amessages()
    assert message.parts[0] == ToolPart("t1", "add", {"a": 1}, 2, "", True)


async def test_what_a_source_must_not_yield_ends_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    for value in (5, Start("r", "m"), Data("x", object())):

        async def source(value: Any = value) -> AsyncIterator[Any]:
            yield value

        run = await (await start_answer("chats/1", source())).await_end()
        assert run.state == "failed"
    assert len(caplog.records) == 3


@pytest.mark.django_db(transaction=True)
def test_a_start_takes_part_in_the_callers_transaction() -> None:
    called: list[str] = []

    def source(context: AnswerContext) -> list[str]:
        called.append(context.run)
        return ["text"]

    with transaction.atomic():
        start_answer_sync("chats/1", source, turns=[user_says("a")])
        transaction.set_rollback(True)
    assert not Run.objects.exists()
    assert not Stream.objects.exists()
    with transaction.atomic():
        run = start_answer_sync("chats/1", source, turns=[user_says("a")])
        assert not called
    assert [type(event) for event in run.events()] == [Start, Text, Finish]
    assert called == [str(run.pk)]


async def test_edit_and_regenerate_are_rewinds() -> None:
    await (await start_answer("chats/1", words("one"), turns=[user_says("a", "u1")])).await_end()
    run = await start_answer("chats/1", words("two"), turns=[Rewind("u1"), user_says("b", "u1")])
    await run.await_end()
    again = await start_answer("chats/1", words("three"), turns=[Rewind(run.message_id)])
    await again.await_end()
    chat = await sync_to_async(Chat.at)("chats/1")
    assert chat is not None
    assert [message.text for message in await chat.amessages()] == ["b", "three"]


async def test_a_branch_begins_with_the_messages_before_a_message() -> None:
    await (await start_answer("chats/1", words("one"), turns=[user_says("a", "u1")], user=Person(1))).await_end()
    await (await start_answer("chats/1", words("two"), turns=[user_says("b", "u2")])).await_end()
    chat = await sync_to_async(Chat.at)("chats/1")
    assert chat is not None
    branch = await chat.abranch("chats/2", before="u2")
    await (await start_answer(branch, words("three"), turns=[user_says("c", "u2")])).await_end()
    assert [message.text for message in await branch.amessages()] == ["a", "one", "c", "three"]
    assert [message.text for message in await chat.amessages()] == ["a", "one", "b", "two"]
    assert (branch.owner, branch.branched_from_id) == ("1", chat.pk)
    whole = await chat.abranch("chats/3")
    assert [message.text for message in await whole.amessages()] == ["a", "one", "b", "two"]
    with pytest.raises(ValueError, match="no message"):
        await chat.abranch("chats/4", before="u9")


async def test_a_deleted_chat_ends_its_answer() -> None:
    gate = Gate()
    run = await start_answer("chats/1", gate)
    await first_text(run)
    await run.chat.stream.adelete()
    gate.open()
    assert [type(event) for event in await events_of_gone(run)] == []
    assert not await sync_to_async(Run.objects.exists)()


async def events_of_gone(run: Run) -> list[Event]:
    from django_durable_streams.protocol.errors import StreamNotFound

    with pytest.raises(StreamNotFound):
        await events_of(run)
    return []


async def test_a_stream_that_cannot_hold_a_chat_is_refused() -> None:
    from django_durable_streams.protocol.errors import DurableStreamsError

    await Stream.objects.acreate(path="text", content_type="text/plain")
    with pytest.raises(DurableStreamsError):
        await start_answer("text", words("a"))


@pytest.mark.parametrize("options", [{"on_lost": "never"}, {"on_lost": "continue"}])
def test_an_impossible_answer_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=r"on_lost|dotted"):
        Answer(words("a"), **options)


async def test_a_silent_source_ends_and_so_does_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    with override_settings(DURABLE_STREAMS={"AI_IDLE_TIMEOUT": 0.2}):
        run = await start_answer("chats/1", gate)
        assert (await events_of(run))[1:] == [Text("first"), Failed(str(run.pk), SILENT)]
    await run.await_end()
    assert (run.state, run.error) == ("failed", SILENT)
    assert gate.is_closed
    assert "AI_IDLE_TIMEOUT" in caplog.text


async def test_a_function_that_never_returns_ends_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays in its thread, which nobody can end."""
    monkeypatch.setattr("django_durable_streams.contrib.ai.running.STOP_SECONDS", 0.1)
    released = threading.Event()

    def source(context: AnswerContext) -> list[str]:
        released.wait(60)
        return ["late"]

    with override_settings(DURABLE_STREAMS={"AI_IDLE_TIMEOUT": 0.2}):
        run = await (await start_answer("chats/1", source)).await_end()
    released.set()
    assert (run.state, run.error) == ("failed", SILENT)


async def test_a_source_that_hangs_at_its_close_ends_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable_streams.contrib.ai.running.STOP_SECONDS", 0.1)

    async def source() -> AsyncIterator[Event]:
        try:
            yield Finish()
        finally:
            await asyncio.sleep(60)

    with override_settings(DURABLE_STREAMS={"AI_IDLE_TIMEOUT": 0.2}):
        run = await (await start_answer("chats/1", source())).await_end()
    assert (run.state, run.error) == ("failed", SILENT)


async def test_a_slow_database_is_no_silence_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write takes three times the limit. The source has each event at once, so no busy machine delays it."""
    write = Writer.write

    async def source() -> AsyncIterator[str]:
        yield "a"

    async def slow(writer: Any, value: Any) -> None:
        await asyncio.sleep(0.6)
        await write(writer, value)

    monkeypatch.setattr(Writer, "write", slow)
    with override_settings(DURABLE_STREAMS={"AI_IDLE_TIMEOUT": 0.2}):
        run = await (await start_answer("chats/1", source())).await_end()
    assert run.state == "done"


async def test_a_process_refuses_more_answers_than_it_may_write() -> None:
    gate = Gate()
    with override_settings(DURABLE_STREAMS={"AI_MAX_RUNS": 1}):
        run = await start_answer("chats/1", gate)
        await first_text(run)
        with pytest.raises(ServiceUnavailable, match="AI_MAX_RUNS"):
            await start_answer("chats/2", words("never"))
        assert not await Chat.objects.filter(stream__path="chats/2").aexists()
        assert (await start_answer("chats/1", words("never"))).joined
        gate.open()
        await run.await_end()
        for _ in range(500):  # its last event is there before its task has ended
            if not answers_of("default").has_room:
                await asyncio.sleep(0.01)
        assert (await (await start_answer("chats/2", words("a"))).await_end()).state == "done"
