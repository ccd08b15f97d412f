"""Slow receivers, however many and however successful, leave turns to the others."""

import asyncio
from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async

from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream, Subscription
from django_durable_streams.subscriptions import deliveries, outcomes
from django_durable_streams.subscriptions.deliveries import Deliveries
from django_durable_streams.subscriptions.delivery import Delivery
from django_durable_streams.subscriptions.leases import Wake
from tests.overriding import override_streams
from tests.subscriptions.pull_wake.fakes import until
from tests.subscriptions.steps import USING, stream, subscribe

SLOW_HOSTS = 30


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MAX_DELIVERIES", 16)
    monkeypatch.setattr(deliveries, "MAX_SLOW", 8)
    monkeypatch.setattr(deliveries, "MAX_RETRIES", 8)


class Moved:
    """A time that a test moves, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Calls:
    """Deliveries whose calls end when a test says so."""

    def __init__(self) -> None:
        self.now = Moved()
        self.deliveries = Deliveries(self.now)
        self._ends: dict[str, asyncio.Event] = {}

    def begin(self, receiver: str, failures: int = 0) -> None:
        end = self._ends[receiver] = asyncio.Event()
        task = asyncio.ensure_future(end.wait())
        self.deliveries.add(task, Subscription(receiver=receiver, failures=failures))  # type: ignore[arg-type]

    async def end(self, receiver: str, after: float) -> None:
        self.now.seconds += after
        self._ends[receiver].set()
        for _ in range(3):
            await asyncio.sleep(0)


async def test_a_call_has_a_turn_until_it_ends() -> None:
    calls = Calls()
    calls.begin("a")
    calls.begin("")
    calls.begin("b", failures=1)
    assert calls.deliveries.turns() == (13, 7, {"a": 1, "b": 1}, ())
    for name in ("a", "", "b"):
        await calls.end(name, 0.1)
    assert calls.deliveries.turns() == (16, 8, {}, ())
    assert calls.deliveries.tasks == set()


async def test_a_slow_call_leaves_its_turn_to_others() -> None:
    calls = Calls()
    for number in range(8):
        calls.begin(f"slow-{number}")
    assert calls.deliveries.turns().free == 8
    calls.now.seconds += 1.0
    assert calls.deliveries.turns().free == 16


async def test_where_all_such_turns_are_taken_no_slow_receiver_gets_another_one() -> None:
    calls = Calls()
    calls.begin("was slow")
    await calls.end("was slow", 5.0)
    assert calls.deliveries.turns().without == ()
    for number in range(9):
        calls.begin(f"slow-{number}")
    calls.now.seconds += 1.0
    turns = calls.deliveries.turns()
    assert turns.free == 15
    assert set(turns.without) == {"was slow", *(f"slow-{number}" for number in range(9))}
    for number in range(2):
        await calls.end(f"slow-{number}", 0.0)
    assert calls.deliveries.turns().without == ()


async def test_a_receiver_that_is_fast_again_is_not_slow_any_more() -> None:
    calls = Calls()
    for seconds in (1.0, 0.9):
        calls.begin("a")
        await calls.end("a", seconds)
    for number in range(8):
        calls.begin(f"slow-{number}")
    calls.now.seconds += 1.0
    assert "a" not in calls.deliveries.turns().without


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MAX_REMEMBERED", 3)
    calls = Calls()
    for number in range(20):
        calls.begin(f"slow-{number}")
        await calls.end(f"slow-{number}", 1.0)
    assert [*calls.deliveries._slow_receivers] == ["slow-17", "slow-18", "slow-19"]


@pytest.mark.django_db
@override_streams(SUBSCRIPTION_DELIVERY=False)
async def test_many_slow_receivers_that_succeed_leave_turns_to_a_fast_one(engines: None) -> None:
    """Each slow receiver takes ten seconds for a call, and always has more to do. The fast one is due last."""
    shared, _ = await sync_to_async(prepare)()
    running = Delivery(engine_for(), in_thread)
    now = Moved()
    running._deliveries = Deliveries(now)
    begun: list[str] = []
    ends: dict[asyncio.Event, float] = {}

    async def deliver(wake: Wake) -> None:
        begun.append(wake.subscription.receiver)
        if wake.subscription.receiver != "fast":
            end = asyncio.Event()
            ends[end] = now.seconds + 10.0
            await end.wait()
            await in_thread(outcomes.finish_delivery, wake, USING)

    running._deliver = deliver  # type: ignore[method-assign]

    async def pass_a_second() -> None:
        while await running._look() == 0.0:
            pass
        now.seconds += 1.0
        over = [end for end, ends_at in ends.items() if ends_at <= now.seconds]
        for end in over:
            del ends[end]
            end.set()
        await until(lambda: len(running._deliveries.tasks) <= len(ends))
        await shared.aappend(b"x")

    async with asyncio.timeout(60):
        while len({*begun}) < SLOW_HOSTS:
            await pass_a_second()
        for _ in range(12):
            await pass_a_second()
        assert len(begun) > SLOW_HOSTS  # they go on to be called
        await Stream.objects.acreate(path="fast/a", content_type="text/plain", data=b"x")
        await pass_a_second()
        assert begun.count("fast") == 1
        for end in ends:
            end.set()
        await asyncio.wait(running._deliveries.tasks)


def prepare() -> tuple[Stream, Subscription]:
    """Make slow receivers, all of one stream, and a fast one, which has nothing to do yet."""
    for number in range(SLOW_HOSTS):
        subscribe(f"slow-{number}")
    fast = subscribe("fast", "fast/*")
    for one in Subscription.objects.all():
        Subscription.objects.unguarded().filter(pk=one.pk).update(receiver=one.name)
    return stream(), fast


async def in_thread(function: Callable[..., object], *args: object, **kwargs: object) -> object:
    return await sync_to_async(function)(*args, **kwargs)
