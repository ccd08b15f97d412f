"""What is pending for a subscription: nothing is lost, nothing starves, and nothing is acknowledged unread."""

from collections.abc import Callable
from typing import Any

import pytest

from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.models.stream import LinkState
from django_durable_streams.protocol.subscriptions import WakeRequest
from django_durable_streams.store.sql.rows import slices
from django_durable_streams.store.upkeep import removal
from django_durable_streams.subscriptions import due, leases, outcomes, pending, registry
from django_durable_streams.subscriptions.turns import Turns
from tests.subscriptions.steps import USING, Clock, one_wake, request, stream, subscribe, wakes

pytestmark = pytest.mark.django_db


def test_deleted_streams_do_not_hide_the_pending_ones_behind_them() -> None:
    subscribe()
    deleted = [stream(f"events/{number}") for number in range(150)]
    stream("events/last")
    wake = one_wake()
    for one in deleted:
        one.delete()
    assert leases.callback("s", wake.token, request(wake), USING) is True
    assert [link.path for link in one_wake().pending] == ["events/last"]


def test_marks_of_very_many_deleted_streams_are_cleared_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "LINKS_PER_STEP", 5)
    monkeypatch.setattr(pending, "SPARE_LINKS", 2)
    subscribe("s")
    subscribe("p", kind="pull-wake")
    for number in range(30):
        stream(f"events/{number:02}")
    by_name = {wake.subscription.name: wake for wake in wakes()}
    for one in Stream.objects.exclude(path="events/29"):
        one.delete()
    leases.callback("s", by_name["s"].token, request(by_name["s"]), USING)
    assert SubscriptionLink.objects.filter(is_pending=True).count() > 30
    begun: list[Any] = []
    for _ in range(10):
        begun += [wake for wake in wakes() if wake.subscription.name == "s"]
    assert [[link.path for link in wake.pending] for wake in begun] == [["events/29"]]
    claimed = leases.claim("p", "w", USING)
    assert [one["path"] for one in claimed["streams"]] == ["events/29"]


def test_done_never_acknowledges_a_stream_that_has_taken_the_path_of_the_delivered_one() -> None:
    subscribe()
    stream(data=b"delivered").delete()
    first = stream(data=b"delivered")
    wake = one_wake()
    first.delete()
    stream(data=b"new")
    outcomes.finish_delivery(wake, USING)
    following = one_wake()
    assert [(link.path, link.acked_offset, link.tail) for link in following.pending] == [("events/a", "-1", 3)]


def test_all_links_have_their_turn_however_much_is_appended_to_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "LINKS_PER_WAKE", 2)
    subscribe()
    streams = [stream(f"events/{number}") for number in range(5)]
    named: set[str] = set()
    for _ in range(3):
        wake = one_wake()
        assert len(wake.pending) == 2
        named |= {link.path for link in wake.pending}
        for one in streams[:3]:
            one.append(b"more")
        outcomes.finish_delivery(wake, USING)
    assert named == {one.path for one in streams}


def test_all_workers_see_all_links_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "LINKS_PER_WAKE", 2)
    subscribe(kind="pull-wake")
    for number in range(5):
        stream(f"events/{number}")
    named: set[str] = set()
    for _ in range(3):
        one_wake()
        claimed = leases.claim("s", "w", USING)
        named |= {one["path"] for one in claimed["streams"]}
        body = WakeRequest(claimed["wake_id"], claimed["generation"], (), True)
        leases.ack("s", claimed["token"], body, USING)
    assert len(named) == 5


def test_streams_have_their_turn_however_much_is_appended_to_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "UNSEEN_PER_STEP", 2)
    subscribe("s", "events/*")
    subscribe("t", "last")
    streams = [stream(f"events/{number}") for number in range(3)]
    stream("last")
    through = pending.look_at_unseen(USING).through
    for one in streams:
        one.append(b"more")
    assert through
    pending.look_at_unseen(USING, through)
    assert Subscription.objects.get(name="t").due_at is not None


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_more_streams_than_one_look_takes_are_no_delay_by_another_transaction(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(pending, "UNSEEN_PER_STEP", 2)
    subscribe(pattern="events/*")
    for number in range(count):
        stream(f"events/{number}")
    looks = [pending.look_at_unseen(USING)]
    while looks[-1].through:
        looks.append(pending.look_at_unseen(USING, looks[-1].through))
    assert not any(look.is_held_up for look in looks)
    assert SubscriptionLink.objects.filter(is_pending=True).count() == count


def test_a_fork_is_pending_with_the_data_of_its_source() -> None:
    subscribe(pattern="events/*")
    source = stream("others/a", b"common")
    assert wakes() == []
    source.fork("events/a")
    (link,) = one_wake().pending
    assert (link.path, link.acked_offset, link.tail) == ("events/a", "-1", 6)


def test_a_failed_subscription_is_active_again_once_nothing_is_pending(now: Clock) -> None:
    subscribe()
    first = stream()
    outcomes.fail_delivery(one_wake(), "500", USING, is_certain=True)
    first.delete()
    now.move(60)
    assert wakes() == []
    present = Subscription.objects.get()
    assert (present.status, present.due_at, present.next_attempt_at) == ("active", None, None)


def test_an_explicit_link_whose_stream_was_purged_ends_when_it_is_removed() -> None:
    subscribe("s", "events/*", "events/a")
    stream().delete()
    while removal.purge(USING):
        pass
    registry.remove_stream("s", "events/a", USING)
    assert not SubscriptionLink.objects.exists()


def test_streams_that_are_created_after_a_deletion_are_not_linked_to_what_was_deleted() -> None:
    subscribe("s", "", "events/a", "events/b")
    registry.delete("s", USING)
    created = stream()
    assert created.link_state is None
    assert not SubscriptionLink.objects.filter(stream=created).exists()
    while registry.delete_remains(USING):
        pass
    assert not SubscriptionLink.objects.exists()


@pytest.mark.parametrize("most", [1, 3, 4, 5, 100])
def test_a_look_marks_few_links_however_many_subscriptions_follow_the_streams(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appends to the streams of a look wait for its end, on SQLite all appends."""
    monkeypatch.setattr(pending, "LINKS_PER_LOOK", most)
    for number in range(3):
        subscribe(f"s-{number}")
    streams = [stream(f"events/{number}") for number in range(4)]
    stream("others/a")
    after, marked = 0, [0]
    while after := pending.look_at_unseen(USING, after).through:
        marked.append(SubscriptionLink.objects.filter(is_pending=True).count())
        assert marked[-1] - marked[-2] <= max(most, 3)
    for wake in due.begin_due(USING, Turns(10)):
        assert {link.path for link in wake.pending} == {one.path for one in streams}
    assert SubscriptionLink.objects.filter(is_pending=True).count() == 12
    assert not Stream.objects.filter(link_state=LinkState.UNSEEN).exists()


FOLLOWERS = 7


class TestAStreamWithVeryManyFollowers:
    """It is looked at in several transactions, and the world does not stand still between them."""

    @pytest.fixture
    def between(self, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
        """Functions of which each is called once between two of the transactions."""
        functions: list[Callable[[], object]] = []

        def interrupted(rows: Any, length: int) -> Any:
            for number, part in enumerate(slices(rows, length)):
                if number and functions:
                    functions.pop(0)()
                yield part

        monkeypatch.setattr(pending, "LINKS_PER_LOOK", 3)
        monkeypatch.setattr(pending, "slices", interrupted)
        for number in range(FOLLOWERS):
            subscribe(f"s-{number}")
        return functions

    def unseen(self) -> bool:
        return Stream.objects.filter(link_state=LinkState.UNSEEN).exists()

    def test_each_transaction_marks_few_links(self, between: list[Callable[[], object]]) -> None:
        stream()
        marked = [0]
        between += [lambda: marked.append(SubscriptionLink.objects.filter(is_pending=True).count())] * 9
        while pending.look_at_unseen(USING).through:
            assert marked == [0, 3, 6]
        assert not self.unseen()
        assert len(due.begin_due(USING, Turns(FOLLOWERS))) == FOLLOWERS

    @pytest.mark.parametrize("change", ["append", "append and append", "close", "delete", "unfollow"])
    def test_no_follower_misses_what_comes_between(self, between: list[Callable[[], object]], change: str) -> None:
        first = stream(data=b"x\xc3")

        def finish_marked() -> None:
            """Those who were marked take all that there is."""
            wakes_begun = due.begin_due(USING, Turns(FOLLOWERS))
            assert wakes_begun
            for wake in wakes_begun:
                outcomes.finish_delivery(wake, USING)

        def come_between() -> None:
            finish_marked()
            if change == "close":
                first.close()
            elif change == "delete":
                first.delete()
            elif change == "unfollow":
                registry.delete(f"s-{FOLLOWERS - 1}", USING)
            else:
                first.append(b"more")

        between += [come_between, come_between] if change == "append and append" else [come_between]
        after = pending.look_at_unseen(USING).through
        assert after
        assert self.unseen() == (change in ("append", "append and append", "close"))
        while pending.look_at_unseen(USING).through:
            pass
        assert not self.unseen()
        expected = {"append": 7, "append and append": 7, "delete": 0, "unfollow": 3}
        pending_now = due.begin_due(USING, Turns(FOLLOWERS))
        if change in expected:
            assert len(pending_now) == expected[change]

    def test_others_are_looked_at_while_it_is_appended_to_all_the_time(
        self, between: list[Callable[[], object]]
    ) -> None:
        first = stream()
        subscribe("other", "others/*")
        stream("others/a")
        between += [lambda: first.append(b"more")] * 20
        after = pending.look_at_unseen(USING).through
        assert after
        pending.look_at_unseen(USING, after)
        assert Subscription.objects.get(name="other").due_at is not None
        assert self.unseen()
        assert {link.is_pending for link in SubscriptionLink.objects.all()} == {True}
