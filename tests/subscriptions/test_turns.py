"""Which subscriptions get a turn: no receiver can take the turns of others, whatever it does."""

from datetime import timedelta

import pytest

from django_durable_streams import clock
from django_durable_streams.models import Subscription, SubscriptionLink
from django_durable_streams.subscriptions import addresses, due
from django_durable_streams.subscriptions.turns import Turns
from tests.subscriptions.steps import USING, stream, subscribe, wakes

pytestmark = pytest.mark.django_db


def make_due(name: str, receiver: str, number: int, *, kind: str = "webhook", failures: int = 0) -> None:
    """Make some subscriptions with a receiver that are due, after the earlier ones."""
    due_at = clock.now() - timedelta(hours=1) + timedelta(seconds=Subscription.objects.count())
    for one in range(number):
        subscribe(f"{name}-{one}", kind=kind)
    made = Subscription.objects.unguarded().filter(name__startswith=f"{name}-")
    made.update(receiver=receiver, failures=failures, due_at=due_at)


def pend() -> None:
    """Give all subscriptions something to do."""
    stream()
    assert wakes(0) == []


def begun(turns: Turns) -> list[str]:
    """The receivers of the wakes that begin."""
    return [wake.subscription.receiver for wake in due.begin_due(USING, turns)]


def fill(free: int) -> dict[str, int]:
    """Begin wakes until no more begins, none of which ends. Return how many turns each receiver has."""
    in_flight: dict[str, int] = {}
    while new := begun(Turns(free, free, dict(in_flight))):
        free -= len(new)
        for receiver in new:
            in_flight[receiver] = in_flight.get(receiver, 0) + 1
    return in_flight


def test_a_receiver_alone_has_a_ninth_of_the_turns() -> None:
    make_due("dead", "dead:443", 12)
    pend()
    assert fill(72) == {"dead:443": 8}


@pytest.mark.parametrize("free", [1, 7, 30])
def test_a_receiver_that_comes_last_has_a_turn(free: int) -> None:
    make_due("dead", "dead:443", 12)
    make_due("living", "living:443", 1)
    pend()
    in_flight = fill(free)
    assert in_flight.get("living:443", 0) == (free > 1)


def test_twenty_receivers_that_never_answer_leave_turns_to_others() -> None:
    for number in range(20):
        make_due(f"dead-{number}", f"dead-{number}:443", 4)
    pend()
    in_flight = fill(64)
    assert sum(in_flight.values()) < 64
    assert len(in_flight) == 20


def test_wake_events_need_no_turn_of_a_receiver() -> None:
    make_due("pull", "", 12, kind="pull-wake")
    pend()
    assert fill(12) == {"": 12}


def test_failed_ones_have_turns_however_many_others_are_due() -> None:
    make_due("failed", "failed:443", 3, failures=4)
    make_due("busy", "busy:443", 20)
    pend()
    assert sorted(begun(Turns(8, 8))) == ["busy:443"] * 6 + ["failed:443"] * 2


def test_failed_ones_hold_up_few_others_that_are_due() -> None:
    make_due("failed", "failed:443", 20, failures=4)
    make_due("busy", "busy:443", 3)
    pend()
    assert sorted(begun(Turns(8, 4))) == ["busy:443"] * 3 + ["failed:443"] * 2
    assert begun(Turns(8, 4)) == ["failed:443"] * 4
    assert begun(Turns(8, 3)) == ["failed:443"] * 3
    assert begun(Turns(8, 0)) == []


@pytest.mark.parametrize(
    ("free", "number", "receivers"),
    [
        (1, 0.24, ["failed:443"]),
        (1, 0.26, ["busy:443"]),
        (2, 0.49, ["", "failed:443"]),
        (2, 0.51, ["", ""]),
        (3, 0.74, ["", "", "failed:443"]),
        (3, 0.76, ["", "", ""]),
        (4, 0.99, ["", "", "", "failed:443"]),
    ],
)
def test_failed_ones_leave_turns_to_others_in_a_step_of_few(
    free: int, number: float, receivers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose turns are taken begins one wake at a time."""
    monkeypatch.setattr("random.random", lambda: number)
    make_due("failed", "failed:443", 8, failures=4)
    make_due("busy", "busy:443" if free == 1 else "", 8, kind="webhook" if free == 1 else "pull-wake")
    pend()
    assert begun(Turns(free, free)) == receivers


def test_failed_ones_have_turns_beside_one_that_offers_more_than_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where such ones are always due, the failed ones would never be called again."""
    monkeypatch.setattr(due, "OFFERED_PER_STEP", 1)
    make_due("failed", "failed:443", 8, failures=4)
    make_due("busy", "busy:443", 8)
    pend()
    for _ in range(3):
        assert begun(Turns(16, 16)) == ["busy:443", "failed:443"]


def test_a_step_of_failed_ones_is_short() -> None:
    make_due("failed", "failed:443", 20, failures=4)
    pend()
    assert len(begun(Turns(100, 100))) == due.WAKES_PER_STEP // 2


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("https://hooks.example", "hooks.example:443"),
        ("HTTPS://Hooks.EXAMPLE:443/a?b=c", "hooks.example:443"),
        ("https://hooks.example:8443/", "hooks.example:8443"),
        ("http://hooks.example/", "hooks.example:80"),
        ("https://[2606:4700:0:0::1111]/", "2606:4700::1111:443"),
    ],
)
def test_all_urls_of_a_receiver_count_together(url: str, receiver: str) -> None:
    assert addresses.receiver_of(url) == receiver


def test_a_subscription_knows_its_receiver() -> None:
    subscribe()
    subscribe("p", kind="pull-wake")
    assert dict(Subscription.objects.values_list("name", "receiver")) == {"s": "example.com:443", "p": ""}


def test_subscriptions_that_are_due_for_nothing_hold_up_no_other() -> None:
    make_due("empty", "empty:443", 2 * due.WAKES_PER_STEP)
    make_due("full", "full:443", 1)
    pend()
    SubscriptionLink.objects.unguarded().filter(subscription__name__startswith="empty").update(acked_position=1)
    assert begun(Turns(100)) == ["full:443"]
