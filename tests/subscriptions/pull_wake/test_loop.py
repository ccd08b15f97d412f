"""The loop of a worker and its wakes, with a server that does what a test says."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from django_durable_streams.protocol.errors import PermissionDenied, ServiceUnavailable
from django_durable_streams.protocol.subscriptions import (
    SubscriptionError,
    already_claimed,
    fenced,
    invalid_offset,
    invalid_request,
    subscription_not_found,
    token_expired,
    token_invalid,
)
from django_durable_streams.subscriptions.pull_wake import loop as loop_module
from django_durable_streams.subscriptions.pull_wake.loop import consume
from django_durable_streams.subscriptions.pull_wake.wake import Wake
from tests.subscriptions.pull_wake.fakes import LEASE, FakeServer, until

POLL = 30.0
"""Seconds of the poll in tests that must not need it."""


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the time between attempts be short, and return the numbers of failures that asked for it."""
    asked: list[int] = []

    def backoff(failures: int) -> float:
        asked.append(failures)
        return 0.01

    monkeypatch.setattr(loop_module, "backoff", backoff)
    return asked


def start(server: FakeServer, timeout: float | None = 0.05, poll: float = POLL) -> AsyncGenerator[Wake, None]:
    return consume(server, "w", poll, timeout)


async def values(wake: Wake) -> list[Any]:
    return [message.value async for message in wake.messages()]


async def test_what_was_handed_over_is_acknowledged_when_the_body_comes_back() -> None:
    server = FakeServer(["a", "b"], ["c"])
    handed_over = [await values(wake) async for wake in start(server)]
    assert handed_over == [["a", "b"], ["c"]]
    assert server.named("ack") == [({"s": "2"}, True), ({"s": "1"}, True)]
    assert server.named("release") == []
    assert server.named("claim")[0] == ("w",)
    assert server.has_closed


async def test_only_what_was_handed_over_is_acknowledged() -> None:
    server = FakeServer(["a", "b", "c"])
    async for wake in start(server):
        async for message in wake.messages():
            if message.value == "b":
                break
    assert server.named("ack") == [({"s": "2"}, True)]


async def test_messages_go_on_where_they_were_left() -> None:
    server = FakeServer(["a", "b", "c"])
    async for wake in start(server):
        async with aclosing(wake.messages()) as messages:
            assert (await anext(messages)).value == "a"
        assert await values(wake) == ["b", "c"]
        assert [message async for message in wake.messages("another")] == []
    assert server.named("ack") == [({"s": "3"}, True)]


async def test_a_body_that_raises_gives_the_lease_back_and_acknowledges_nothing() -> None:
    server = FakeServer(["a"])

    async def work() -> None:
        async with aclosing(start(server)) as wakes:
            async for wake in wakes:
                await values(wake)
                raise KeyError("wrong")

    with pytest.raises(KeyError, match="wrong"):
        await work()
    assert server.named("ack") == []
    assert len(server.named("release")) == 1
    assert server.has_closed


async def test_a_loop_that_is_left_without_a_context_gives_the_lease_back_too() -> None:
    server = FakeServer(["a"])
    async for wake in start(server):
        await values(wake)
        break
    for _ in range(100):
        await asyncio.sleep(0)
    assert (server.named("ack"), len(server.named("release")), server.has_closed) == ([], 1, True)


async def test_an_explicit_acknowledgement_counts_although_the_body_raises() -> None:
    server = FakeServer(["a", "b"])

    async def work() -> None:
        async with aclosing(start(server)) as wakes:
            async for wake in wakes:
                async for message in wake.messages():
                    if message.value == "b":
                        raise KeyError
                    assert await wake.ack()

    with pytest.raises(KeyError):
        await work()
    assert server.named("ack") == [({"s": "1"}, False)]


async def test_a_wake_may_be_finished_by_its_body() -> None:
    server = FakeServer(["a"])
    async with aclosing(start(server)) as wakes:
        async for wake in wakes:
            await values(wake)
            assert await wake.ack(done=True)
            assert wake.is_over
            assert not await wake.ack()  # it sends nothing more
            await wake.release()
            break
    assert server.named("ack") == [({"s": "1"}, True)]
    assert server.named("release") == []


async def test_offsets_may_be_named() -> None:
    server = FakeServer(["a", "b"])
    async for wake in start(server):
        assert await wake.ack({"s": "2"})
    assert server.named("ack") == [({"s": "2"}, False), ({}, True)]


async def test_the_lease_is_extended_while_the_body_runs() -> None:
    server = FakeServer(["a"])
    async for _ in start(server):
        await asyncio.sleep(LEASE * 2)
    heartbeats = server.named("ack")[:-1]
    assert 4 <= len(heartbeats) <= 7
    assert set(map(repr, heartbeats)) == {repr(({}, False))}
    count = len(server.calls)
    await asyncio.sleep(LEASE)
    assert len(server.calls) == count  # none after the end


@pytest.mark.parametrize("error", [fenced(), token_expired(), token_invalid()])
async def test_a_wake_that_was_lost_ends_and_the_next_one_follows(error: Exception) -> None:
    server = FakeServer(["a", "b"], ["c"])
    server.errors["ack"] = [error]
    handed_over = []
    async for wake in start(server):
        async for message in wake.messages():
            handed_over.append(message.value)
            if message.value == "a":
                assert not await wake.ack()
                assert wake.is_over
    assert handed_over == ["a", "c"]
    assert server.named("ack")[1:] == [({"s": "1"}, True)]
    assert server.named("release") == []


async def test_a_heartbeat_that_is_fenced_ends_the_messages() -> None:
    server = FakeServer(["a", "b"])
    server.errors["ack"] = [fenced()]
    async for wake in start(server):
        async for message in wake.messages():
            assert message.value == "a"
            await until(lambda: wake.is_over)  # noqa: B023 - it is awaited here
    assert server.named("ack") == [({}, False)]


async def test_a_server_that_does_not_answer_is_asked_again_until_the_lease_ends() -> None:
    server = FakeServer(["a"], ["b"])
    server.errors["ack"] = [ServiceUnavailable(), ServiceUnavailable()]
    async for wake in start(server):
        await values(wake)
    assert server.named("ack") == [({"s": "1"}, True)] * 3 + [({"s": "1"}, True)]


@pytest.mark.parametrize("error", [ValueError("no token"), RuntimeError(), KeyError("x"), PermissionDenied()])
async def test_a_heartbeat_that_fails_ends_the_wake(error: Exception) -> None:
    server = FakeServer(["a", "b"])
    server.errors["ack"] = [error]
    async with asyncio.timeout(5):
        async for wake in start(server):
            async for message in wake.messages():
                assert message.value == "a"
                await until(lambda: wake.is_over)  # noqa: B023 - it is awaited here
    assert server.named("ack") == [({}, False)]


async def test_a_body_that_blocks_its_loop_learns_that_the_lease_is_over() -> None:
    server = FakeServer(["a", "b"])
    async for wake in start(server):
        async for message in wake.messages():
            assert message.value == "a"
            assert not wake.is_over
            time.sleep(LEASE * 1.1)  # noqa: ASYNC251 - as a handler that was not written for an event loop
            assert wake.is_over
    assert server.named("ack") == []


@pytest.mark.parametrize("how", ["silent", "refuses"])
async def test_a_lease_that_could_not_be_extended_is_over(how: str) -> None:
    server = FakeServer(["a", "b"])
    if how == "silent":
        server.silent.add("ack")
    else:
        server.errors["ack"] = [ServiceUnavailable() for _ in range(1000)]
    began = time.monotonic()
    async for wake in start(server):
        async for message in wake.messages():
            assert message.value == "a"
            await until(lambda: wake.is_over)  # noqa: B023 - it is awaited here
    assert LEASE * 0.9 <= time.monotonic() - began <= LEASE * 4


async def test_a_stream_that_has_ended_keeps_no_other_from_its_acknowledgement() -> None:
    server = FakeServer(["a"])
    server.errors["ack"] = [invalid_offset("gone"), invalid_offset("gone")]
    async for wake in start(server):
        await values(wake)
    assert server.named("ack") == [({"s": "1"}, True), ({"s": "1"}, False), ({}, True)]


async def test_an_offset_that_the_caller_names_has_to_be_right() -> None:
    server = FakeServer(["a"])
    server.errors["ack"] = [invalid_offset("wrong")]

    async def work() -> None:
        async with aclosing(start(server)) as wakes:
            async for wake in wakes:
                await wake.ack({"s": "9"})

    with pytest.raises(SubscriptionError, match="wrong"):
        await work()
    assert len(server.named("release")) == 1


async def test_an_event_wakes_the_worker_at_once() -> None:
    server = FakeServer()
    async with aclosing(start(server, None)) as wakes:
        step = asyncio.ensure_future(anext(wakes))
        await until(lambda: server.named("claim"))
        await asyncio.sleep(0.02)
        assert len(server.named("claim")) == 1  # nothing is asked without an event
        server.wakes.append(["a"])
        server.events.set()
        assert await values(await asyncio.wait_for(step, 5)) == ["a"]


async def test_an_event_between_the_claim_and_the_wait_is_not_lost() -> None:
    server = FakeServer()

    def append_after_the_first_claim() -> None:
        if len(server.named("claim")) == 1:
            asyncio.get_running_loop().call_soon(server.wakes.append, ["a"])
            server.events.set()

    server.on_claim = append_after_the_first_claim
    async with aclosing(start(server, None)) as wakes:
        assert await values(await asyncio.wait_for(anext(wakes), 5)) == ["a"]


@pytest.mark.parametrize("error", [ServiceUnavailable(), PermissionDenied(), ValueError("a bug")])
async def test_without_the_wake_stream_the_subscription_is_polled(error: Exception) -> None:
    server = FakeServer()
    server.errors["wake_events"] = [error] * 1000
    async with aclosing(start(server, None, 0.02)) as wakes:
        step = asyncio.ensure_future(anext(wakes))
        await until(lambda: len(server.named("claim")) == 3)
        server.wakes.append(["a"])
        assert await values(await asyncio.wait_for(step, 5)) == ["a"]


async def test_a_worker_waits_while_another_one_has_the_lease() -> None:
    server = FakeServer(["a"])
    server.errors["claim"] = [already_claimed("other", 1)]
    async with aclosing(start(server, None)) as wakes:
        step = asyncio.ensure_future(anext(wakes))
        await asyncio.sleep(0.02)
        assert len(server.named("claim")) == 1
        server.events.set()
        assert await values(await asyncio.wait_for(step, 5)) == ["a"]


@pytest.mark.parametrize("where", ["wake_stream", "claim"])
async def test_a_server_that_is_away_is_waited_for(where: str, short_backoff: list[int]) -> None:
    server = FakeServer(["a"])
    server.errors[where] = [ServiceUnavailable() for _ in range(5)]
    assert [await values(wake) async for wake in start(server, 5.0)][:1] == [["a"]]
    assert short_backoff[:5] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("how", ["silent", "refuses"])
@pytest.mark.parametrize("where", ["wake_stream", "wake_events", "claim"])
@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_the_time_is_over_whatever_the_server_does(
    where: str, how: str, timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CLAIM_SECONDS", 0.1)
    monkeypatch.setattr(loop_module, "RELEASE_SECONDS", 0.1)
    server = FakeServer()
    if how == "silent":
        server.silent.add(where)
    else:
        server.errors[where] = [ServiceUnavailable() for _ in range(10_000)]
    async with asyncio.timeout(5):
        assert [wake async for wake in start(server, timeout)] == []
    assert server.has_closed


@pytest.mark.parametrize("where", ["wake_stream", "wake_events"])
async def test_who_does_not_wait_needs_no_wake_stream(where: str) -> None:
    server = FakeServer(["a"])
    server.silent.add(where)
    assert [await values(wake) async for wake in start(server, 0)] == [["a"]]
    assert server.has_closed


async def test_who_does_not_wait_learns_of_the_end_of_the_server_too() -> None:
    server = FakeServer(["a", "b"], ["c"])
    handed_over = []
    async for wake in start(server, 0):
        async for message in wake.messages():
            handed_over.append(message.value)
            await until(lambda: server.named("wake_events"))
            server.is_stopping = True
            server.events.set()
    assert handed_over == ["a"]


@pytest.mark.parametrize("where", ["wake_stream", "claim"])
@pytest.mark.parametrize("error", [subscription_not_found(), invalid_request("a webhook"), PermissionDenied()])
async def test_refusals_are_raised(where: str, error: Exception) -> None:
    server = FakeServer(["a"])
    server.errors[where] = [error]
    with pytest.raises(type(error)):
        await anext(start(server))
    assert server.has_closed


async def test_a_wake_without_progress_is_followed_by_a_pause(short_backoff: list[int]) -> None:
    server = FakeServer(["a"], ["a"], ["a"], ["b"], ["b"])
    count = 0
    async for wake in start(server):
        count += 1
        if count == 4:
            await values(wake)
    assert short_backoff == [1, 2, 3, 1]


async def test_a_worker_that_is_cancelled_in_its_body_gives_the_lease_back() -> None:
    server = FakeServer(["a"])
    at_work = asyncio.Event()

    async def work() -> None:
        async with aclosing(start(server, None)) as wakes:
            async for _ in wakes:
                at_work.set()
                await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (server.named("ack"), len(server.named("release")), server.has_closed) == ([], 1, True)


async def test_a_worker_that_is_cancelled_while_it_claims_gives_the_lease_back() -> None:
    server = FakeServer(["a"])
    claimed, may_answer = asyncio.Event(), asyncio.Event()
    claim = server.claim

    async def slow_claim(worker: str) -> Any:
        claimed.set()
        await may_answer.wait()
        return await claim(worker)

    server.claim = slow_claim  # type: ignore[method-assign]
    step = asyncio.ensure_future(anext(start(server, None)))
    await claimed.wait()
    step.cancel()
    await asyncio.sleep(0)
    may_answer.set()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert len(server.named("release")) == 1


async def test_a_worker_that_is_cancelled_while_it_waits_ends() -> None:
    server = FakeServer()
    before = asyncio.all_tasks()
    step = asyncio.ensure_future(anext(start(server, None)))
    await until(lambda: server.named("claim"))
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert server.has_closed
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("when", ["waiting", "paused"])
async def test_the_end_of_the_server_ends_the_worker(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "backoff", lambda failures: POLL)
    server = FakeServer(*([["a"]] if when == "paused" else []))

    async def work() -> int:
        return len([wake async for wake in start(server, None)])  # without progress

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.02)
    server.is_stopping = True
    server.events.set()
    assert await asyncio.wait_for(task, 5) == (1 if when == "paused" else 0)


async def test_the_end_of_the_server_ends_the_messages_behind_the_present_one() -> None:
    server = FakeServer(["a", "b"], ["c"])
    handed_over = []
    async for wake in start(server, None):
        async for message in wake.messages():
            handed_over.append(message.value)
            server.is_stopping = True
            server.events.set()
    assert handed_over == ["a"]
    assert server.named("ack") == [({"s": "1"}, True)]


async def test_a_stream_that_cannot_be_read_is_left_for_a_later_wake() -> None:
    server = FakeServer(["a"])
    server.errors["messages"] = [ServiceUnavailable("damaged")]
    async for wake in start(server):
        assert await values(wake) == []
    assert server.named("ack") == [({}, True)]
