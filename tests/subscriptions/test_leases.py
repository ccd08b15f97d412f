"""The wakes of a subscription: one at a time, fenced, and never lost."""

from typing import Any

import pytest

from django_durable_streams import clock
from django_durable_streams.models import Stream, Subscription
from django_durable_streams.protocol.offsets import Sentinel, decode
from django_durable_streams.protocol.subscriptions import WakeRequest
from django_durable_streams.subscriptions import due, leases, outcomes, registry
from tests.subscriptions.steps import USING, Clock, acked, one_wake, refused, request, stream, subscribe, wakes

pytestmark = pytest.mark.django_db


def test_existing_streams_begin_at_their_tails_and_new_ones_at_their_beginning() -> None:
    stream("events/old", b"old")
    subscribe()
    assert wakes() == []
    stream("events/new", b"new")
    wake = one_wake()
    assert [(link.path, link.acked_offset, link.tail) for link in wake.pending] == [("events/new", "-1", 3)]
    Stream.objects.get(path="events/old").append(b"er")
    outcomes.finish_delivery(wake, USING)
    wake = one_wake()
    assert [(link.path, link.tail) for link in wake.pending] == [("events/old", 5)]


def test_one_wake_is_in_flight_however_much_is_appended() -> None:
    subscribe()
    first = stream()
    wake = one_wake()
    assert wakes() == []
    first.append(b"y")
    stream("events/b")
    assert wakes() == []
    outcomes.finish_delivery(wake, USING)
    assert acked() == 1
    following = one_wake()
    assert following.subscription.generation == wake.subscription.generation + 1
    assert {link.path for link in following.pending} == {"events/a", "events/b"}
    outcomes.finish_delivery(following, USING)
    assert wakes() == []
    assert Subscription.objects.get().due_at is None


def test_a_callback_acknowledges_and_ends_the_wake() -> None:
    subscribe()
    first = stream()
    wake = one_wake()
    tail = wake.pending[0].tail_offset
    assert leases.callback("s", wake.token, request(wake, ("events/a", tail)), USING) is False
    assert acked() == 1
    refused("FENCED", leases.callback, "s", wake.token, request(wake, ("events/a", tail)))
    first.append(b"y")
    assert one_wake().subscription.generation == 2


def test_a_callback_that_is_not_done_extends_the_lease(now: Clock) -> None:
    subscribe()
    stream()
    wake = one_wake()
    for _ in range(4):
        now.move(25)
        assert leases.callback("s", wake.token, request(wake, done=False), USING) is False
        assert wakes() == []
    now.move(31)
    following = one_wake()
    assert following.subscription.generation == 2
    refused("FENCED", leases.callback, "s", wake.token, request(wake))


def test_a_callback_after_the_end_of_the_lease_is_fenced_before_another_wake_begins(now: Clock) -> None:
    subscribe()
    stream()
    wake = one_wake()
    now.move(30.001)
    refused("FENCED", leases.callback, "s", wake.token, request(wake, ("events/a", wake.pending[0].tail_offset)))
    assert acked() is None


def test_a_late_done_never_acknowledges_a_newer_wake(now: Clock) -> None:
    subscribe()
    stream()
    wake = one_wake()
    now.move(31)
    newer = one_wake()
    outcomes.finish_delivery(wake, USING)
    outcomes.confirm_delivery(wake, USING)
    outcomes.fail_delivery(wake, "late", USING, is_certain=True)
    present = Subscription.objects.get()
    assert (present.wake_id, present.failures, acked()) == (newer.subscription.wake_id, 1, None)


@pytest.mark.parametrize(
    "change",
    [{"wake_id": "w_other"}, {"generation": 0}, {"generation": 2}, {"generation": 2**62}],
)
def test_a_request_of_another_wake_changes_nothing(change: dict[str, Any]) -> None:
    subscribe()
    stream()
    wake = one_wake()
    wrong = request(wake, ("events/a", wake.pending[0].tail_offset))._replace(**change)
    refused("FENCED", leases.callback, "s", wake.token, wrong)
    assert acked() is None


def test_tokens_belong_to_one_subscription_and_purpose(now: Clock) -> None:
    subscribe("s")
    subscribe("t")
    subscribe("p", kind="pull-wake")
    stream()
    by_name = {wake.subscription.name: wake for wake in wakes()}
    claimed = leases.claim("p", "worker", USING)
    for token in ("", "x", by_name["t"].token, claimed["token"], by_name["s"].token + "x", by_name["s"].token[:-1]):
        refused("TOKEN_INVALID", leases.callback, "s", token, request(by_name["s"]))
    refused("TOKEN_INVALID", leases.ack, "p", by_name["s"].token, request(by_name["p"]))


@pytest.mark.parametrize("offset", ["-1", "now", "9999999999999999_0000000000000001", "ahead", "back"])
def test_a_cursor_moves_forward_inside_its_stream_only(offset: str) -> None:
    subscribe()
    first = stream(data=b"x")
    wake = one_wake()
    first.append(b"yz")
    offsets = {"ahead": first.offset_at(9), "back": first.offset_at(0)}
    leases.callback("s", wake.token, request(wake, ("events/a", first.offset_at(1)), done=False), USING)
    wrong = request(wake, ("events/a", offsets.get(offset, offset)))
    refused("INVALID_OFFSET", leases.callback, "s", wake.token, wrong)
    assert acked() == 1


def test_one_wrong_ack_leaves_all_cursors_where_they_are() -> None:
    subscribe()
    first = stream()
    stream("events/b")
    wake = one_wake()
    acks = (("events/a", first.next_offset), ("events/b", "-1"))
    refused("INVALID_OFFSET", leases.callback, "s", wake.token, request(wake, *acks))
    refused("INVALID_OFFSET", leases.callback, "s", wake.token, request(wake, acks[0], ("others/a", first.next_offset)))
    assert acked() is None


def test_acknowledging_less_than_everything_leads_to_another_wake() -> None:
    subscribe()
    first = stream()
    first.append(b"y")
    wake = one_wake()
    assert leases.callback("s", wake.token, request(wake, ("events/a", first.offset_at(1))), USING) is True
    assert one_wake().pending[0].acked_offset == first.offset_at(1)


def test_failures_are_retried_with_a_growing_delay(now: Clock) -> None:
    subscribe()
    stream()
    delays = []
    for failures in range(1, 10):
        wake = one_wake()
        outcomes.fail_delivery(wake, "500", USING, is_certain=True)
        present = Subscription.objects.get()
        assert (present.status, present.failures, present.last_error) == ("failed", failures, "500")
        assert present.next_attempt_at is not None
        delay = (clock.from_project(present.next_attempt_at) - now.moment).total_seconds()
        delays.append(delay)
        now.move(delay - 0.001)
        assert wakes() == []
        now.move(0.001)
    assert all(0.8 * 2**number <= delay <= 1.2 * 2**number for number, delay in enumerate(delays[:6]))
    assert all(48 <= delay <= 72 for delay in delays[6:])
    outcomes.confirm_delivery(one_wake(), USING)
    assert Subscription.objects.get().status == "active"


def test_new_appends_do_not_shorten_the_delay(now: Clock) -> None:
    subscribe()
    first = stream()
    outcomes.fail_delivery(one_wake(), "500", USING, is_certain=True)
    first.append(b"y")
    assert wakes() == []


def test_a_receiver_that_may_be_at_work_keeps_its_lease(now: Clock) -> None:
    subscribe()
    first = stream()
    wake = one_wake()
    outcomes.fail_delivery(wake, "timed out", USING, is_certain=False)
    now.move(29)
    assert wakes() == []
    assert leases.callback("s", wake.token, request(wake, ("events/a", first.next_offset)), USING) is False
    assert Subscription.objects.get().status == "active"
    now.move(60)
    assert wakes() == []


def due_in(now: Clock) -> float:
    """The seconds until something happens by itself."""
    due_at = Subscription.objects.get().due_at
    assert due_at is not None
    return (clock.from_project(due_at) - now.moment).total_seconds()


def silences(now: Clock, number: int) -> list[float]:
    """Let a receiver answer wakes with `{}` and do nothing, and return the seconds from each wake to the next one."""
    seconds = []
    wake = one_wake()
    for _ in range(number):
        outcomes.confirm_delivery(wake, USING)
        began = now.moment
        while not (following := wakes()):
            now.move(due_in(now))
        (wake,) = following
        seconds.append((now.moment - began).total_seconds())
    return seconds


def test_a_receiver_that_accepts_and_never_works_is_woken_more_and_more_rarely(now: Clock) -> None:
    subscribe()
    stream()
    Subscription.objects.unguarded().update(lease_ms=1000)
    seconds = silences(now, 9)
    assert seconds[0] >= 1
    assert all(0.8 * 2**number <= delay <= 1.2 * 2**number for number, delay in enumerate(seconds[:6]) if number)
    assert all(48 <= delay <= 72 for delay in seconds[6:])
    present = Subscription.objects.get()
    assert (present.status, present.failures) == ("failed", 9)


def test_a_lease_that_ends_once_is_followed_by_the_next_wake_at_once(now: Clock) -> None:
    """The receiver, or the process that delivers, has died. Another one takes over."""
    subscribe()
    stream()
    for _ in range(3):
        one_wake()
        now.move(30)
    assert Subscription.objects.get().failures == 2


def test_a_receiver_that_calls_back_is_not_silent(now: Clock) -> None:
    subscribe()
    stream()
    Subscription.objects.unguarded().update(failures=9)
    wake = one_wake()
    outcomes.confirm_delivery(wake, USING)
    assert leases.callback("s", wake.token, request(wake, done=False), USING) is False
    assert Subscription.objects.get().failures == 0


def test_a_wake_whose_receiver_gave_no_answer_counts_once(now: Clock) -> None:
    subscribe()
    stream()
    outcomes.fail_delivery(one_wake(), "timed out", USING, is_certain=False)
    now.move(30)
    assert one_wake().subscription.failures == 1


def test_a_retry_that_is_accepted_is_active_and_keeps_its_count() -> None:
    subscribe()
    stream()
    outcomes.fail_delivery(one_wake(), "500", USING, is_certain=True)
    Subscription.objects.unguarded().update(due_at=clock.now())
    outcomes.confirm_delivery(one_wake(), USING)
    present = Subscription.objects.get()
    assert (present.status, present.failures) == ("active", 1)


def test_a_deleted_subscription_ends_its_wake_and_its_name_is_free() -> None:
    subscribe()
    stream()
    wake = one_wake()
    registry.delete("s", USING)
    refused("SUBSCRIPTION_NOT_FOUND", leases.callback, "s", wake.token, request(wake))
    outcomes.finish_delivery(wake, USING)
    subscribe()
    refused("TOKEN_INVALID", leases.callback, "s", wake.token, request(wake))
    while registry.delete_remains(USING):
        pass
    assert Subscription.objects.count() == 1


def test_a_stream_that_is_deleted_with_a_wake_in_flight_is_not_pending_any_more() -> None:
    subscribe()
    first = stream()
    wake = one_wake()
    first.delete()
    refused(
        "INVALID_OFFSET", leases.callback, "s", wake.token, request(wake, ("events/a", wake.pending[0].tail_offset))
    )
    assert leases.callback("s", wake.token, request(wake), USING) is False
    assert wakes() == []


class TestPullWake:
    def test_a_claim_takes_the_wake_that_was_written(self) -> None:
        subscribe(kind="pull-wake")
        first = stream()
        wake = one_wake()
        outcomes.confirm_delivery(wake, USING)
        claimed = leases.claim("s", "w1", USING)
        assert (claimed["wake_id"], claimed["generation"]) == (wake.subscription.wake_id, 1)
        refused("ALREADY_CLAIMED", leases.claim, "s", "w2")
        acks = request(wake, ("events/a", first.next_offset))
        assert leases.ack("s", claimed["token"], acks, USING) is False
        refused("NO_PENDING_WORK", leases.claim, "s", "w2")
        refused("FENCED", leases.ack, "s", claimed["token"], acks)

    def test_a_wake_event_that_fails_after_a_claim_leaves_the_lease(self) -> None:
        subscribe(kind="pull-wake")
        stream()
        wake = one_wake()
        claimed = leases.claim("s", "w1", USING)
        outcomes.fail_delivery(wake, "there is no wake stream", USING, is_certain=True)
        body = WakeRequest(claimed["wake_id"], claimed["generation"], (), False)
        assert leases.ack("s", claimed["token"], body, USING) is False
        assert Subscription.objects.get().failures == 0

    def test_a_claim_right_after_an_append_begins_a_wake(self) -> None:
        subscribe(kind="pull-wake")
        stream()
        claimed = leases.claim("s", "w1", USING)
        assert [one["path"] for one in claimed["streams"]] == ["events/a"]
        assert wakes() == []

    def test_a_released_lease_leads_to_another_wake(self) -> None:
        subscribe(kind="pull-wake")
        stream()
        claimed = leases.claim("s", "w1", USING)
        body = WakeRequest(claimed["wake_id"], claimed["generation"], (), False)
        leases.release("s", claimed["token"], body, USING)
        assert one_wake().subscription.generation == 2
        refused("FENCED", leases.release, "s", claimed["token"], body)

    def test_a_lease_that_has_expired_goes_to_the_next_worker(self, now: Clock) -> None:
        subscribe(kind="pull-wake")
        stream()
        first = leases.claim("s", "w1", USING)
        now.move(31)
        second = leases.claim("s", "w2", USING)
        assert second["generation"] == 2
        body = WakeRequest(first["wake_id"], first["generation"], (), True)
        refused("FENCED", leases.ack, "s", first["token"], body)

    def test_an_event_that_was_not_written_is_written_by_the_next_process(self, now: Clock) -> None:
        subscribe(kind="pull-wake")
        stream()
        wake = one_wake()
        assert wakes() == []
        now.move(due.NOTICE_SECONDS)
        again = one_wake()
        assert (again.subscription.wake_id, again.subscription.generation) == (wake.subscription.wake_id, 1)
        outcomes.confirm_delivery(again, USING)
        now.move(40)
        assert wakes() == []

    def test_an_event_that_nobody_claims_is_written_again_more_and_more_rarely(self, now: Clock) -> None:
        """It may be lost: a worker dies between the event and its claim, or the wake stream is deleted."""
        subscribe(kind="pull-wake")
        stream()
        seconds = []
        for _ in range(9):
            wake = one_wake()
            assert (wake.subscription.generation, wake.subscription.failures) == (1, 0)
            outcomes.confirm_delivery(wake, USING)
            seconds.append(due_in(now))
            now.move(due_in(now))
        assert all(0.8 * 60 * 2**number <= delay <= 1.2 * 60 * 2**number for number, delay in enumerate(seconds[:6]))
        assert all(0.8 * 3600 <= delay <= 1.2 * 3600 for delay in seconds[6:])

    def test_an_event_that_is_claimed_is_not_written_again(self, now: Clock) -> None:
        subscribe(kind="pull-wake")
        stream()
        wake = one_wake()
        claimed = leases.claim("s", "w1", USING)
        outcomes.confirm_delivery(wake, USING)
        body = WakeRequest(claimed["wake_id"], claimed["generation"], (), False)
        for _ in range(10):
            now.move(20)
            assert leases.ack("s", claimed["token"], body, USING) is False
            assert wakes() == []

    def test_a_webhooks_callback_is_refused(self) -> None:
        subscribe(kind="pull-wake")
        stream()
        claimed = leases.claim("s", "w1", USING)
        body = WakeRequest(claimed["wake_id"], claimed["generation"], (), True)
        refused("TOKEN_INVALID", leases.callback, "s", claimed["token"], body)


def test_a_token_tells_nothing_of_other_subscriptions() -> None:
    subscribe("s")
    subscribe("other", "others/*")
    subscribe("pull", "others/*", kind="pull-wake")
    stream()
    wake = one_wake()
    for name in ("other", "pull", "missing"):
        refused("TOKEN_INVALID", leases.callback, name, wake.token, request(wake))
    registry.delete("s", USING)
    refused("SUBSCRIPTION_NOT_FOUND", leases.callback, "s", wake.token, request(wake))


def test_sentinels_are_no_offsets_to_acknowledge() -> None:
    assert isinstance(decode("-1"), Sentinel)
