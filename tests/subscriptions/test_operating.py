"""What operators do: pause, resume, try again, set cursors and delete. No wake is lost or doubled by it."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connection, transaction

from django_durable_streams import clock
from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.protocol.offsets import Sentinel, decode
from django_durable_streams.protocol.subscriptions import SubscriptionError, WakeRequest
from django_durable_streams.subscriptions import due, leases, operating, outcomes, selection
from django_durable_streams.subscriptions.selection import Selection
from tests.store.test_isolation import elsewhere
from tests.subscriptions.steps import USING, Clock, acked, one_wake, refused, request, stream, subscribe, wakes

pytestmark = pytest.mark.django_db


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moving = Clock()
    monkeypatch.setattr(clock, "now", moving)
    return moving


def body(claimed: dict[str, Any], *, done: bool) -> WakeRequest:
    return WakeRequest(claimed["wake_id"], claimed["generation"], (), done)


class TestPause:
    @pytest.mark.parametrize("kind", ["webhook", "pull-wake"])
    def test_no_wake_begins_and_links_go_on_to_collect(self, kind: str) -> None:
        subscribe(kind=kind)
        first = stream()
        assert operating.pause("s", USING) is True
        assert operating.pause("s", USING) is False
        first.append(b"y")
        stream("events/b")
        assert wakes() == []
        assert due.next_due_seconds(USING) is None
        assert SubscriptionLink.objects.filter(is_pending=True).count() == 2
        assert operating.resume("s", USING) is True
        assert operating.resume("s", USING) is False
        assert {link.path: link.tail for link in one_wake().pending} == {"events/a": 2, "events/b": 1}

    def test_nothing_can_be_claimed_until_it_is_resumed(self) -> None:
        subscribe(kind="pull-wake")
        stream()
        operating.pause("s", USING)
        refused("NO_PENDING_WORK", leases.claim, "s", "w")
        assert Subscription.objects.get().generation == 0
        operating.resume("s", USING)
        assert leases.claim("s", "w", USING)["generation"] == 1

    def test_who_has_the_lease_finishes_and_no_wake_follows(self) -> None:
        subscribe(kind="pull-wake")
        first = stream()
        claimed = leases.claim("s", "w", USING)
        operating.pause("s", USING)
        refused("ALREADY_CLAIMED", leases.claim, "s", "other")
        assert leases.ack("s", claimed["token"], body(claimed, done=False), USING) is False
        first.append(b"y")
        assert leases.ack("s", claimed["token"], body(claimed, done=True), USING) is False
        assert wakes() == []
        refused("NO_PENDING_WORK", leases.claim, "s", "w")
        operating.resume("s", USING)
        assert one_wake().subscription.generation == 2

    def test_a_webhook_that_is_being_delivered_is_acknowledged(self) -> None:
        subscribe()
        first = stream()
        wake = one_wake()
        operating.pause("s", USING)
        first.append(b"y")
        outcomes.finish_delivery(wake, USING)
        assert acked() == 1
        assert wakes() == []
        operating.resume("s", USING)
        assert one_wake().pending[0].tail == 2

    def test_a_lease_that_ends_meanwhile_is_given_out_after_it(self, now: Clock) -> None:
        subscribe(kind="pull-wake")
        stream()
        claimed = leases.claim("s", "w", USING)
        operating.pause("s", USING)
        now.move(31)
        assert wakes() == []
        refused("NO_PENDING_WORK", leases.claim, "s", "other")
        refused("FENCED", leases.ack, "s", claimed["token"], body(claimed, done=True))
        operating.resume("s", USING)
        assert one_wake().subscription.generation == 2

    def test_a_wake_event_that_nobody_could_claim_is_written_again(self) -> None:
        subscribe(kind="pull-wake")
        stream()
        wake = one_wake()
        outcomes.confirm_delivery(wake, USING)
        operating.pause("s", USING)
        refused("NO_PENDING_WORK", leases.claim, "s", "w")
        operating.resume("s", USING)
        again = one_wake()
        assert (again.subscription.wake_id, again.subscription.generation) == (wake.subscription.wake_id, 1)
        assert leases.claim("s", "w", USING)["generation"] == 1

    def test_it_does_not_shorten_the_wait_for_another_attempt(self, now: Clock) -> None:
        subscribe()
        stream()
        outcomes.fail_delivery(one_wake(), "500", USING, is_certain=True)
        operating.pause("s", USING)
        operating.resume("s", USING)
        assert wakes() == []
        operating.pause("s", USING)
        now.move(3)
        assert wakes() == []
        operating.resume("s", USING)
        assert len(wakes()) == 1

    def test_with_nothing_pending_nothing_follows(self) -> None:
        subscribe()
        operating.pause("s", USING)
        operating.resume("s", USING)
        assert wakes() == []
        assert Subscription.objects.get().due_at is None


class TestRetry:
    def test_the_next_attempt_begins_now_and_the_waits_anew(self, now: Clock) -> None:
        subscribe()
        stream()
        for _ in range(6):
            now.move(120)
            outcomes.fail_delivery(one_wake(), "500", USING, is_certain=True)
        assert operating.retry("s", USING) == 1
        wake = one_wake()
        assert wake.subscription.last_error == "500"  # until the outcome is known
        outcomes.fail_delivery(wake, "501", USING, is_certain=True)
        present = Subscription.objects.get()
        assert present.failures == 1
        now.move(1.2)
        outcomes.confirm_delivery(one_wake(), USING)
        assert operating.retry("s", USING) == 0

    def test_nothing_waits_for_an_attempt(self) -> None:
        subscribe()
        assert operating.retry("s", USING) == 0
        stream()
        wake = one_wake()
        assert operating.retry("s", USING) == 0
        assert Subscription.objects.get().wake_id == wake.subscription.wake_id

    def test_an_attempt_that_timed_out_is_fenced(self) -> None:
        subscribe()
        stream()
        wake = one_wake()
        outcomes.fail_delivery(wake, "timed out", USING, is_certain=False)
        assert operating.retry("s", USING) == 1
        assert one_wake().subscription.generation == 2
        refused("FENCED", leases.callback, "s", wake.token, request(wake))

    def test_a_receiver_that_acknowledges_after_a_time_out_waits_for_no_attempt(self) -> None:
        subscribe()
        stream()
        wake = one_wake()
        outcomes.fail_delivery(wake, "timed out", USING, is_certain=False)
        leases.callback("s", wake.token, request(wake, done=False), USING)
        present = Subscription.objects.get()
        assert (present.failures, present.next_attempt_at, present.last_error) == (0, None, "")
        assert operating.retry("s", USING) == 0

    def test_of_a_paused_subscription_it_begins_after_the_pause(self) -> None:
        subscribe()
        stream()
        outcomes.fail_delivery(one_wake(), "500", USING, is_certain=True)
        operating.pause("s", USING)
        assert operating.retry("s", USING) == 1
        assert wakes() == []
        operating.resume("s", USING)
        assert len(wakes()) == 1


class TestSetCursors:
    @pytest.fixture
    def done(self) -> Stream:
        """A stream of two appends that is acknowledged to its end."""
        subscribe()
        first = stream()
        first.append(b"yz")
        outcomes.finish_delivery(one_wake(), USING)
        assert wakes() == []
        return first

    @pytest.mark.parametrize(("start", "position"), [("-1", None), ("now", 3), ("1", 1)])
    def test_a_cursor_goes_anywhere_in_its_stream(self, done: Stream, start: str, position: int | None) -> None:
        chosen = decode(done.offset_at(1)) if start == "1" else decode(start)
        assert operating.set_cursors("s", chosen, Selection(), USING) == 1
        assert acked() == position
        begun = wakes()
        assert [wake.pending[0].acked_offset for wake in begun] == (
            [] if start == "now" else ["-1" if start == "-1" else done.offset_at(1)]
        )

    def test_late_requests_of_the_present_wake_do_not_move_it_on(self, done: Stream) -> None:
        done.append(b"!")
        wake = one_wake()
        operating.set_cursors("s", Sentinel.START, Selection(), USING)
        refused("FENCED", leases.callback, "s", wake.token, request(wake, ("events/a", done.offset_at(3))))
        outcomes.finish_delivery(wake, USING)
        assert acked() is None
        assert one_wake().pending[0].acked_offset == "-1"

    def test_a_claim_is_over_then(self) -> None:
        subscribe(kind="pull-wake")
        stream()
        claimed = leases.claim("s", "w", USING)
        operating.set_cursors("s", Sentinel.START, Selection(), USING)
        refused("FENCED", leases.ack, "s", claimed["token"], body(claimed, done=True))
        assert leases.claim("s", "w", USING)["generation"] == 2

    def test_only_the_chosen_streams_are_reset(self, done: Stream) -> None:
        stream("events/b")
        outcomes.finish_delivery(one_wake(), USING)
        assert operating.set_cursors("s", Sentinel.START, Selection("events/b"), USING) == 1
        assert (acked("events/a"), acked("events/b")) == (3, None)
        link = SubscriptionLink.objects.get(path="events/a")
        assert operating.set_cursors("s", decode(done.offset_at(1)), Selection(link_id=link.pk), USING) == 1
        assert (acked("events/a"), acked("events/b")) == (1, None)

    @pytest.mark.parametrize("per_page", [1, 1000])
    def test_an_offset_is_for_one_stream(self, done: Stream, per_page: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(selection, "LINKS_PER_PAGE", per_page)
        stream("events/b")
        before = acked("events/a"), Subscription.objects.get().generation
        with pytest.raises(SubscriptionError, match="one stream"):
            operating.set_cursors("s", decode(done.offset_at(0)), Selection(), USING)
        assert (acked("events/a"), Subscription.objects.get().generation) == before
        with pytest.raises(SubscriptionError, match="earlier stream"):
            operating.set_cursors("s", decode(done.offset_at(1)), Selection("events/b"), USING)
        assert acked("events/b") is None

    def test_links_of_other_subscriptions_and_without_streams_stay(self, done: Stream) -> None:
        subscribe("other", "", "events/a", "events/none")
        link = SubscriptionLink.objects.get(path="events/none")
        assert operating.set_cursors("s", Sentinel.NOW, Selection(link_id=link.pk), USING) == 0
        assert operating.set_cursors("other", Sentinel.START, Selection(), USING) == 1
        assert acked("events/none") is None
        assert SubscriptionLink.objects.get(path="events/a", subscription__name="s").acked_position == 3

    def test_many_links_take_several_transactions(self, done: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(selection, "LINKS_PER_PAGE", 2)
        for number in range(5):
            stream(f"events/{number}")
        assert operating.set_cursors("s", Sentinel.NOW, Selection(), USING) == 6
        assert wakes() == []
        assert operating.set_cursors("s", Sentinel.START, Selection(), USING) == 6
        assert len(one_wake().pending) == 6

    @pytest.mark.parametrize("done_pages", [0, 1, 2])
    def test_a_lock_that_comes_between_is_told_with_what_is_set(
        self, done: Stream, done_pages: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(selection, "LINKS_PER_PAGE", 2)
        for number in range(5):
            stream(f"events/{number}")
        left = done_pages

        def perform(using: str, function: Callable[..., Any], *args: Any) -> Any:
            nonlocal left
            if not left:
                raise ServiceUnavailable("Nothing was changed.")
            left -= 1
            return function(*args)

        monkeypatch.setattr(operating, "perform", perform)
        with pytest.raises(ServiceUnavailable) as caught:
            operating.set_cursors("s", Sentinel.NOW, Selection(), USING)
        count = SubscriptionLink.objects.filter(acked_position__gt=0).count() - 1  # `done` was acknowledged before
        assert count == max(2 * done_pages - 1, 0)
        assert (f"cursors of {2 * done_pages} streams are set" in caught.value.detail) == bool(done_pages)
        assert ("Nothing was changed" in caught.value.detail) == (not done_pages)

    def test_an_append_right_after_a_reset_to_the_end_is_pending(self, done: Stream) -> None:
        operating.set_cursors("s", Sentinel.NOW, Selection(), USING)
        done.append(b"!")
        assert [(link.acked_offset, link.tail) for link in one_wake().pending] == [(done.offset_at(3), 4)]


def test_a_deleted_subscription_is_not_found() -> None:
    subscribe()
    operating.delete("s", USING)
    assert not Subscription.objects.filter(name="s").exists()
    functions: list[Callable[..., object]] = [operating.pause, operating.resume, operating.retry, operating.delete]
    for function in functions:
        refused("SUBSCRIPTION_NOT_FOUND", function, "s")
    refused("SUBSCRIPTION_NOT_FOUND", operating.set_cursors, "s", Sentinel.START, Selection())


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")
@pytest.mark.django_db(transaction=True)
class TestPerform:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(operating, "BUSY_SECONDS", 0.1)

    @pytest.mark.parametrize("function", [operating.pause, operating.delete])
    def test_it_waits_for_others_for_a_short_time_and_changes_nothing(self, function: Callable[..., Any]) -> None:
        subscribe()

        def act() -> None:
            with pytest.raises(ServiceUnavailable, match="Try again"):
                operating.perform(USING, function, "s", USING)

        with transaction.atomic():
            stream("events/new")  # holds the lock on the rules for links
            list(Subscription.objects.select_for_update())
            elsewhere(act)
        assert not Subscription.objects.get(name="s").is_paused
        operating.perform(USING, function, "s", USING)
        assert not Subscription.objects.filter(name="s", is_paused=False).exists()

    def test_it_is_done_when_the_lock_is_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(operating, "BUSY_SECONDS", 20)
        subscribe()
        begun = Event()

        def pause(name: str, using: str) -> bool:
            begun.set()
            return operating.pause(name, using)

        other = Thread(target=lambda: elsewhere(lambda: operating.perform(USING, pause, "s", USING)))
        with transaction.atomic():
            list(Subscription.objects.select_for_update())
            other.start()
            assert begun.wait(10)
        other.join(20)
        assert Subscription.objects.get().is_paused

    def test_the_limit_of_the_connection_is_as_before(self) -> None:
        before = lock_limit()
        seen = operating.perform(USING, lock_limit)
        assert lock_limit() == before != seen


def lock_limit() -> Any:
    query = "SHOW lock_timeout" if connection.vendor == "postgresql" else "SELECT @@SESSION.innodb_lock_wait_timeout"
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]
