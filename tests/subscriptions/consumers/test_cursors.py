"""Leases, fencing and failures of consumers."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError

from django_durable_streams.consumers import Batch
from django_durable_streams.models import Chunk, StagedChunk, Stream, Subscription, SubscriptionLink
from django_durable_streams.subscriptions.consumers import cursors
from django_durable_streams.subscriptions.consumers.cursors import Claim
from django_durable_streams.subscriptions.consumers.runner import Report
from django_durable_streams.subscriptions.pending import look_at_unseen
from tests.subscriptions.consumers.steps import json_stream, letters, register, run, runner, subscribed, take
from tests.subscriptions.steps import USING, Clock

pytestmark = pytest.mark.django_db


def test_a_worker_that_has_lost_its_claim_commits_nothing() -> None:
    reports: list[Report] = []

    def handle(batch: Batch) -> None:
        get_user_model().objects.create(username="ann")

    @contextmanager
    def steal(held: Claim) -> Iterator[None]:
        assert held.rows(USING).update(holder="another")
        yield

    json_stream("s/1", 1)
    worker = runner(register(handle), hold=steal, report=reports.append)
    assert worker.step()
    assert not get_user_model().objects.exists()
    link = SubscriptionLink.objects.get()
    assert (link.acked_position, link.holder, link.failures) == (None, "another", 0)
    assert reports == []


def test_a_stream_is_taken_by_one_worker_until_its_lease_ends(now: Clock) -> None:
    handled: list[Any] = []
    one = register(lambda batch: handled.extend(batch.messages))
    json_stream("s/1", 1)
    vanished = take(one)
    worker = runner(one)
    now.move(29)
    assert not worker.step()
    assert cursors.seconds_until_due(worker.consumers.keys(), USING) == pytest.approx(1)
    now.move(1)
    assert worker.step()
    assert handled == [1]
    with pytest.raises(cursors.ClaimLost):
        cursors.advance(vanished, 2, USING)
    assert not cursors.renew(vanished, USING)


def test_a_lease_that_is_renewed_does_not_end(now: Clock) -> None:
    one = register(lambda batch: None)
    json_stream("s/1", 1)
    held = take(one)
    now.move(29)
    assert cursors.renew(held, USING)
    now.move(29)
    assert not runner(one).step()


def test_two_workers_that_saw_the_same_stream_do_not_both_take_it() -> None:
    one = register(lambda batch: None)
    json_stream("s/1", 1)
    subscription_id = subscribed(one)
    look_at_unseen(USING)
    (link,) = cursors.claimable(subscription_id, USING, 0, 10)
    assert cursors.claim(link, 30, USING) is not None
    assert cursors.claim(link, 30, USING) is None


def test_a_stale_view_of_a_stream_takes_nothing() -> None:
    one = register(lambda batch: None)
    json_stream("s/1", 1)
    subscription_id = subscribed(one)
    look_at_unseen(USING)
    (link,) = cursors.claimable(subscription_id, USING, 0, 10)
    worker = runner(one)
    assert worker.step()
    json_stream("s/2", 1)
    assert cursors.claim(link, 30, USING) is None


def test_a_message_that_ends_its_worker_again_and_again_is_parked(now: Clock) -> None:
    handled: list[Any] = []
    one = register(lambda batch: handled.extend(batch.messages), max_attempts=2)
    json_stream("s/1", "deadly", "good")
    for _ in range(4):  # two of them try the message alone
        take(one)
        now.move(31)
    run(one)
    (letter,) = Stream.objects.get(path="dead-letters/c").read()
    assert letter["value"] == "deadly"
    assert letter["error"]["type"].endswith("WorkerEnded")
    assert handled == ["good"]


def test_attempts_follow_after_growing_times(now: Clock) -> None:
    attempts: list[float] = []
    start = now.moment

    def fail(batch: Batch) -> None:
        attempts.append((now.moment - start).total_seconds())
        raise RuntimeError("on purpose")

    json_stream("s/1", 1)
    worker = runner(register(fail, max_attempts=4))
    while len(attempts) < 4:
        if not worker.step():
            due_in = cursors.seconds_until_due(worker.consumers.keys(), USING)
            assert due_in is not None
            now.move(due_in)
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert 0.8 <= pauses[0] <= 1.2
    assert 1.6 <= pauses[1] <= 2.4
    assert 3.2 <= pauses[2] <= 4.8
    assert letters() == [1]


def test_a_locked_database_is_not_the_fault_of_a_message(now: Clock) -> None:
    attempts = 0

    def fail(batch: Batch) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 10:
            raise OperationalError("database is locked")

    json_stream("s/1", 1)
    worker = runner(register(fail, max_attempts=2))
    while attempts < 10:
        worker.step()
        now.move(1)
    assert not Stream.objects.filter(path="dead-letters/c").exists()
    assert SubscriptionLink.objects.get().failures == 0


def test_an_append_during_the_last_batch_leaves_the_stream_pending() -> None:
    handled: list[Any] = []
    first = json_stream("s/1", 1)

    def handle(batch: Batch) -> None:
        handled.extend(batch.messages)
        if len(handled) == 1:
            first.append(2)

    worker = runner(register(handle))
    while worker.step():
        pass
    assert handled == [1, 2]


def test_messages_stay_in_place_while_the_dead_letter_stream_cannot_be_used(now: Clock) -> None:
    def fail(batch: Batch) -> None:
        raise RuntimeError("on purpose")

    json_stream("s/1", 1)
    closed = Stream.objects.create(path="dead-letters/c", content_type="application/json", closed=True)
    worker = runner(register(fail, max_attempts=1))
    assert worker.step()
    link = SubscriptionLink.objects.get()
    assert (link.acked_position, link.is_pending, link.holder) == (None, True, "")
    assert "closed" in link.last_error
    closed.delete()
    now.move(61)
    assert worker.step()
    assert letters() == [1]


def test_a_worker_that_ends_while_messages_are_tried_one_by_one_is_followed_by_one_that_goes_on(now: Clock) -> None:
    handled: list[Any] = []
    ends = True

    def handle(batch: Batch) -> None:
        nonlocal ends
        if "bad" in batch.messages:
            raise RuntimeError
        if ends and batch.messages == ["b"]:
            ends = False
            raise KeyboardInterrupt  # as if the process ended
        handled.extend(batch.messages)

    json_stream("s/1", "a", "b", "bad", "c")
    one = register(handle, max_attempts=1)
    with pytest.raises(KeyboardInterrupt):
        run(one)
    assert handled == ["a"]
    now.move(31)
    run(one)
    assert (letters(), handled) == (["bad"], ["a", "b", "c"])


def test_a_paused_consumer_takes_nothing() -> None:
    one = register(lambda batch: None)
    json_stream("s/1", 1)
    worker = runner(one)
    Subscription.objects.unguarded().update(is_paused=True)
    assert not worker.step()


def test_a_cancelled_task_and_an_exit_are_failures_of_the_handler(now: Clock) -> None:
    import asyncio

    errors: list[BaseException] = [asyncio.CancelledError(), SystemExit(1)]

    async def fail(batch: Batch) -> None:
        if errors:
            raise errors.pop()

    json_stream("s/1", 1)
    worker = runner(register(fail))
    for _ in range(3):
        worker.step()
        now.move(5)
    link = SubscriptionLink.objects.get()
    assert (link.failures, link.is_pending) == (0, False)


def test_a_stream_that_is_replaced_while_it_is_handled_is_not_acknowledged() -> None:
    handled: list[Any] = []
    claims: list[Claim] = []

    @contextmanager
    def replace(held: Claim) -> Iterator[None]:
        claims.append(held)
        if len(claims) == 1:
            Stream.objects.all().delete()
            json_stream("s/1", 2)
        yield

    json_stream("s/1", 1)
    worker = runner(register(lambda batch: handled.extend(batch.messages)), hold=replace)
    while worker.step():
        pass
    assert handled[-1] == 2
    assert SubscriptionLink.objects.get().acked_position == Stream.objects.get(path="s/1").tail_position


def test_one_stream_that_fails_does_not_delay_the_others() -> None:
    handled: list[str] = []

    def handle(batch: Batch) -> None:
        if batch.stream == "s/1":
            raise RuntimeError
        handled.append(batch.stream)

    for number in range(1, 6):
        json_stream(f"s/{number}", 1)
    worker = runner(register(handle))
    while worker.step():
        pass
    assert sorted(handled) == ["s/2", "s/3", "s/4", "s/5"]


def test_a_stream_with_damaged_data_does_not_delay_the_others() -> None:
    handled: list[str] = []
    for number in (1, 2):
        json_stream(f"s/{number}", 1)
    Chunk.objects.unguarded().filter(stream__path="s/1").delete()
    StagedChunk.objects.unguarded().filter(stream__path="s/1").delete()
    worker = runner(register(lambda batch: handled.append(batch.stream)))
    while worker.step():
        pass
    assert handled == ["s/2"]
    assert "damaged" in SubscriptionLink.objects.get(path="s/1").last_error


def test_a_message_that_failed_more_often_than_it_may_now_is_tried_before_it_is_parked() -> None:
    handled: list[Any] = []
    one = register(lambda batch: handled.extend(batch.messages), max_attempts=2)
    json_stream("s/1", 1)
    worker = runner(one)
    SubscriptionLink.objects.unguarded().update(failures=4)  # with code that allowed 5 attempts
    assert worker.step()
    assert handled == [1]
    assert not Stream.objects.filter(path="dead-letters/c").exists()


def test_a_report_that_fails_gives_the_stream_back() -> None:
    handled: list[Any] = []

    def fail(report: Report) -> None:
        if len(handled) == 1:
            raise BrokenPipeError

    json_stream("s/1", 1, 2)
    worker = runner(register(lambda batch: handled.extend(batch.messages), batch_size=1), report=fail)
    with pytest.raises(BrokenPipeError):
        worker.step()
    while worker.step():
        pass
    assert handled == [1, 2]
    link = SubscriptionLink.objects.get()
    assert (link.failures, link.holder) == (0, "")
