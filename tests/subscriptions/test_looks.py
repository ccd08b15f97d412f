"""The delivery's looks at the database: what one finds, what it delivers, and when the next one comes."""

import asyncio
from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from django_durable_streams import clock
from django_durable_streams.conf import config
from django_durable_streams.engine import engine_for
from django_durable_streams.models import Subscription, SubscriptionLink
from django_durable_streams.subscriptions import backfill, deliveries, delivery, due, outcomes
from django_durable_streams.subscriptions.backfill import unfinished
from django_durable_streams.subscriptions.delivery import Delivery, look
from django_durable_streams.subscriptions.leases import Wake
from django_durable_streams.subscriptions.pending import look_at_unseen
from django_durable_streams.subscriptions.turns import Turns
from tests.overriding import override_streams
from tests.subscriptions.steps import USING, one_at_a_time, one_wake, stream, subscribe, wakes

BUSY = OperationalError(1205, "Lock wait timeout exceeded")
"""An error that another transaction's lock causes."""


TURNS_OF_ONE, DUE_WEBHOOKS = 29, 32
"""The turns of a receiver that is alone, and more than these."""


def busy(*args: object) -> None:
    raise BUSY


def looked(free: int = 10, retries: int = 10) -> delivery.DueWork:
    work = look(USING, Turns(free, retries))
    assert work is not None
    return work


@pytest.mark.django_db
@pytest.mark.parametrize("part", ["look_at_unseen", "link_portion", "delete_remains"])
def test_a_part_that_waits_for_another_transaction_holds_up_no_wake(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe()
    stream()
    while look_at_unseen(USING).through:
        pass
    Subscription.objects.unguarded().update(linked_through=0)
    monkeypatch.setattr(delivery, part, busy)
    work = looked()
    assert [wake.subscription.name for wake in work.wakes] == ["s"]


@pytest.mark.django_db
def test_wakes_that_have_begun_are_delivered_whatever_fails_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe()
    stream()
    monkeypatch.setattr(due, "next_due_seconds", busy)
    work = looked()
    assert len(work.wakes) == 1
    assert work.due_in == delivery.BUSY_PAUSE


@pytest.mark.django_db
def test_wakes_that_cannot_begin_yet_are_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe()
    stream()
    monkeypatch.setattr(due, "begin_due", busy)
    work = looked()
    assert (work.wakes, work.has_more, work.due_in) == ([], False, delivery.BUSY_PAUSE)


@pytest.mark.django_db
def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise OperationalError("the disk is full")

    subscribe()
    monkeypatch.setattr(delivery, "look_at_unseen", fails)
    with pytest.raises(OperationalError):
        looked()


@pytest.mark.django_db
def test_a_look_after_the_first_streams_is_followed_by_one_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe()
    first = stream()
    assert look(USING, Turns(10), after=first.pk) == delivery.DueWork([], True, 0, None)
    assert len(looked().wakes) == 1


@pytest.mark.django_db
def test_failed_subscriptions_leave_turns_to_the_others() -> None:
    for number in range(6):
        subscribe(f"failed-{number}")
    stream()
    for wake in wakes():
        outcomes.fail_delivery(wake, "500", USING, is_certain=True)
    subscribe("healthy")
    Subscription.objects.unguarded().filter(failures=1).update(due_at=clock.now())
    stream("events/b")
    names = [wake.subscription.name or "" for wake in looked(4, 2).wakes]
    assert [name.partition("-")[0] for name in names] == ["healthy", "failed"]
    assert len(looked(4, 0).wakes) == 0
    assert len(looked(10, 10).wakes) == 5


@pytest.mark.django_db
@override_streams(SUBSCRIPTION_DELIVERY=False)
async def test_the_delivery_does_not_turn_in_circles_while_it_has_no_free_turn(engines: None) -> None:
    await sync_to_async(subscribe)()
    await sync_to_async(stream)()
    running = Delivery(engine_for(), lambda function, *args, **kwargs: sync_to_async(function)(*args, **kwargs))
    ends = asyncio.Event()

    async def deliver() -> None:
        await ends.wait()

    for _ in range(deliveries.MAX_DELIVERIES):
        running._deliveries.add(asyncio.create_task(deliver()), Subscription())
    assert await running._look() == config().poll_interval
    ends.set()
    await asyncio.wait(running._deliveries.tasks)


@pytest.mark.django_db
@override_streams(SUBSCRIPTION_DELIVERY=False)
async def test_a_receiver_has_few_of_the_turns_and_gives_them_back(engines: None) -> None:
    def make_due() -> None:
        for number in range(DUE_WEBHOOKS):
            subscribe(f"s-{number}")
        stream()

    await sync_to_async(make_due)()
    running = Delivery(engine_for(), lambda function, *args, **kwargs: sync_to_async(function)(*args, **kwargs))
    ends = asyncio.Event()

    async def deliver(wake: object) -> None:
        await ends.wait()

    running._deliver = deliver  # type: ignore[method-assign]
    running._deliveries = deliveries.Deliveries(lambda: 0.0)  # none of them becomes slow
    while await running._look() == 0.0:
        pass
    assert running._deliveries.by_receiver == {"example.com:443": TURNS_OF_ONE}
    assert len(running._deliveries.tasks) == TURNS_OF_ONE
    ends.set()
    await asyncio.wait(running._deliveries.tasks)
    assert running._deliveries.by_receiver == {}
    assert await running._look() == 0.0
    assert running._deliveries.by_receiver == {"example.com:443": DUE_WEBHOOKS - TURNS_OF_ONE}
    await asyncio.wait(running._deliveries.tasks)


@pytest.mark.django_db
async def test_failures_that_come_together_hold_up_no_look(engines: None) -> None:
    """The calls of dead receivers began together, and their time is over together."""
    waiting: list[str] = []
    is_free = asyncio.Event()

    async def call(function: Callable[..., object], *args: object, **kwargs: object) -> None:
        waiting.append(function.__name__)
        await is_free.wait()

    running = Delivery(engine_for(), call)
    wake = Wake(Subscription(name="s"), [], "")
    failing = [asyncio.create_task(running._fail(wake, "500", is_certain=True)) for _ in range(50)]
    await asyncio.sleep(0)
    looking = asyncio.create_task(running._look())
    await asyncio.sleep(0)
    assert waiting == [*["fail_delivery"] * delivery.MAX_FAILING, "look"]
    is_free.set()
    await asyncio.gather(looking, *failing)
    assert waiting.count("fail_delivery") == 50


@pytest.mark.django_db
def test_an_idle_subscription_is_not_looked_at() -> None:
    subscribe()
    stream()
    outcomes.finish_delivery(one_wake(), USING)
    assert looked() == delivery.DueWork([], False, 0, None)


@pytest.mark.django_db
def test_a_look_links_one_portion_however_many_subscriptions_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake, and the outcome of another one, wait for the whole look."""
    one_at_a_time(monkeypatch)
    stream()
    stream("events/b")
    for number in range(5):
        subscribe(f"s-{number}")
    SubscriptionLink.objects.unguarded().delete()
    Subscription.objects.unguarded().update(linked_through=0)
    links = [0]
    while looked().is_linking:
        links.append(SubscriptionLink.objects.count())
        assert links[-1] <= links[-2] + 1
    assert links[-1] == 10
    assert unfinished(USING) == []


@pytest.mark.django_db
def test_subscriptions_that_are_held_up_hold_up_no_other_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3 * delivery.MAX_HELD_UP):
        subscribe(f"s-{number}")
    Subscription.objects.unguarded().update(linked_through=0)
    free = Subscription.objects.get(name="s-0").pk

    def portion(subscription_id: int, using: str) -> backfill.Progress:
        if subscription_id != free:
            return backfill.Progress(is_done=False, is_held_up=True)
        return backfill.link_portion(subscription_id, using)

    monkeypatch.setattr(delivery, "link_portion", portion)
    for _ in range(1000):
        looked()
        if free not in unfinished(USING):
            return
    raise AssertionError("it never had its turn")
