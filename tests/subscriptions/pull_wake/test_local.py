"""Workers of this project's own subscriptions, on a real database."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import TestCase

from django_durable_streams import clock
from django_durable_streams.engine import engine_for
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.protocol.subscriptions import SubscriptionError
from django_durable_streams.pull_wake import PullSubscription, Wake, WakeMessage
from django_durable_streams.subscriptions import leases
from django_durable_streams.testing import StreamsMixin, stop_engines
from tests.overriding import override_streams
from tests.subscriptions.pull_wake.fakes import until

JSON = "application/json"
MAILER = PullSubscription("mailer")
SECONDS = 60


async def subscribe(**options: Any) -> None:
    assert await MAILER.aensure(**{"pattern": "orders/*", "wake_stream": "wake/mailer", **options})


async def order(number: int = 1, *values: Any, kind: str = JSON) -> Stream:
    stream = await Stream.objects.acreate(path=f"orders/{number}", content_type=kind)
    for value in values:
        await stream.aappend(value)
    return stream


async def acked(number: int = 1) -> str:
    link = await SubscriptionLink.objects.aget(path=f"orders/{number}")
    stream = await Stream.objects.aget(path=f"orders/{number}")
    position = link.acked_position
    return "-1" if position is None else await sync_to_async(stream.offset_at)(position)


async def handed_over(wakes: AsyncGenerator[Wake, None]) -> list[WakeMessage]:
    """The messages of the first wake, which is acknowledged."""
    async with aclosing(wakes) as claimed:
        async for wake in claimed:
            messages = [message async for message in wake.messages()]
            assert await wake.ack(done=True)
            return messages
    raise AssertionError("there was no wake")


async def everything(**options: Any) -> list[WakeMessage]:
    """The messages of all wakes until nothing is pending."""
    wakes = MAILER.aconsume("w", timeout=0, **options)
    return [message async for wake in wakes async for message in wake.messages()]


async def test_messages_are_handed_over_with_their_offsets_and_acknowledged(engines: None) -> None:
    await subscribe()
    first, second = await order(1, {"n": 1}, [2], None), await order(2, "a")
    messages = await everything()
    assert [(one.stream, one.value) for one in messages] == [
        ("orders/1", {"n": 1}),
        ("orders/1", [2]),
        ("orders/1", None),
        ("orders/2", "a"),
    ]
    offsets = [one.offset or "" for one in messages if one.stream == "orders/1"]
    assert offsets == sorted(set(offsets))
    for stream, number in ((first, 1), (second, 2)):
        await stream.arefresh_from_db()
        assert await acked(number) == stream.next_offset
    assert offsets[-1] == first.next_offset
    assert await everything() == []
    await first.aappend("next")
    assert [one.value for one in await everything()] == ["next"]


async def test_an_append_wakes_a_waiting_worker_long_before_the_poll(engines: None) -> None:
    await subscribe()
    stream = await order()
    waiting = asyncio.ensure_future(handed_over(MAILER.aconsume(poll_interval=600)))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    began = time.monotonic()
    await stream.aappend("x")
    assert [one.value for one in await asyncio.wait_for(waiting, SECONDS)] == ["x"]
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream"])
async def test_other_streams_than_json_have_a_message_for_each_append(kind: str, engines: None) -> None:
    await subscribe()
    await order(1, b"\xc3\xa4", b"b", kind=kind)
    expected: list[Any] = ["ä", "b"] if kind == "text/plain" else [b"\xc3\xa4", b"b"]
    assert [one.value for one in await everything()] == expected


async def test_a_character_is_handed_over_whole(engines: None) -> None:
    await subscribe()
    stream = await order(1, b"a\xc3", kind="text/plain")
    assert [one.value for one in await handed_over_until_pause()] == ["a"]
    await stream.aappend(b"\xa4b")
    assert [one.value for one in await everything()] == ["äb"]
    await stream.arefresh_from_db()
    assert await acked() == stream.next_offset


async def handed_over_until_pause() -> list[WakeMessage]:
    return await handed_over(MAILER.aconsume("w", timeout=0))


async def test_many_messages_and_streams_are_handed_over_once(engines: None) -> None:
    await subscribe()
    with override_streams(PAGE_BYTES=500):
        for number in range(5):
            stream = await Stream.objects.acreate(path=f"orders/{number}", content_type=JSON)
            await stream.aappend_many(range(300))
        messages = await everything()
    assert [(one.stream, one.value) for one in messages] == [
        (f"orders/{number}", value) for number in range(5) for value in range(300)
    ]


async def test_forks_have_the_messages_of_their_sources(engines: None) -> None:
    await subscribe(pattern="forks/*")
    stream = await order(1, 1, 2)
    await stream.afork("forks/1")
    fork = await Stream.objects.aget(path="forks/1")
    await fork.aappend(3)
    assert [one.value for one in await everything()] == [1, 2, 3]
    assert await everything() == []


async def test_a_body_that_raises_gets_the_same_messages_again(engines: None) -> None:
    await subscribe()
    await order(1, 1, 2, 3)

    async def fail() -> None:
        async with aclosing(MAILER.aconsume()) as wakes:
            async for wake in wakes:
                assert [message.value async for message in wake.messages()] == [1, 2, 3]
                raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            await fail()
        assert await acked() == "-1"
        assert (await Subscription.objects.aget()).holder == ""
    async with aclosing(MAILER.aconsume()) as wakes:
        async for wake in wakes:
            async for message in wake.messages():
                if message.value == 2:
                    assert await wake.ack({message.stream: message.offset or ""})
                    break
            break
    assert [one.value for one in await everything()] == [3]


async def test_another_worker_takes_over_from_one_that_has_vanished(engines: None) -> None:
    await subscribe(lease=1.0)
    await order(1, "x")
    await sync_to_async(leases.claim)("mailer", "vanished", "default")
    began = time.monotonic()
    messages = await asyncio.wait_for(handed_over(MAILER.aconsume(poll_interval=600)), SECONDS)
    assert [one.value for one in messages] == ["x"]
    assert 0.8 < time.monotonic() - began < 10


async def test_a_body_may_run_longer_than_its_lease(engines: None) -> None:
    await subscribe(lease=2.0)
    await order(1, "x")
    began, others = asyncio.Event(), []

    async def slow() -> None:
        async with aclosing(MAILER.aconsume("slow")) as wakes:
            async for wake in wakes:
                messages = [message.value async for message in wake.messages()]
                began.set()
                await asyncio.sleep(3.0)
                assert messages == ["x"]
                assert await wake.ack(done=True)
                return

    task = asyncio.ensure_future(slow())
    await began.wait()
    async for wake in MAILER.aconsume("other", poll_interval=0.1, timeout=2.7):
        others.append(wake)
    await task
    assert others == []
    assert await acked() != "-1"


async def test_a_worker_that_has_lost_its_lease_goes_on_with_the_next_wake(engines: None) -> None:
    await subscribe()
    await order(1, 1, 2)
    seen = []
    async with aclosing(MAILER.aconsume("slow", poll_interval=0.05)) as wakes:
        async for wake in wakes:
            async for message in wake.messages():
                seen.append((wake.generation, message.value))
                if len(seen) == 1:  # as if nothing had been heard of this worker for the time of its lease
                    past = clock.now() - timedelta(seconds=1)
                    await Subscription.objects.unguarded().aupdate(lease_expires_at=past)
                    other = await sync_to_async(leases.claim)("mailer", "other", "default")
                    assert not await wake.ack()
                    await Subscription.objects.unguarded().aupdate(lease_expires_at=past)
            if len(seen) > 1:
                break
    assert seen == [(1, 1), (3, 1), (3, 2)]
    assert other["generation"] == 2


async def test_without_a_wake_stream_or_events_the_poll_finds_the_work(engines: None) -> None:
    await subscribe()
    await (await Stream.objects.aget(path="wake/mailer")).adelete()
    stream = await order()
    waiting = asyncio.ensure_future(handed_over(MAILER.aconsume(poll_interval=0.1)))
    await asyncio.sleep(0.2)
    await stream.aappend("x")
    assert [one.value for one in await asyncio.wait_for(waiting, SECONDS)] == ["x"]


async def test_a_wake_stream_of_others_wakes_nobody(engines: None) -> None:
    await subscribe()
    await order()
    wake_stream = await Stream.objects.aget(path="wake/mailer")
    engine_for()  # it makes the delivery begin
    claims = 0
    original = leases.claim

    def counted(*args: Any) -> Any:
        nonlocal claims
        claims += 1
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "claim", counted)
        waiting = asyncio.ensure_future(anext(MAILER.aconsume(poll_interval=600)))
        await until(lambda: claims)
        await asyncio.sleep(0.2)
        before = claims
        for value in ({"subscription_id": "other"}, "other", 1, None, {"subscription_id": ["mailer"]}):
            await wake_stream.aappend(value)
        await asyncio.sleep(0.3)
        assert claims == before
        await wake_stream.aappend({"subscription_id": "mailer"})
        await until(lambda: claims > before)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("how", ["deleted", "again"])
async def test_a_stream_that_ends_after_the_claim_delays_no_other(how: str, engines: None) -> None:
    await subscribe()
    first, _ = await order(1, "a"), await order(2, "b")
    async with aclosing(MAILER.aconsume()) as wakes:
        async for wake in wakes:
            assert [one.path for one in wake.streams] == ["orders/1", "orders/2"]
            await first.adelete()
            if how == "again":
                await order(1, "new")
            values = [message.value async for message in wake.messages()]
            assert values == (["new", "b"] if how == "again" else ["b"])
            assert await wake.ack(done=True)
            break
    assert await everything() == []


async def test_a_stream_that_ends_after_it_was_read_delays_no_other(engines: None) -> None:
    await subscribe()
    first, second = await order(1, "a"), await order(2, "b")
    async with aclosing(MAILER.aconsume()) as wakes:
        async for wake in wakes:
            assert [message.value async for message in wake.messages()] == ["a", "b"]
            await first.adelete()
            assert await wake.ack(done=True)
            break
    await second.arefresh_from_db()
    assert await acked(2) == second.next_offset


@pytest.mark.parametrize("how", ["signal", "engines"])
async def test_the_end_of_a_server_ends_the_loop(how: str, engines: None) -> None:
    await subscribe()
    await order(1, 1, 2)
    seen: list[Any] = []
    at_work = asyncio.Event()

    async def work() -> None:
        async for wake in MAILER.aconsume(poll_interval=600):
            async for message in wake.messages():
                seen.append(message.value)
            at_work.set()

    task = asyncio.ensure_future(work())
    await at_work.wait()
    await asyncio.sleep(0.3)  # it waits in its watch
    if how == "signal":
        (engine,) = running_engines()
        engine.end_live_reads()
    else:
        await asyncio.to_thread(stop_engines)
    await asyncio.wait_for(task, SECONDS)
    assert seen == [1, 2]
    assert how == "signal" or running_engines() == []


async def test_a_subscription_is_confirmed_and_refused(engines: None) -> None:
    await subscribe()
    assert not await MAILER.aensure(pattern="orders/*", wake_stream="wake/mailer")
    with pytest.raises(SubscriptionError) as raised:
        await MAILER.aensure(pattern="other/*", wake_stream="wake/mailer")
    assert raised.value.error_code == "SUBSCRIPTION_ALREADY_EXISTS"
    for options in ({}, {"pattern": "a"}, {"pattern": "a", "wake_stream": "w", "lease": 0.5}):
        with pytest.raises(SubscriptionError):
            await PullSubscription("other").aensure(**options)
    assert (await Stream.objects.aget(path="wake/mailer")).content_type == JSON


async def test_a_wake_stream_may_have_another_content_type(engines: None) -> None:
    await Stream.objects.acreate(path="wake/mailer", content_type="text/plain")
    await subscribe()
    stream = await order()
    waiting = asyncio.ensure_future(handed_over(MAILER.aconsume(poll_interval=600)))
    await asyncio.sleep(0.3)
    await stream.aappend("x")
    assert [one.value for one in await asyncio.wait_for(waiting, SECONDS)] == ["x"]


async def test_what_there_is_not_is_refused(engines: None) -> None:
    with pytest.raises(SubscriptionError) as raised:
        await everything()
    assert raised.value.error_code == "SUBSCRIPTION_NOT_FOUND"
    with pytest.raises(SubscriptionError):
        PullSubscription("a/b")
    await subscribe()
    with pytest.raises(SubscriptionError):
        MAILER.aconsume("\n")


def test_synchronous_code_consumes_too(engines: None) -> None:
    assert MAILER.ensure(pattern="orders/*", wake_stream="wake/mailer", lease=2.0)
    stream = Stream.objects.create(path="orders/1", content_type=JSON)
    stream.append_many([1, 2, 3])

    def fail() -> None:
        for wake in MAILER.consume("w"):
            assert [message.value for message in wake.messages()] == [1, 2, 3]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    seen = []
    for wake in MAILER.consume("w", timeout=2):
        time.sleep(3.0)  # longer than the lease
        for message in wake.messages("orders/1"):
            seen.append(message.value)
            assert not wake.is_over
            if message.value == 2:
                assert wake.ack()
        assert (wake.lease, wake.streams[0].path, wake.id[:2]) == (2.0, "orders/1", "w_")
        if len(seen) == 3:
            stream.append(4)
    assert seen == [1, 2, 3, 4]
    for wake in MAILER.consume(timeout=0):
        wake.release()
        pytest.fail("nothing is pending")


def test_the_end_of_a_server_ends_a_synchronous_loop(engines: None) -> None:
    MAILER.ensure(pattern="orders/*", wake_stream="wake/mailer")
    ended = threading.Event()

    def work() -> None:
        for _ in MAILER.consume(poll_interval=600):
            pass
        ended.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    time.sleep(0.5)
    (engine,) = running_engines()
    assert not ended.is_set()
    engine.end_live_reads()
    assert ended.wait(SECONDS)
    thread.join(SECONDS)


class InATestCase(StreamsMixin, TestCase):
    async def test_messages_of_its_own_transaction_are_handed_over(self) -> None:
        await subscribe()
        await order(1, 1, 2)
        assert [one.value for one in await everything()] == [1, 2]
        assert await everything() == []


async def test_random_workers_handle_each_message_and_cursors_never_go_back(engines: None) -> None:
    """Workers fail, leave and are cancelled at random. Some vanish with their lease."""
    random = Random(7)
    await subscribe(lease=1.0)
    streams = [await order(number) for number in range(6)]
    handled: Counter[tuple[str, Any]] = Counter()
    at_work: set[int] = set()
    positions: dict[str, int] = {}
    is_calm = False

    async def work(name: str) -> None:
        async with aclosing(MAILER.aconsume(name, poll_interval=0.2)) as wakes:
            async for wake in wakes:
                at_work.add(wake.generation)
                assert len([one for one in at_work if one > wake.generation]) == 0
                if not is_calm and random.random() < 0.3:
                    raise KeyError
                async for message in wake.messages():
                    await asyncio.sleep(0)
                    handled[message.stream, message.value] += 1
                if not is_calm and random.random() < 0.2:
                    await wake.ack()
                    raise KeyError

    async def again(name: str) -> None:
        while True:
            try:
                await work(name)
            except KeyError:
                pass

    async def watch() -> None:
        while True:
            async for link in SubscriptionLink.objects.all():
                assert (link.acked_position or 0) >= positions.get(link.path, 0)
                positions[link.path] = link.acked_position or 0
            await asyncio.sleep(0.02)

    watching = asyncio.ensure_future(watch())
    workers = {name: asyncio.ensure_future(again(name)) for name in "abc"}
    for value in range(60):
        await random.choice(streams).aappend(value)
        name = random.choice("abc")
        if random.random() < 0.15:
            workers[name].cancel()
            await asyncio.wait([workers[name]])
            workers[name] = asyncio.ensure_future(again(name))
        if random.random() < 0.05:  # a worker that takes a wake and is never heard of again
            try:
                await sync_to_async(leases.claim)("mailer", "vanished", "default")
            except SubscriptionError:
                pass
        await asyncio.sleep(0.01)
    is_calm = True
    while sum(1 for _ in handled) < 60 or await has_rest():
        assert not watching.done()
        await asyncio.sleep(0.05)
    for task in (watching, *workers.values()):
        task.cancel()
    await asyncio.wait([watching, *workers.values()])
    assert watching.cancelled()
    assert sorted(value for _, value in handled) == list(range(60))


async def has_rest() -> bool:
    async for link in SubscriptionLink.objects.select_related("stream"):
        if link.stream is not None and (link.acked_position or 0) < link.stream.tail_position:
            return True
    return False
