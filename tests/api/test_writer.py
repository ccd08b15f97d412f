"""Writing what comes in small pieces: batches, ends, crashes."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection, transaction
from django.db.models import Model

from django_durable_streams.api import stream_committer, transactions
from django_durable_streams.api.stream_committer import MAX_MESSAGES, StreamCommitter
from django_durable_streams.api.writer import Writer
from django_durable_streams.api.writer_options import WriterSettings
from django_durable_streams.engine import Engine
from django_durable_streams.models import Chunk, Producer, Stream
from django_durable_streams.protocol.errors import (
    InvalidJSON,
    ProducerFenced,
    ServiceUnavailable,
    StreamClosed,
    StreamNotFound,
)
from django_durable_streams.protocol.producers import server_producer
from django_durable_streams.runtime.batch_worker import WorkerEnded
from django_durable_streams.signals import stream_appended
from django_durable_streams.store.chunk_rows import MAX_CHUNK_BYTES
from django_durable_streams.store.operations import Append, TakenOver, TakeOver
from django_durable_streams.store.write import group_commit
from django_durable_streams.testing import stop_engines
from django_durable_streams.testing.engines import inline_engines
from tests.server.waiting import until

JSON = "application/json"
real_apply = group_commit.apply


@pytest.fixture
def answer(engines: None) -> Stream:
    return Stream.objects.create(path="answer", content_type=JSON)


@pytest.fixture
def commits() -> Iterator[list[str]]:
    """The offsets at which commits ended, as signals tell."""
    offsets: list[str] = []

    def receive(next_offset: str, **arguments: Any) -> None:
        offsets.append(next_offset)

    stream_appended.connect(receive)
    yield offsets
    stream_appended.disconnect(receive)


async def messages(stream: Stream) -> list[Any]:
    return [message async for message in stream.aread()]


async def fail(writer: Writer, *values: Any) -> None:
    """Write something and fail then, which nobody keeps secret."""

    async def job() -> None:
        async with writer:
            for value in values:
                await writer.write(value)
            raise RuntimeError("the model")

    with pytest.raises(RuntimeError, match="the model"):
        await job()


async def is_closed(stream: Model) -> bool:
    await stream.arefresh_from_db()
    return bool(stream.closed)  # type: ignore[attr-defined]


class TestBatches:
    async def test_small_writes_share_commits(self, answer: Stream, commits: list[str]) -> None:
        began = time.monotonic()
        async with answer.awriter() as writer:
            for number in range(100):
                await writer.write(number)
                await asyncio.sleep(0.002)
            kept = await messages(answer)
            assert kept == list(range(len(kept)))
        took = time.monotonic() - began
        assert await messages(answer) == list(range(100))
        assert writer.written == 100
        assert writer.next_offset == answer.next_offset
        assert answer.closed
        assert await is_closed(answer)
        assert len(commits) <= took * 20 + 3  # the first does not wait, and neither does the end

    async def test_a_first_write_does_not_wait_and_flush_waits_for_the_commit(self, answer: Stream) -> None:
        async with answer.awriter(interval=20) as writer:
            await writer.write("at once")
            await writer.flush()
            assert await messages(answer) == ["at once"]

    async def test_what_comes_after_a_pause_does_not_wait_either(self, answer: Stream) -> None:
        clock = asyncio.get_running_loop().time
        async with answer.awriter(interval=2) as writer:
            await writer.write(1)
            await asyncio.sleep(2.05)
            began = clock()
            await writer.write(2)
            await until(lambda: writer.written == 2)
            assert clock() - began < 1.5

    async def test_much_is_committed_before_its_time(self, answer: Stream) -> None:
        async with answer.awriter(interval=20, max_bytes=1000) as writer:
            await writer.write(0)
            await writer.flush()
            for _ in range(2):
                await writer.write("x" * 500)
            await until(lambda: writer.written == 3)
            for _ in range(MAX_MESSAGES):
                await writer.write(1)
            await until(lambda: writer.written == 3 + MAX_MESSAGES)

    async def test_text_keeps_its_pieces_and_empty_ones_are_passed_over(self, engines: None) -> None:
        text = await Stream.objects.acreate(path="text", content_type="text/plain")
        async with text.awriter(close=False) as writer:
            for token in ("good", "", " morning"):
                await writer.write(token)
        assert await messages(text) == ["good", " morning"]
        assert (writer.written, await is_closed(text)) == (2, False)

    async def test_whoever_writes_too_fast_waits_and_memory_stays_bounded(
        self, answer: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on = threading.Event()

        def apply(*arguments: Any, **options: Any) -> Any:
            assert go_on.wait(20)
            return real_apply(*arguments, **options)

        monkeypatch.setattr(group_commit, "apply", apply)
        taken = 0

        async def write(writer: Writer) -> None:
            nonlocal taken
            for number in range(100):
                await writer.write(f"{number:0998}")
                taken += 1

        async with answer.awriter(max_bytes=10_000) as writer:
            writing_task = asyncio.ensure_future(write(writer))
            done, _ = await asyncio.wait([writing_task], timeout=0.3)
            assert not done
            # What is on its way to the database, and as much again.
            assert 10 <= taken <= 21
            go_on.set()
            await writing_task
        assert await messages(answer) == [f"{number:0998}" for number in range(100)]


class TestEnds:
    async def test_a_failure_leaves_the_stream_open_for_who_comes_next(self, answer: Stream) -> None:
        await fail(answer.awriter(interval=20), 1, 2)
        assert await messages(answer) == [1, 2]
        assert not await is_closed(answer)

    async def test_a_failure_may_close_the_stream_with_a_message(self, answer: Stream) -> None:
        await fail(answer.awriter(on_error="close", error_message=lambda error: {"error": str(error)}), 1)
        assert await messages(answer) == [1, {"error": "the model"}]
        assert await is_closed(answer)

    async def test_a_cancelled_job_has_failed(self, answer: Stream) -> None:
        written = asyncio.Event()

        async def job() -> None:
            async with answer.awriter(error_message="cancelled") as writer:
                await writer.write(1)
                written.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(job())
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await messages(answer) == [1, "cancelled"]
        assert not await is_closed(answer)

    async def test_what_the_stream_refuses_is_told_to_the_writer(self, answer: Stream) -> None:
        with pytest.raises(InvalidJSON):
            async with answer.awriter() as writer:
                await writer.write(object())
        writer = await answer.awriter().__aenter__()
        await answer.aclose()
        await writer.write(1)
        with pytest.raises(StreamClosed):
            await writer.__aexit__(None, None, None)
        async with answer.awriter() as writer:
            assert writer.closed
            with pytest.raises(StreamClosed):
                await writer.write(2)
        await answer.adelete()
        with pytest.raises(StreamNotFound):
            await answer.awriter().__aenter__()
        with pytest.raises(StreamNotFound):
            await answer.awriter(producer="p").__aenter__()

    async def test_it_is_for_use_inside_its_block(self, answer: Stream) -> None:
        with pytest.raises(ValueError, match="on_error"):
            answer.awriter(on_error="ignore")  # type: ignore[arg-type]
        async with answer.awriter(close=False) as writer:
            pass
        with pytest.raises(RuntimeError):
            await writer.write(1)


class TestProducers:
    async def test_a_second_run_goes_on_where_the_first_was_stopped(self, answer: Stream) -> None:
        first = await answer.awriter(producer="job").__aenter__()
        assert (first.resumed, first.written) == (False, 0)
        for number in range(5):
            await first.write(number)
        await first.flush()
        # It is not ended: its process has been killed, or only seems to be.
        async with answer.awriter(producer="job") as second:
            assert (second.resumed, second.written) == (True, 5)
            await first.write("from beyond")
            with pytest.raises(ProducerFenced):
                await first.flush()
            for number in range(second.written, 10):
                await second.write(number)
        assert await messages(answer) == list(range(10))
        async with answer.awriter(producer="job") as third:
            assert third.closed

    async def test_messages_of_one_commit_are_one_append(self, answer: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
        """The time of a commit would otherwise grow with each token of an answer that has fallen behind."""
        appends: list[Append] = []

        def apply(operations: Any, using: str, **options: Any) -> Any:
            appends.extend(operation for operation in operations if isinstance(operation, Append) and operation.data)
            return real_apply(operations, using, **options)

        monkeypatch.setattr(group_commit, "apply", apply)
        async with answer.awriter(producer="job", close=False, interval=60) as writer:
            await writer.write(0)  # which does not wait for others
            await writer.flush()
            for number in range(1, 7):
                await writer.write(number)
            await writer.flush()
            await writer.write(7)
        counts = [(append.producer and append.producer.seq, append.count) for append in appends]
        assert counts == [(0, 1), (1, 6), (7, 1)]
        async with answer.awriter(producer="job") as again:
            assert again.written == 8
        assert await messages(answer) == list(range(8))

    @pytest.mark.parametrize("producer", [None, "job"])
    async def test_large_messages_of_one_commit_make_no_chunk_that_is_larger(
        self, answer: Stream, producer: str | None
    ) -> None:
        """A database takes a chunk in one packet, and a reader takes it as a whole."""
        sizes = [10, 600_000, 300_000, 300_000, 10, 2_000_000, 10, 10]
        async with answer.awriter(producer=producer, close=False, interval=60, max_bytes=10_000_000) as writer:
            for size in sizes:
                await writer.write("x" * size)
        assert [len(message) for message in await messages(answer)] == sizes
        chunks = [chunk async for chunk in Chunk.objects.order_by("start").values_list("start", "end")]
        assert [end - start for start, end in chunks if end - start > MAX_CHUNK_BYTES] == [2_000_003]
        if producer is not None:
            async with answer.awriter(producer=producer) as again:
                assert again.written == len(sizes)

    async def test_two_that_begin_at_once_are_told_apart(self, answer: Stream) -> None:
        one, other = [await answer.awriter(producer="job").__aenter__() for _ in range(2)]
        await one.write("lost")
        await other.write("kept")
        await other.flush()
        with pytest.raises(ProducerFenced):
            await one.flush()
        assert await messages(answer) == ["kept"]

    async def test_who_is_fenced_neither_closes_nor_complains_in_the_stream(self, answer: Stream) -> None:
        first = answer.awriter(producer="job", on_error="close", error_message="failed")
        await first.__aenter__()
        async with answer.awriter(producer="job", close=False) as second:
            with pytest.raises(ProducerFenced):
                await first.__aexit__(None, None, None)
            third = answer.awriter(producer="other", on_error="close", error_message="failed")
            await third.__aenter__()
            fourth = await answer.awriter(producer="other").__aenter__()
            await third.__aexit__(RuntimeError, RuntimeError("x"), None)
            await second.write(1)
            await fourth.write(2)
            await fourth.flush()
        assert sorted(await messages(answer)) == [1, 2]
        assert not await is_closed(answer)

    async def test_a_message_of_failure_is_not_counted(self, answer: Stream) -> None:
        await fail(answer.awriter(producer="job", error_message="failed"), 0)
        assert await answer.aappend_from(range(3), producer="job", close=True) == 2
        assert await messages(answer) == [0, "failed", 1, 2]
        assert await is_closed(answer)

    async def test_others_who_write_to_the_stream_are_not_counted(self, answer: Stream) -> None:
        await answer.aappend("hello")
        async with answer.awriter(producer="one", close=False) as one, answer.awriter(producer="other") as other:
            await other.write("other")
            await one.write("one")
            await one.flush()  # the other one closes the stream first
        async with answer.awriter(producer="one") as again:
            assert (again.written, again.closed) == (1, True)

    async def test_a_commit_without_an_answer_is_tried_again_and_there_once(
        self, answer: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        troubles: list[Exception] = [group_commit.CommitUncertain(), OperationalError("gone"), OperationalError("gone")]

        def apply(operations: Any, using: str, **options: Any) -> Any:
            if troubles and any(getattr(operation, "data", b"") for operation in operations):
                trouble = troubles.pop(0)
                if isinstance(trouble, group_commit.CommitUncertain):
                    real_apply(operations, using, **options)
                raise trouble
            return real_apply(operations, using, **options)

        monkeypatch.setattr(group_commit, "apply", apply)
        async with answer.awriter(producer="job") as writer:
            for number in range(10):
                await writer.write(number)
        assert not troubles
        assert await messages(answer) == list(range(10))

    async def test_without_a_name_it_is_not_tried_again(self, answer: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
        def apply(operations: Any, using: str, **options: Any) -> Any:
            raise group_commit.CommitUncertain

        writer = await answer.awriter().__aenter__()
        await writer.write(1)
        await writer.flush()
        monkeypatch.setattr(group_commit, "apply", apply)
        await writer.write(2)
        with pytest.raises(ServiceUnavailable):
            await writer.flush()
        monkeypatch.undo()
        with pytest.raises(ServiceUnavailable):
            await writer.write(3)
        with pytest.raises(ServiceUnavailable):
            await writer.__aexit__(None, None, None)
        assert await messages(answer) == [1]

    @pytest.mark.parametrize("producer", ["job", None])
    async def test_a_full_queue_is_waited_for(self, answer: Stream, settings: Any, producer: str | None) -> None:
        settings.DURABLE_STREAMS = {"QUEUE_SIZE": 3}
        stop_engines()
        text = await Stream.objects.acreate(path="text", content_type="text/plain")
        async with text.awriter(producer=producer) as writer:
            for number in range(8):
                await writer.write(f"{number}")
        assert await messages(text) == [f"{number}" for number in range(8)]


class TestAppendingFrom:
    async def test_chunks_of_an_asynchronous_iterator(self, answer: Stream) -> None:
        async def tokens() -> AsyncIterator[str]:
            for token in ("good", "morning"):
                yield token
                await asyncio.sleep(0)

        assert await answer.aappend_from(tokens()) == 2
        assert await messages(answer) == ["good", "morning"]
        assert not await is_closed(answer)

    async def test_what_is_there_is_skipped_and_a_closed_stream_is_left_alone(self, answer: Stream) -> None:
        assert await answer.aappend_from(range(4), producer="job") == 4
        assert await answer.aappend_from(range(6), producer="job", close=True) == 2
        assert await answer.aappend_from(range(6), producer="job", close=True) == 0
        assert await messages(answer) == list(range(6))


class TestSynchronous:
    def test_it_writes_and_closes(self, answer: Stream) -> None:
        with answer.writer(producer="job") as writer:
            for number in range(10):
                writer.write(number)
            writer.flush()
            assert (writer.written, writer.resumed, writer.closed) == (10, False, False)
            assert writer.next_offset == answer.next_offset
        assert list(answer.read()) == list(range(10))
        answer.refresh_from_db()
        assert answer.closed

    def test_a_failure_is_marked(self, answer: Stream) -> None:
        with pytest.raises(RuntimeError), answer.writer(on_error="close", error_message="failed"):
            raise RuntimeError
        assert list(answer.read()) == ["failed"]

    def test_it_takes_no_part_in_a_transaction(self, answer: Stream) -> None:
        with transaction.atomic(), pytest.raises(RuntimeError, match="commits by itself"), answer.writer():
            pass
        assert not connection.in_atomic_block

    def test_nor_in_one_that_the_caller_manages_by_hand(self, answer: Stream) -> None:
        transaction.set_autocommit(False)
        try:
            answer.append("held")
            with pytest.raises(RuntimeError, match="commits by itself"), answer.writer():
                pass
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        with answer.writer() as writer:
            writer.write("after it")
        assert list(answer.read()) == ["held", "after it"]

    def test_nor_where_it_is_in_a_coroutine(self, answer: Stream) -> None:
        async def write() -> None:
            async with answer.awriter() as writer:
                await writer.write("from a coroutine")

        with transaction.atomic():
            answer.append("held")
            with pytest.raises(RuntimeError, match="commits by itself"):
                async_to_sync(write)()
        async_to_sync(write)()
        assert list(answer.read()) == ["held", "from a coroutine"]

    @pytest.mark.django_db(transaction=True)
    async def test_it_does_not_wait_for_the_event_loop_that_it_runs_in(self) -> None:
        stream = await Stream.objects.acreate(path="answer")
        with inline_engines(), pytest.raises(RuntimeError, match="with an a in front"), stream.writer():
            pass


@pytest.mark.django_db
class TestTakingOver:
    def test_epochs_count_up_and_numbers_go_on(self) -> None:
        stream = Stream.objects.create(path="a", content_type=JSON)
        assert take_over("a") == TakenOver(0, -1, 0, False)
        stream.append(1, producer=("job", 0, 0))
        assert take_over("a") == TakenOver(1, 0, 2, False)
        with pytest.raises(ProducerFenced):
            stream.append(2, producer=("job", 0, 1))
        stream.append(2, producer=("job", 1, 1))
        producer = Producer.objects.get()
        assert (producer.name, producer.epoch, producer.seq) == ("job", 1, 1)

    def test_a_closed_stream_is_left_as_it_is(self) -> None:
        Stream.objects.create(path="a", closed=True)
        assert take_over("a") == TakenOver(0, -1, 0, True)
        assert not Producer.objects.exists()


def take_over(path: str) -> Any:
    return transactions.apply(TakeOver(path, server_producer("job")), "default")


def test_a_writer_that_begins_as_an_engine_ends_uses_the_next_one(
    answer: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Engine.read
    ended: list[Engine] = []

    async def end_once(engine: Engine, path: str) -> Any:
        if not ended:
            ended.append(engine)
            raise WorkerEnded("The server is about to end. Try again.")
        return await read(engine, path)

    monkeypatch.setattr(Engine, "read", end_once)
    with answer.writer() as writer:
        writer.write("hello")
    assert ended
    assert list(answer.read()) == ["hello"]


def test_many_writers_of_a_process_commit_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    def next_tick(writers: int, **options: float) -> float:
        monkeypatch.setattr(stream_committer, "_writing", {*range(writers)})
        committer = StreamCommitter(Stream(pk=1, path="a"), "default", WriterSettings(**options))  # type: ignore[arg-type]
        return committer._next_tick(1000.0) - 1000

    assert [round(next_tick(writers), 6) for writers in (1, 100, 200, 2000)] == [0.05, 0.05, 0.1, 1.0]
    assert round(next_tick(2000, interval=0.05), 6) == 0.05
    assert next_tick(2000, interval=0) == 0


async def test_only_writers_with_messages_make_others_commit_less_often(answer: Stream) -> None:
    """A process may hold thousands of writers that wait for their next message."""
    async with answer.awriter() as writer:
        for number in range(3):
            await until(lambda: not stream_committer._writing)
            await writer.write(number)
            await until(lambda: stream_committer._writing == {writer.core})
    assert not stream_committer._writing
    assert await messages(answer) == [0, 1, 2]


async def test_a_writer_that_has_failed_makes_no_others_commit_less_often(answer: Stream) -> None:
    async def write_to_a_deleted_stream() -> None:
        async with answer.awriter() as writer:
            await answer.adelete()
            await writer.write("lost")
            await until(lambda: writer.core._failure is not None)
            await until(lambda: not stream_committer._writing)

    with pytest.raises(StreamNotFound):
        await write_to_a_deleted_stream()


def test_writers_of_one_interval_commit_at_the_same_ticks() -> None:
    def next_tick(interval: float, now: float) -> float:
        return StreamCommitter(Stream(pk=1, path="a"), "default", WriterSettings(interval=interval))._next_tick(now)

    assert {round(next_tick(0.05, 1000 + part), 6) for part in (0.0, 0.01, 0.049)} == {1000.05}
    assert next_tick(0.05, 1000.05) > 1000.05
    assert next_tick(0, 1000.0) == 1000.0
