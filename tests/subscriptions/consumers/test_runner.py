"""Consumers handle each message once, in order, with their effects in the same transaction."""

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction

from django_durable_streams import clock
from django_durable_streams.consumers import Batch, consumer
from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.store.upkeep import key_compaction
from django_durable_streams.subscriptions.consumers import cursors
from django_durable_streams.subscriptions.consumers.replaying import replay
from django_durable_streams.subscriptions.selection import Selection
from django_durable_streams.testing import run_consumers
from tests.overriding import override_streams
from tests.store.key_compaction_steps import SECOND, change, compact_keys, due, messages_of
from tests.store.test_isolation import purge_all
from tests.subscriptions.consumers.steps import json_stream, register, run, subscribed, usernames
from tests.subscriptions.steps import USING

pytestmark = pytest.mark.django_db


def test_a_consumer_handles_all_messages_of_its_streams_in_order() -> None:
    handled: list[tuple[str, Any]] = []

    @consumer("orders/**", name="billing", batch_size=2)
    def bill(batch: Batch) -> None:
        assert len(batch) <= 2
        handled.extend((message.stream, message.value) for message in batch)

    first = json_stream("orders/1", 1, 2, 3)
    json_stream("orders/2", "a")
    json_stream("refunds/1", "no")
    assert run_consumers() == 4
    assert [value for path, value in handled if path == "orders/1"] == [1, 2, 3]
    assert ("orders/2", "a") in handled
    assert run_consumers() == 0
    first.append(4)
    assert run_consumers() == 1
    assert handled[-1] == ("orders/1", 4)
    assert not SubscriptionLink.objects.filter(is_pending=True).exists()
    assert not SubscriptionLink.objects.exclude(holder="").exists()


def test_messages_that_come_while_a_stream_is_handled_need_no_other_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = []
    real = cursors.claim
    monkeypatch.setattr(cursors, "claim", lambda *arguments: claims.append(arguments) or real(*arguments))
    handled: list[int] = []

    @consumer("numbers", name="count")
    def count(batch: Batch) -> None:
        handled.extend(batch.messages)
        if handled[-1] < 3:
            Stream.objects.get(path="numbers").append(handled[-1] + 1)

    json_stream("numbers", 1)
    assert run_consumers() == 3
    assert handled == [1, 2, 3]
    assert len(claims) == 1
    link = SubscriptionLink.objects.get()
    assert (link.is_pending, link.holder) == (False, "")


def test_effects_of_a_failing_handler_are_rolled_back_with_the_cursor() -> None:
    fails = True

    @consumer("users", name="register")
    def register(batch: Batch) -> None:
        for name in batch.messages:
            get_user_model().objects.create(username=name)
        if fails:
            raise RuntimeError("on purpose")

    json_stream("users", "ann", "bob")
    with pytest.raises(RuntimeError, match="on purpose"):
        run_consumers()
    assert usernames() == []
    fails = False
    assert run_consumers() == 2
    assert usernames() == ["ann", "bob"]


def test_the_message_that_fails_is_parked_and_all_others_are_handled() -> None:
    @consumer("users", name="register", max_attempts=3)
    def register(batch: Batch) -> None:
        for name in batch.messages:
            get_user_model().objects.create(username=name)
            if name == "bad":
                raise ValueError("no such name")

    json_stream("users", "ann", "bad", "bob")
    offset = Stream.objects.get(path="users").next_offset
    assert run_consumers(raise_errors=False) == 2
    assert usernames() == ["ann", "bob"]
    (letter,) = Stream.objects.get(path="dead-letters/register").read()
    assert (letter["consumer"], letter["stream"], letter["value"]) == ("register", "users", "bad")
    assert letter["offset"] < offset
    assert letter["error"]["type"] == "ValueError"
    assert letter["error"]["message"] == "no such name"
    assert "register" in letter["error"]["traceback"]
    link = SubscriptionLink.objects.get(path="users")
    assert (link.failures, link.is_pending, link.last_error) == (0, False, "")


def test_a_stream_stops_at_the_message_that_fails() -> None:
    @consumer("users/*", name="register", max_attempts=2, on_failure="stop")
    def register(batch: Batch) -> None:
        for name in batch.messages:
            if name == "bad":
                raise ValueError("no such name")
            get_user_model().objects.create(username=name)

    json_stream("users/1", "ann", "bad", "bob")
    json_stream("users/2", "cyd")
    assert run_consumers(raise_errors=False) == 2
    assert sorted(usernames()) == ["ann", "cyd"]
    link = SubscriptionLink.objects.get(path="users/1")
    assert link.is_stopped
    assert "no such name" in link.last_error
    assert not Stream.objects.filter(path__startswith="dead-letters").exists()


def test_text_is_handled_in_whole_characters() -> None:
    handled: list[str] = []

    @consumer("notes", name="notes", batch_size=1)
    def note(batch: Batch) -> None:
        handled.extend(batch.messages)

    stream = Stream.objects.create(path="notes", content_type="text/plain")
    stream.append("a€"[:1].encode() + "€".encode()[:1])
    assert run_consumers() == 1
    assert run_consumers() == 0
    stream.append("€".encode()[1:2])
    assert run_consumers() == 0
    stream.append("€".encode()[2:] + b"b")
    assert run_consumers() == 1
    assert handled == ["a", "€b"]
    stream.append("€".encode()[:2], close=True)
    assert run_consumers() == 1
    assert handled[2:] == ["�"]


def test_a_character_that_a_close_leaves_incomplete_is_handled() -> None:
    handled: list[str] = []

    @consumer("notes", name="notes")
    def note(batch: Batch) -> None:
        handled.extend(batch.messages)

    stream = Stream.objects.create(path="notes", content_type="text/plain")
    stream.append(b"a" + "€".encode()[:2])
    assert run_consumers() == 1
    stream.close()
    assert run_consumers() == 1
    assert handled == ["a", "\ufffd"]


@pytest.mark.parametrize("is_replay", [False, True])
def test_a_cursor_that_is_set_inside_a_character_does_not_break_it(is_replay: bool) -> None:
    handled: list[str] = []

    @consumer("notes", name="notes")
    def note(batch: Batch) -> None:
        handled.extend(batch.messages)

    stream = Stream.objects.create(path="notes", content_type="text/plain")
    stream.append(b"a" + "€".encode()[:1])
    subscribed(note, from_beginning=None)
    stream.append("€".encode()[1:2])
    if is_replay:
        replay(note, Sentinel.NOW, Selection(), "default")
    assert run_consumers() == 0
    stream.append("€".encode()[2:] + b"b")
    assert run_consumers() == 1
    assert handled == ["€b"]


def test_bytes_are_handled_append_by_append() -> None:
    handled: list[bytes] = []

    @consumer("files/*", name="files")
    def take(batch: Batch) -> None:
        handled.extend(batch.messages)

    stream = Stream.objects.create(path="files/1")
    stream.append(b"\x00\xff")
    stream.append(b"x" * 2_000_000)
    assert run_consumers() == 2
    assert handled == [b"\x00\xff", b"x" * 2_000_000]


def test_small_batches_go_through_one_large_append() -> None:
    handled: list[int] = []

    @consumer("numbers", name="numbers", batch_size=7)
    def add(batch: Batch) -> None:
        handled.extend(batch.messages)

    json_stream("numbers", *range(100))
    assert run_consumers() == 100
    assert handled == list(range(100))


def test_keys_are_the_same_in_each_attempt_and_different_for_each_message() -> None:
    keys: list[list[tuple[str, str]]] = []

    @consumer("s", name="keys", batch_size=3)
    def collect(batch: Batch) -> None:
        keys.append([message.key for message in batch])
        if len(keys) == 1:
            raise RuntimeError

    json_stream("s", 1, 2, 3, 4)
    run_consumers(raise_errors=False)
    assert keys[0] == keys[1]
    assert len({*keys[1], *keys[2]}) == 4
    assert [key[1] for key in keys[1]] == sorted(key[1] for key in keys[1])


def test_an_asynchronous_handler_writes_in_the_same_transaction() -> None:
    @consumer("users", name="register")
    async def register(batch: Batch) -> None:
        for name in batch.messages:
            await get_user_model().objects.acreate(username=name)
            if name == "bad":
                raise ValueError

    stream = json_stream("users", "ann", "bad")
    with pytest.raises(ValueError):  # noqa: PT011
        run_consumers()
    assert usernames() == []
    run_consumers(raise_errors=False)
    assert usernames() == ["ann"]
    stream.append("bob")
    assert run_consumers() == 1
    assert usernames() == ["ann", "bob"]


def test_a_handler_may_append_to_streams_of_other_consumers() -> None:
    handled: list[Any] = []

    @consumer("in", name="first")
    def forward(batch: Batch) -> None:
        out, _ = Stream.objects.ensure("out", content_type="application/json")
        out.append_many([value * 2 for value in batch.messages])

    @consumer("out", name="second")
    def collect(batch: Batch) -> None:
        handled.extend(batch.messages)

    json_stream("in", 1, 2)
    assert run_consumers() == 4
    assert handled == [2, 4]


def test_a_handler_that_swallows_an_error_of_the_database_fails() -> None:
    @consumer("s", name="swallow", max_attempts=1)
    def swallow(batch: Batch) -> None:
        transaction.set_rollback(True)

    json_stream("s", 1)
    run_consumers(raise_errors=False)
    (letter,) = Stream.objects.get(path="dead-letters/swallow").read()
    assert letter["value"] == 1


def test_dead_letters_are_not_handled_by_consumers_of_all_streams() -> None:
    seen: list[str] = []

    @consumer("**", name="all", max_attempts=1)
    def fail(batch: Batch) -> None:
        seen.append(batch.stream)
        raise RuntimeError

    @consumer("**", name="too", max_attempts=1)
    def fail_too(batch: Batch) -> None:
        seen.append(batch.stream)
        raise RuntimeError

    json_stream("s", 1)
    run_consumers(raise_errors=False)
    assert set(seen) == {"s"}

    @consumer("dead-letters/**", name="watch")
    def watch(batch: Batch) -> None:
        seen.extend(json.dumps(value["consumer"]) for value in batch.messages)

    run_consumers("watch")
    assert sorted(seen[-2:]) == ['"all"', '"too"']


def test_a_stream_that_is_deleted_is_left_and_a_new_one_at_its_path_is_handled_whole() -> None:
    handled: list[int] = []

    @consumer("s", name="numbers", on_failure="stop", max_attempts=1)
    def collect(batch: Batch) -> None:
        if 13 in batch.messages:
            raise RuntimeError
        handled.extend(batch.messages)

    json_stream("s", 1, 13)
    run_consumers(raise_errors=False)
    assert SubscriptionLink.objects.get().is_stopped
    Stream.objects.all().delete()
    json_stream("s", 2, 3)
    assert run_consumers() == 2
    assert handled == [1, 2, 3]


def test_a_fork_is_handled_from_its_beginning() -> None:
    handled: list[tuple[str, int]] = []

    @consumer("s/*", name="numbers")
    def collect(batch: Batch) -> None:
        handled.extend((batch.stream, value) for value in batch.messages)

    stream = json_stream("s/1", 1, 2)
    run_consumers()
    stream.fork("s/2")
    assert run_consumers() == 2
    assert handled[2:] == [("s/2", 1), ("s/2", 2)]


def test_old_messages_reach_handlers_in_the_form_of_today() -> None:
    handled: list[Any] = []

    @consumer(
        "s",
        name="orders",
        upcasters={
            "Placed": lambda value: {"type": "Placed.v2", "total": value["price"]},
            "Placed.v2": lambda value: {**value, "type": "Placed.v3", "currency": "EUR"},
        },
    )
    def collect(batch: Batch) -> None:
        handled.extend(batch.messages)

    json_stream("s", {"type": "Placed", "price": 3}, {"type": "Other"}, 5)
    run_consumers()
    assert handled == [{"type": "Placed.v3", "total": 3, "currency": "EUR"}, {"type": "Other"}, 5]


def test_a_new_consumer_begins_at_the_ends_of_older_streams_unless_it_says_otherwise() -> None:
    handled: dict[str, list[int]] = {"new": [], "old": []}

    @consumer("s", name="new")
    def new(batch: Batch) -> None:
        handled["new"].extend(batch.messages)

    @consumer("s", name="old", start="beginning")
    def old(batch: Batch) -> None:
        handled["old"].extend(batch.messages)

    stream = json_stream("s", 1)
    for one in (new, old):
        subscribed(one, from_beginning=None)
    stream.append(2)
    run_consumers()
    assert handled == {"new": [2], "old": [1, 2]}
    assert set(Subscription.objects.values_list("kind", flat=True)) == {"consumer"}


def test_another_pattern_unlinks_old_streams_and_links_others() -> None:
    handled: list[str] = []

    def collect(batch: Batch) -> None:
        handled.append(batch.stream)

    consumer("a/*", name="c")(collect)
    json_stream("a/1", 1)
    run_consumers()
    consumer("b/*", name="c")(collect)
    Stream.objects.get(path="a/1").append(2)
    json_stream("b/1", 1)
    run_consumers()
    assert handled == ["a/1", "b/1"]


def test_a_pattern_that_comes_back_finds_the_cursors_where_they_were() -> None:
    """Two versions of the code run side by side, and the workers of both start again and again."""
    handled: list[int] = []

    def collect(batch: Batch) -> None:
        handled.extend(batch.messages)

    streams = [json_stream("a/1"), json_stream("b/1")]
    for number, pattern in enumerate(("*/*", "a/*", "*/*", "b/*", "*/*")):
        for stream in streams:
            stream.append(number)
        consumer(pattern, name="c")(collect)
        run_consumers()
    assert sorted(handled) == sorted([*range(5), *range(5)])


@pytest.mark.parametrize("is_purged", [False, True])
def test_a_stream_that_was_replaced_while_no_pattern_matched_it_is_handled_from_then_on(is_purged: bool) -> None:
    handled: list[int] = []

    def collect(batch: Batch) -> None:
        handled.extend(batch.messages)

    consumer("a/*", name="c")(collect)
    old = json_stream("a/1", 1)
    run_consumers()
    consumer("b/*", name="c")(collect)
    run_consumers()
    old.delete()
    if is_purged:
        purge_all()
    new = json_stream("a/1")
    consumer("a/*", name="c")(collect)
    run_consumers()
    new.append(2)
    run_consumers()
    assert handled == [1, 2]


@pytest.mark.parametrize("cut", [1, 2])
def test_a_fork_that_ends_where_messages_were_removed_is_handled(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_compaction, "MIN_DIRTY_BYTES", 1)
    monkeypatch.setattr(key_compaction, "DIRTY_SHARE", 1 << 40)
    source = json_stream("source", change("z", 0))
    source.append_many([change("a", 1), change("a", 2), change("a", 3)])
    offset = source.offset_at(messages_of(source)[cut].end)
    with override_streams(KEY_COMPACTION={"source": {"delay": 60, "tombstones": 3600}}):
        now = clock.to_microseconds(clock.now())
        due(now)  # notes the tail
        compact_keys(now + 61 * SECOND)
    fork = source.fork("s/fork", offset=offset)
    assert list(fork.read()) == [change("z", 0)]
    handled: list[Any] = []
    one = register(lambda batch: handled.extend(batch.messages))
    subscription_id = subscribed(one)
    assert cursors.unhandled_bytes(subscription_id, USING) == fork.tail_position
    assert run_consumers() == 1
    assert cursors.unhandled_bytes(subscription_id, USING) == 0
    assert SubscriptionLink.objects.get().acked_position == fork.tail_position
    fork.append(change("b", 1))
    assert run_consumers() == 1
    assert handled == [change("z", 0), change("b", 1)]


def test_trimmed_messages_do_not_count_as_unhandled() -> None:
    subscription_id = subscribed(register(lambda batch: None))
    stream = json_stream("s/1", 1)
    assert run_consumers() == 1
    stream.append_many([2, 3])
    stream.trim("now")
    assert cursors.unhandled_bytes(subscription_id, USING) == 0
    stream.append(4)
    assert cursors.unhandled_bytes(subscription_id, USING) == 2
    assert run_consumers() == 1
    assert cursors.unhandled_bytes(subscription_id, USING) == 0


def test_the_beginning_of_a_character_stays_unhandled_until_it_is_complete() -> None:
    handled: list[Any] = []
    one = register(lambda batch: handled.extend(batch.messages))
    stream = Stream.objects.create(path="s/1", content_type="text/plain")
    stream.append("€".encode()[:2])
    run(one)
    assert SubscriptionLink.objects.get().acked_position is None
    stream.append("€".encode()[2:] + b"x")
    run(one)
    assert "".join(handled) == "€x"
