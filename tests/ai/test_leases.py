"""Runs whose process has vanished: closed or continued by others, once."""

import asyncio
import random
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, transaction
from django.test import override_settings

from django_durable_streams import clock
from django_durable_streams.contrib.ai import leases, rows, wakeups
from django_durable_streams.contrib.ai import service as answer_service
from django_durable_streams.contrib.ai.answers import Answer, Chat, Run, start_answer_sync
from django_durable_streams.contrib.ai.errors import AnswerRunning
from django_durable_streams.contrib.ai.events import (
    Event,
    Failed,
    Finish,
    Message,
    Start,
    Stopped,
    Text,
    TextPart,
    decode,
    encode,
)
from django_durable_streams.contrib.ai.running import GENERIC_ERROR, RunningAnswer
from django_durable_streams.contrib.ai.service import AnswerService
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import ProducerFenced, ServiceUnavailable
from django_durable_streams.runtime import background
from tests.ai.sources import events
from tests.subscriptions.steps import USING, Clock

pytestmark = pytest.mark.django_db(transaction=True)

SOURCE = "tests.ai.sources.scripted"
LEASE = 10.0


@pytest.fixture
def moved_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(clock, "now", moved)
    return moved


def started(path: str = "chats/1", **options: Any) -> rows.Held:
    """Begin a run of a process that does nothing."""
    options = {"holder": "gone", "source": SOURCE, **options}
    run, taken_over = rows.start(rows.StartRequest(path, **options), USING)
    assert taken_over is not None
    leases.renew(run.holder, [run.pk], USING)
    return rows.Held(run, taken_over)


def claimed(run_id: uuid.UUID, holder: str = "other") -> rows.Held | None:
    """Take a run, as a process does that renews its lease at once."""
    held = rows.claim(run_id, holder, USING)
    if held is not None:
        leases.renew(holder, [run_id], USING)
    return held


def write(held: rows.Held, *texts: str, seq: int = 0) -> None:
    """Append as the writer of a holder does."""
    for number, text in enumerate(texts):
        claim = (held.run.producer, held.taken_over.epoch, seq + number)
        Stream.objects.get(path=held.run.chat.path).append(encode(Text(text)), producer=claim)


def stored(path: str = "chats/1") -> list[Event | None]:
    return [decode(value) for value in Stream.objects.get(path=path).read()]


def test_a_lost_run_is_closed_once_and_its_holder_is_fenced(moved_clock: Clock) -> None:
    held = started()
    write(held, "a")
    assert not rows.close_lost(held.run.pk, USING)
    moved_clock.move(LEASE + 1)
    assert rows.close_lost(held.run.pk, USING)
    assert not rows.close_lost(held.run.pk, USING)
    with pytest.raises(ProducerFenced):
        write(held, "late", seq=1)
    assert not rows.end(held.run.pk, held.run.epoch, Finish(), USING)
    name = str(held.run.pk)
    assert stored() == [Start(name, held.run.message_id), Text("a"), Failed(name, rows.LOST)]
    run = Run.objects.get()
    assert (run.state, run.error, run.active_chat_id) == ("failed", rows.LOST, None)


def test_a_lost_run_is_continued_with_what_it_has(moved_clock: Clock) -> None:
    held = started(on_lost="continue")
    write(held, "a", "b")
    assert claimed(held.run.pk, "other") is None
    moved_clock.move(LEASE + 1)
    assert not rows.close_lost(held.run.pk, USING)
    taken = claimed(held.run.pk, "other")
    assert taken is not None
    assert taken.taken_over.seq == 1
    assert claimed(held.run.pk, "third") is None
    with pytest.raises(ProducerFenced):
        write(held, "late", seq=2)
    write(taken, "c", seq=2)
    assert rows.end(taken.run.pk, taken.run.epoch, Finish(str(taken.run.pk)), USING)
    assert stored()[1:] == [Text("a"), Text("b"), Text("c"), Finish(str(taken.run.pk))]


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the levels and the texts of the log lines on runs that nobody writes, and forget them."""
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == rows.__name__]
    caplog.clear()
    return lines


def test_each_outcome_of_a_lost_run_is_logged(moved_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """With the run and its chat: an operator would learn of a killed process by the complaints of users only."""
    caplog.set_level("INFO")

    def line(held: rows.Held, outcome: str) -> str:
        return f"Nobody writes the answer {held.run.pk} in {held.run.chat.path} any more. {outcome}"

    failing, stopped = started("chats/failing"), started("chats/stopped")
    again, going_on = started("chats/again"), started("chats/going-on", on_lost="continue")
    assert stopped.run.stop()
    moved_clock.move(LEASE + 1)
    assert logged(caplog) == []
    assert rows.close_lost(failing.run.pk, USING)
    assert not rows.close_lost(failing.run.pk, USING)
    assert logged(caplog) == [("WARNING", line(failing, f"It has failed: {rows.LOST}"))]
    assert rows.close_lost(stopped.run.pk, USING)
    assert logged(caplog) == [("INFO", line(stopped, "It has ended as stopped."))]
    rows.start(rows.StartRequest("chats/again"), USING)
    assert logged(caplog) == [("WARNING", line(again, f"It has failed: {rows.LOST}"))]
    assert claimed(going_on.run.pk) is not None
    assert logged(caplog) == [("INFO", line(going_on, "This process continues it: attempt 1."))]
    moved_clock.move(LEASE + 1)
    assert rows.queue_again(going_on.run.pk, USING)
    assert logged(caplog) == [("INFO", line(going_on, "It waits for a worker again."))]
    moved_clock.move(rows.QUEUE_SECONDS + 1)
    leases.begin(USING)
    moved_clock.move(rows.QUEUE_SECONDS + 1)
    assert rows.close_lost(going_on.run.pk, USING)
    assert logged(caplog) == [("WARNING", line(going_on, f"It has failed: {rows.NOT_TAKEN}"))]


def test_no_outcome_is_logged_that_is_rolled_back(moved_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    held = started()
    moved_clock.move(LEASE + 1)
    with transaction.atomic():
        assert rows.close_lost(held.run.pk, USING)
        transaction.set_rollback(True)
    assert logged(caplog) == []


def test_an_answer_that_ends_with_its_process_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def call(*arguments: Any) -> None:
        pass

    failing, going_on = started(), started("chats/2", on_lost="continue")
    for held in (failing, going_on):
        RunningAnswer(held, None, call, USING).interrupt()
    text = f"The answer {failing.run.pk} in chats/1 has failed: its process ends."
    assert [record.getMessage() for record in caplog.records] == [text]


def test_a_run_that_ends_its_processes_is_not_continued_for_ever(moved_clock: Clock) -> None:
    held = started(on_lost="continue")
    for _ in range(rows.MAX_ATTEMPTS):
        moved_clock.move(LEASE + 1)
        assert claimed(held.run.pk, "other") is not None
    moved_clock.move(LEASE + 1)
    assert claimed(held.run.pk, "other") is None
    assert Run.objects.get().error == rows.TOO_OFTEN


def test_a_run_that_goes_on_may_be_continued_often(moved_clock: Clock) -> None:
    held = started(on_lost="continue")
    for number in range(2 * rows.MAX_ATTEMPTS):
        write(held, "a", seq=number)
        moved_clock.move(LEASE + 1)
        taken = claimed(held.run.pk, "other")
        assert taken is not None
        held = taken


def test_a_lost_run_that_nobody_continues_ends(moved_clock: Clock) -> None:
    held = started(on_lost="continue")
    moved_clock.move(LEASE + rows.QUEUE_SECONDS + 1)
    assert rows.close_lost(held.run.pk, USING)
    assert Run.objects.get().state == "failed"


def test_a_renewed_lease_holds_and_tells_of_a_stop(moved_clock: Clock) -> None:
    held = started()
    moved_clock.move(LEASE - 1)
    assert leases.renew("gone", [held.run.pk], USING) == {held.run.pk: leases.Notice(held.run.epoch, False)}
    moved_clock.move(LEASE - 1)
    assert not rows.close_lost(held.run.pk, USING)
    assert held.run.stop()
    assert leases.look("gone", USING)[held.run.pk].stop_requested
    assert leases.look("other", USING) == {}


def test_a_run_that_its_holder_does_not_write_gets_no_more_time(moved_clock: Clock) -> None:
    """Its task may have failed, or its start may have been lost, while the process writes other answers."""
    written, lost = started("chats/1"), started("chats/2")
    moved_clock.move(LEASE - 1)
    assert leases.renew("gone", [written.run.pk], USING).keys() == {written.run.pk, lost.run.pk}
    moved_clock.move(2)
    assert not rows.close_lost(written.run.pk, USING)
    assert rows.close_lost(lost.run.pk, USING)


def test_a_run_that_waits_is_taken_once_or_ends(moved_clock: Clock) -> None:
    waiting, _ = rows.start(rows.StartRequest("chats/1", source=SOURCE), USING)
    (waiting_run,) = leases.find_waiting(USING, queued=True).waiting
    assert waiting_run.id == waiting.pk
    assert leases.find_waiting(USING, queued=False).waiting == []
    assert rows.claim(waiting.pk, "worker", USING) is not None
    assert rows.claim(waiting.pk, "other", USING) is None
    late, _ = rows.start(rows.StartRequest("chats/2", source=SOURCE), USING)
    leases.begin(USING)
    moved_clock.move(rows.QUEUE_SECONDS + 1)
    assert rows.close_lost(late.pk, USING)
    assert stored("chats/2")[1:] == [Failed(str(late.pk), rows.NOT_TAKEN)]


def test_a_run_that_is_stopped_before_it_is_taken_ends(moved_clock: Clock) -> None:
    waiting, _ = rows.start(rows.StartRequest("chats/1", source=SOURCE), USING)
    assert waiting.stop()
    (waiting_run,) = leases.find_waiting(USING, queued=False).waiting
    assert waiting_run.is_stopped
    assert rows.claim(waiting.pk, "worker", USING) is None
    assert rows.close_lost(waiting.pk, USING)
    assert stored()[1:] == [Stopped(str(waiting.pk))]


def test_the_next_answer_closes_a_lost_one(moved_clock: Clock) -> None:
    held = started()
    with pytest.raises(AnswerRunning):
        rows.start(rows.StartRequest("chats/1", if_active="refuse"), USING)
    moved_clock.move(LEASE + 1)
    run, _ = rows.start(rows.StartRequest("chats/1", if_active="refuse"), USING)
    assert not run.joined
    assert stored()[1] == Failed(str(held.run.pk), rows.LOST)


def test_a_lost_task_is_queued_again(moved_clock: Clock) -> None:
    held = started(on_lost="continue")
    assert not rows.queue_again(held.run.pk, USING)
    moved_clock.move(LEASE + 1)
    assert rows.queue_again(held.run.pk, USING)
    assert not rows.queue_again(held.run.pk, USING)
    assert claimed(held.run.pk, "task") is not None


def test_a_task_that_ends_its_processes_is_not_queued_for_ever(moved_clock: Clock) -> None:
    held = started(on_lost="continue")
    for _ in range(rows.MAX_ATTEMPTS):
        moved_clock.move(LEASE + 1)
        assert rows.queue_again(held.run.pk, USING)
        assert claimed(held.run.pk, "task") is not None
    moved_clock.move(LEASE + 1)
    assert rows.queue_again(held.run.pk, USING)
    assert claimed(held.run.pk, "task") is None
    assert Run.objects.get().error == rows.TOO_OFTEN


@pytest.mark.usefixtures("engines")
def test_an_answer_whose_beginning_was_trimmed_is_not_written_twice(caplog: pytest.LogCaptureFixture) -> None:
    """Its source cannot be told what is written: the retention of the stream, or a command, has dropped it."""
    held = started(on_lost="continue")
    write(held, "a", "b")
    held.run.chat.stream.trim("now")
    leases.give_up("gone", USING)
    service = AnswerService(USING)
    assert background.run(service.take(held.run.pk))
    service.stop()
    assert stored() == [Failed(str(held.run.pk), GENERIC_ERROR)]
    assert "has written 2 events" in caplog.text


def test_a_process_that_ends_gives_its_runs_up(moved_clock: Clock) -> None:
    held = started()
    leases.give_up("gone", USING)
    assert rows.close_lost(held.run.pk, USING)


def test_a_closed_chat_ends_its_run() -> None:
    held = started()
    held.run.chat.stream.close()
    assert rows.end(held.run.pk, held.run.epoch, Finish(str(held.run.pk)), USING)
    assert Run.objects.get().state == "done"
    assert len(stored()) == 1


def test_a_deleted_chat_takes_its_runs_along() -> None:
    held = started()
    Stream.objects.get(path="chats/1").delete()
    assert not Run.objects.exists()
    assert not Chat.objects.exists()
    assert not rows.end(held.run.pk, held.run.epoch, Finish(), USING)
    assert not rows.close_lost(held.run.pk, USING)
    assert claimed(held.run.pk, "other") is None


def test_an_expired_chat_begins_anew(moved_clock: Clock) -> None:
    Stream.objects.create(path="chats/1", content_type="application/json", ttl=60)
    held = started()
    assert rows.end(held.run.pk, held.run.epoch, Finish(str(held.run.pk)), USING)
    moved_clock.move(120)
    assert Chat.at("chats/1") is None
    again = started()
    assert again.run.chat_id != held.run.chat_id
    assert stored() == [Start(str(again.run.pk), again.run.message_id)]


def test_turns_and_the_start_of_the_answer_are_one_transaction() -> None:
    turns = [Message("u1", "user", [TextPart("a")])]
    with transaction.atomic():
        started(turns=turns)
        transaction.set_rollback(True)
    assert not Stream.objects.exists()
    held = started(turns=turns)
    (message, start) = stored()
    assert message == turns[0]
    (value,) = Stream.objects.get().read(held.run.start_offset)
    assert decode(value) == start
    assert held.run.turn_id == "u1"


@pytest.mark.parametrize("end", [Failed, Stopped])
def test_a_message_whose_answer_has_failed_may_be_sent_again(end: type[Failed | Stopped]) -> None:
    request = rows.StartRequest(
        "chats/1", turns=[Message("u1", "user", [TextPart("a")])], holder="gone", source=SOURCE, once=True
    )
    first, _ = rows.start(request, USING)
    assert rows.start(request, USING)[0].joined
    assert rows.end(first.pk, first.epoch, end(str(first.pk)), USING)
    second, _ = rows.start(request, USING)
    assert not second.joined
    assert rows.end(second.pk, second.epoch, Finish(str(second.pk)), USING)
    assert rows.start(request, USING)[0].pk == second.pk
    assert [message.id for message in second.chat.messages()] == ["u1", second.message_id]


def test_a_late_copy_of_a_request_takes_no_later_messages_back() -> None:
    first, second = [
        rows.StartRequest("chats/1", turns=[Message(id, "user", [])], holder="gone", source=SOURCE, once=True)
        for id in ("u1", "u2")
    ]
    failed, _ = rows.start(first, USING)
    assert rows.end(failed.pk, failed.epoch, Failed(str(failed.pk)), USING)
    run, _ = rows.start(second, USING)
    assert rows.end(run.pk, run.epoch, Finish(str(run.pk)), USING)
    assert rows.start(first, USING)[0].pk == failed.pk
    assert len(run.chat.messages()) == 4


def test_without_a_message_no_earlier_answer_counts() -> None:
    first = started(once=True)
    assert rows.end(first.run.pk, first.run.epoch, Finish(str(first.run.pk)), USING)
    assert started(once=True).run.pk != first.run.pk


def test_a_branch_is_a_stream_and_a_chat_or_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = started().run.chat

    def fail(*args: Any, **options: Any) -> None:
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(Chat, "save", fail)
    with pytest.raises(OperationalError):
        chat.branch("chats/2", before=chat.messages()[0].id)
    assert not Stream.objects.filter(path="chats/2").exists()


@pytest.fixture
def short_lease() -> Iterator[None]:
    with override_settings(DURABLE_STREAMS={"AI_LEASE": 1.0, "POLL_INTERVAL": 0.05}):
        yield


@pytest.mark.usefixtures("engines", "short_lease")
async def test_processes_side_by_side_continue_a_run_once() -> None:
    """Each round, the process that writes vanishes without a trace, at a random moment."""

    def start() -> Run:
        return start_answer_sync(
            "chats/1", Answer(SOURCE, {"count": 40, "seconds": 0.01}, on_lost="continue", message_id="m")
        )

    services = [AnswerService(USING) for _ in range(3)]
    run = await sync_to_async(start)()
    for service in services:
        service.watch()
    for _ in range(4):
        await asyncio.sleep(random.random() * 0.2)
        background.loop().call_soon_threadsafe(_lose_all, services)
    try:
        await asyncio.wait_for(run.await_end(), 20)
    finally:
        for service in services:
            await asyncio.to_thread(service.stop)
    assert run.state == "done"
    values = await sync_to_async(lambda: stored()[1:])()
    assert values == [*events(40), Finish(str(run.pk))]


@pytest.mark.usefixtures("engines", "short_lease")
async def test_a_run_that_cannot_be_closed_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its chat is locked for a long time, or its end fails each time. The oldest runs come first at each look."""
    close_lost = rows.close_lost

    def close_others(run_id: uuid.UUID, using: str) -> bool:
        if run_id == stuck.run.pk:
            raise ServiceUnavailable("Another transaction holds a lock.")
        return close_lost(run_id, using)

    monkeypatch.setattr(rows, "close_lost", close_others)
    monkeypatch.setattr(leases, "PORTION", 3)
    stuck, *others = [await sync_to_async(started)(f"chats/{number}") for number in range(8)]
    await sync_to_async(leases.give_up)("gone", USING)
    service = AnswerService(USING)
    service.watch()
    try:
        for held in others:
            await asyncio.wait_for(held.run.await_end(), 5)
    finally:
        await asyncio.to_thread(service.stop)
    assert {held.run.state for held in others} == {"failed"}


@pytest.mark.parametrize("holder", ["gone", ""])
def test_a_lease_counts_from_when_others_see_the_run(holder: str, moved_clock: Clock) -> None:
    """The transaction that begins it may last for longer than its lease, or than a queued run may wait."""
    with transaction.atomic():
        run, _ = rows.start(rows.StartRequest("chats/1", holder=holder, source=SOURCE), USING)
        moved_clock.move(rows.QUEUE_SECONDS + LEASE)
    assert not rows.close_lost(run.pk, USING)
    with pytest.raises(AnswerRunning):
        rows.start(rows.StartRequest("chats/1", if_active="refuse"), USING)
    seen = leases.find_waiting(USING, queued=False)
    assert seen.waiting == []
    assert seen.next_end == (LEASE / 2 if holder else rows.QUEUE_SECONDS)
    moved_clock.move(seen.next_end - 1)
    leases.begin(USING)  # it began before
    assert not rows.close_lost(run.pk, USING)
    moved_clock.move(1)
    assert rows.close_lost(run.pk, USING)


@pytest.mark.parametrize("on_lost", ["fail", "continue"])
def test_the_lease_of_a_claim_counts_from_when_others_see_it(on_lost: str, moved_clock: Clock) -> None:
    """Its commit may wait for a disk for longer than the lease."""
    run, _ = rows.start(rows.StartRequest("chats/1", source=SOURCE, on_lost=on_lost), USING)
    assert rows.claim(run.pk, "worker", USING) is not None
    moved_clock.move(3 * LEASE)
    assert not rows.close_lost(run.pk, USING)
    assert rows.claim(run.pk, "other", USING) is None
    assert not rows.queue_again(run.pk, USING)
    leases.begin(USING)
    moved_clock.move(LEASE)
    if on_lost == "fail":
        assert rows.close_lost(run.pk, USING)
    else:
        assert rows.queue_again(run.pk, USING)
        moved_clock.move(2 * rows.QUEUE_SECONDS)
        assert not rows.close_lost(run.pk, USING)


@pytest.mark.usefixtures("engines", "short_lease")
async def test_an_answer_that_began_in_a_long_transaction_is_not_lost(moved_clock: Clock) -> None:
    """Its lease would have ended when the transaction commits and the answer begins, and others look all the time."""
    services = [AnswerService(USING) for _ in range(2)]
    for service in services:
        service.watch()
    service = services[0]

    def start() -> rows.Held:
        with transaction.atomic():
            run, taken_over = rows.start(rows.StartRequest("chats/1", holder=service.holder, **script), USING)
            assert taken_over is not None
            moved_clock.move(3 * LEASE)
        return rows.Held(run, taken_over)

    script: dict[str, Any] = {"source": SOURCE, "arguments": {"count": 40, "seconds": 0.03}}
    held = await sync_to_async(start)()
    service.launch(held, None)
    try:
        await asyncio.wait_for(held.run.await_end(), 20)
    finally:
        for service in services:
            await asyncio.to_thread(service.stop)
    assert held.run.state == "done"


def _lose_all(services: list[AnswerService]) -> None:
    """Let all answers of these services and of the process's own vanish, as with their processes."""
    from django_durable_streams.contrib.ai import service as module

    for service in [*services, *module._services.all()]:
        for task in list(service._tasks):
            task.cancel()


def test_the_news_of_a_run_wakes_this_process() -> None:
    woken: list[str] = []
    wakeups.set_local_runner(USING, lambda: woken.append("local"))
    try:
        with transaction.atomic():
            wakeups.tell_runners(USING)
            assert not woken
        assert woken == ["local"]
    finally:
        wakeups.set_local_runner(USING, None)


def test_what_does_not_exist_is_not_taken() -> None:
    assert rows.claim(uuid.uuid4(), "other", USING) is None


@pytest.mark.usefixtures("engines")
async def test_a_worker_takes_as_many_answers_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait in the queue, and it takes each as soon as another one has ended."""
    running, most = 0, 0

    class Counted(RunningAnswer):
        async def write(self) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await super().write()
            running -= 1

    monkeypatch.setattr("django_durable_streams.contrib.ai.service.RunningAnswer", Counted)
    with override_settings(DURABLE_STREAMS={"AI_RUNS_IN": "worker", "AI_MAX_RUNS": 2, "POLL_INTERVAL": 3600.0}):
        answer = Answer(SOURCE, {"count": 3, "seconds": 0.01})
        runs = [await sync_to_async(start_answer_sync)(f"chats/{number}", answer) for number in range(6)]
        service = AnswerService(USING)
        service.watch(takes_queue=True)
        try:
            for run in runs:
                assert (await run.await_end()).state == "done"
        finally:
            await asyncio.to_thread(service.stop)
    assert most == 2


def test_a_full_worker_closes_lost_answers_behind_a_long_queue(moved_clock: Clock) -> None:
    for number in range(leases.PORTION):
        rows.start(rows.StartRequest(f"queued/{number}", source=SOURCE), USING)
    held = started()
    moved_clock.move(LEASE + 1)
    assert [waiting.id for waiting in leases.find_waiting(USING, queued=False).waiting] == [held.run.pk]


def test_a_source_that_blocks_the_background_loop_does_not_keep_the_process_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answer_service, "HANDOVER_SECONDS", 0.01)
    monkeypatch.setattr(answer_service, "BLOCKED_SECONDS", 0.01)
    goes_on, blocked, stopped = threading.Event(), threading.Event(), threading.Event()
    answers = AnswerService(USING)

    def block() -> None:
        blocked.set()
        goes_on.wait(60)

    def stop() -> None:
        answers.stop()
        stopped.set()

    background.loop().call_soon_threadsafe(block)
    assert blocked.wait(30)
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        assert stopped.wait(20)
        assert "not handed over in time" in caplog.text
    finally:
        goes_on.set()
        thread.join()
