"""Subscriptions and transactions of others: none waits long for another, and nothing is missed."""

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

import pytest
from django.db import OperationalError, connection, transaction

from django_durable_streams.models import Producer, Stream, Subscription, SubscriptionLink
from django_durable_streams.protocol.subscriptions import SubscriptionConfig, WakeRequest
from django_durable_streams.runtime.database_errors import FailureKind, diagnose
from django_durable_streams.store.upkeep import removal
from django_durable_streams.store.write import linking
from django_durable_streams.subscriptions import backfill, delivery, due, leases, outcomes, registry, rules
from django_durable_streams.subscriptions.pending import look_at_unseen
from django_durable_streams.subscriptions.turns import Turns
from tests.store.test_isolation import LEVELS, elsewhere, isolated
from tests.subscriptions.steps import USING, one_at_a_time, one_wake, request, stream, subscribe, wakes

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time"),
]


def busy(work: Callable[[], object]) -> Callable[[], None]:
    """A function that has to fail at once, because another transaction holds a lock."""

    def attempt() -> None:
        with pytest.raises(OperationalError) as raised:
            work()
        assert diagnose(raised.value) is FailureKind.BUSY

    return attempt


def hold(**conditions: object) -> None:
    assert Stream.objects.select_for_update().filter(**conditions).get()


@pytest.mark.parametrize("others", [0, 1])
def test_a_look_at_a_stream_that_another_transaction_holds_is_repeated_soon(others: int) -> None:
    """No message tells when the other one is over, and the next regular look is seconds later."""
    works: list[delivery.DueWork | None] = []
    subscribe()
    streams = [stream(f"events/{number}") for number in range(1 + others)]
    with transaction.atomic():
        hold(pk=streams[0].pk)
        elsewhere(lambda: works.append(delivery.look(USING, Turns(0))))
    (work,) = works
    assert work is not None
    assert work.due_in is not None
    assert work.due_in <= delivery.BUSY_PAUSE
    assert look_at_unseen(USING) == (0, False)


@pytest.mark.parametrize("level", LEVELS[:2])  # on MariaDB all reads of a serializable transaction lock
def test_a_transaction_with_old_rules_stops_no_delivery(level: str) -> None:
    first = stream("events/first", b"")
    subscribe()
    first.append(b"x")
    linking._cached.clear()
    with isolated(level), transaction.atomic():
        stream("events/a")
        elsewhere(deliver_first)
    assert [link.path for link in one_wake().pending] == ["events/a"]


def deliver_first() -> None:
    wake = one_wake()
    assert [link.path for link in wake.pending] == ["events/first"]
    outcomes.finish_delivery(wake, USING)


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_a_stream_that_is_created_in_an_older_snapshot_is_linked(level: str, explicit: bool) -> None:
    stream("others/a")  # the rules of before are cached
    try:
        with isolated(level), transaction.atomic():
            list(Producer.objects.all())  # from here on the transaction has its snapshot
            elsewhere(lambda: subscribe("s", "", "events/a") if explicit else subscribe("s", "events/*"))
            stream()
    except OperationalError:  # the database refuses the transaction, which may be done again
        assert level != "READ COMMITTED"
        stream()
    assert [link.path for link in one_wake().pending] == ["events/a"]


def test_a_transaction_that_takes_a_path_again_stops_nothing() -> None:
    subscribe("s", "events/*")
    subscribe("p", "events/*", "events/a", kind="pull-wake")
    first, other = stream(), stream("events/b")
    (wake,) = (wake for wake in wakes() if wake.subscription.name == "s")
    claimed = leases.claim("p", "w", USING)
    first.delete()
    other.append(b"y")

    def do_all() -> None:
        outcomes.finish_delivery(wake, USING)
        (following,) = wakes()
        assert [(link.path, link.tail) for link in following.pending] == [("events/b", 2)]
        body = WakeRequest(claimed["wake_id"], claimed["generation"], (), True)
        leases.ack("p", claimed["token"], body, USING)
        while removal.purge_data(USING, removal.removed(USING)):
            pass
        removal.purge_streams(USING, removal.removed(USING))

    with transaction.atomic():
        stream(data=b"new")
        elsewhere(lambda: limited(do_all))
    for link in SubscriptionLink.objects.filter(path="events/a"):
        assert (link.stream, link.acked_position) == (Stream.objects.get(path="events/a"), None)
    while removal.purge(USING):
        pass
    assert SubscriptionLink.objects.filter(path="events/a").count() == 2
    assert Stream.objects.count() == 2
    assert [link.path for wake in wakes() for link in wake.pending if link.path == "events/a"] == ["events/a"]


def test_an_acknowledgement_of_such_a_stream_does_not_wait() -> None:
    subscribe()
    first = stream()
    wake = one_wake()
    first.delete()
    body = request(wake, ("events/a", wake.pending[0].tail_offset))
    with transaction.atomic():
        stream(data=b"new")
        elsewhere(busy(lambda: leases.callback("s", wake.token, body, USING)))


def test_an_explicit_link_that_was_removed_does_not_come_back_with_its_stream() -> None:
    subscribe("s", "", "events/a")
    with transaction.atomic():
        stream()
        elsewhere(busy(lambda: limited(lambda: registry.remove_stream("s", "events/a", USING))))
    registry.remove_stream("s", "events/a", USING)
    assert not SubscriptionLink.objects.exists()


def limited(work: Callable[[], object]) -> None:
    """Do something over a connection that waits for locks as the service's does."""
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
    work()


def test_a_wake_that_ends_while_an_append_is_not_committed_is_followed_by_another() -> None:
    subscribe()
    first = stream()
    wake = one_wake()
    with transaction.atomic():
        first.append(b"y")
        elsewhere(lambda: outcomes.finish_delivery(wake, USING))
        elsewhere(lambda: [look_at_unseen(USING), due.begin_due(USING, Turns(1))])
    assert one_wake().pending[0].tail == 2


def test_a_portion_leaves_out_a_stream_that_another_transaction_holds() -> None:
    first, second = stream(), stream("events/b")
    with transaction.atomic():
        first.append(b"y")
        elsewhere(subscribe_without_links)
        elsewhere(lambda: backfill.link_portion(Subscription.objects.get().pk, USING))
    while not backfill.link_portion(Subscription.objects.get().pk, USING).is_done:
        pass
    assert wakes() == []
    assert set(SubscriptionLink.objects.values_list("stream", "acked_position")) == {(first.pk, 2), (second.pk, 1)}
    first.append(b"z")
    assert [link.path for link in one_wake().pending] == ["events/a"]


def held_streams_and_others(monkeypatch: pytest.MonkeyPatch) -> int:
    """A new subscription to four streams, each in a portion of its own. Returns its key."""
    for name in "abcd":
        stream(f"events/{name}")
    subscribe_without_links()
    one_at_a_time(monkeypatch)
    monkeypatch.setattr(backfill, "MAX_REST_SECONDS", 0.0)
    return Subscription.objects.get().pk


def link_portions(key: int, count: int) -> list[backfill.Progress]:
    return [backfill.link_portion(key, USING) for _ in range(count)]


@pytest.mark.parametrize(("held", "limit"), [("a", 100), ("ac", 100), ("abcd", 100), ("ab", 1)])
def test_a_long_transaction_on_some_streams_stops_the_links_of_no_others(
    held: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = held_streams_and_others(monkeypatch)
    monkeypatch.setattr(backfill, "MAX_SKIPPED", limit)
    free = {f"events/{name}" for name in "abcd" if name not in held}
    with transaction.atomic():
        for name in held:
            Stream.objects.get(path=f"events/{name}").append(b"y")
        elsewhere(lambda: link_portions(key, 8))
        linked = SubscriptionLink.objects.using(USING).values_list("path", flat=True)
        assert {*linked} == (free if limit > 1 else set())
        assert elsewhere_progress(key).is_held_up
    link_portions(key, 8)
    positions = {f"events/{name}": 2 if name in held else 1 for name in "abcd"}
    assert dict(SubscriptionLink.objects.values_list("path", "acked_position")) == positions
    assert Subscription.objects.get().linked_through is None
    assert wakes() == []


def elsewhere_progress(key: int) -> backfill.Progress:
    progress: list[backfill.Progress] = []
    elsewhere(lambda: progress.extend(link_portions(key, 1)))
    return progress[0]


@pytest.mark.parametrize("purged", [False, True])
def test_a_held_stream_that_is_deleted_ends_the_wait_for_it(purged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    key = held_streams_and_others(monkeypatch)
    with transaction.atomic():
        Stream.objects.get(path="events/a").delete()
        elsewhere(lambda: link_portions(key, 8))
    while purged and removal.purge(USING):
        pass
    stream("events/a")
    link_portions(key, 8)
    assert Subscription.objects.get().linked_through is None
    positions = dict(SubscriptionLink.objects.values_list("path", "acked_position"))
    assert positions == {"events/a": None, "events/b": 1, "events/c": 1, "events/d": 1}


def test_a_pattern_that_was_changed_and_changed_back_is_compared_with_all_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As by two versions of a consumer. The links that were retired meanwhile count again."""
    key = held_streams_and_others(monkeypatch)
    with transaction.atomic():
        Stream.objects.get(path="events/b").append(b"y")
        elsewhere(lambda: link_portions(key, 8))
        elsewhere(lambda: change_and_change_back(key))
    link_portions(key, 8)
    assert Subscription.objects.get().linked_through is None
    links = SubscriptionLink.objects.values_list("path", "acked_position", "is_glob")
    assert {*links} == {(f"events/{name}", 2 if name == "b" else 1, True) for name in "abcd"}


def change_and_change_back(key: int) -> None:
    """Change the pattern twice. Another process links the stream before the one that is held then."""
    for pattern in ("others/*", "events/*"):
        with rules.changing_link_rules(USING):
            Subscription.objects.unguarded().filter(pk=key).update(pattern=pattern, linked_through=0)
            SubscriptionLink.objects.unguarded().update(is_glob=False)
    paces, backfill._paces = backfill._paces, {}
    link_portions(key, 1)
    backfill._paces = paces


def test_another_process_goes_on_before_the_streams_that_this_one_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was passed is known to one process only, which may be killed."""
    key = held_streams_and_others(monkeypatch)
    with transaction.atomic():
        Stream.objects.get(path="events/b").append(b"y")
        elsewhere(lambda: link_portions(key, 8))
    monkeypatch.setattr(backfill, "_paces", {})
    link_portions(key, 8)
    assert Subscription.objects.get().linked_through is None
    positions = dict(SubscriptionLink.objects.values_list("path", "acked_position"))
    assert positions == {"events/a": 1, "events/b": 2, "events/c": 1, "events/d": 1}


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A step that links a portion as often as the row of the subscription may be held until the next one waits."""
    stream()
    subscribe_without_links()
    monkeypatch.setattr(backfill, "_paces", {})
    monkeypatch.setattr(backfill, "MAX_REST_SECONDS", 0.0)

    def link() -> None:
        for _ in range(backfill.WAIT_AFTER):
            assert backfill.link_portion(Subscription.objects.get().pk, USING).is_held_up

    return link


def test_a_portion_that_was_held_up_again_and_again_waits_in_the_queue(
    held_up: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers of a busy consumer hold the row of the subscription one after the other, without a gap."""
    monkeypatch.setattr(backfill, "WAIT_MS", 60_000)
    linked: list[backfill.Progress] = []
    key = Subscription.objects.get().pk
    waiting = Thread(target=lambda: elsewhere(lambda: linked.append(backfill.link_portion(key, USING))))
    with transaction.atomic():
        assert Subscription.objects.select_for_update().get()
        elsewhere(held_up)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join()
    assert not linked[0].is_held_up
    assert SubscriptionLink.objects.get().path == "events/a"


def test_a_portion_waits_for_a_limited_time(held_up: Callable[[], None]) -> None:
    with transaction.atomic():
        assert Subscription.objects.select_for_update().get()
        elsewhere(held_up)
        elsewhere(held_up)  # the first of these has waited
    assert not backfill.link_portion(Subscription.objects.get().pk, USING).is_held_up
    assert SubscriptionLink.objects.get().path == "events/a"


@pytest.mark.parametrize("holds", ["the rules", "a stream"])
@pytest.mark.parametrize("change", ["create", "add", "remove", "delete"])
def test_a_change_of_the_rules_that_has_to_wait_does_not_stop_creates(change: str, holds: str) -> None:
    """A transaction that creates streams, or holds one that is to be linked, may last. Creates wait for the change."""
    first = stream()
    subscribe("s", "", "events/x")
    changes: dict[str, Callable[[], object]] = {
        "create": lambda: subscribe("t", "", "events/a"),
        "add": lambda: registry.add_streams("s", ["events/a"], USING),
        "remove": lambda: registry.remove_stream("s", "events/x", USING),
        "delete": lambda: registry.delete("s", USING),
    }
    if holds == "a stream" and change in ("remove", "delete"):
        pytest.skip("it needs no stream")
    seconds = []
    with transaction.atomic():
        if holds == "the rules":
            stream("events/new")
        else:
            first.append(b"y")
        for _ in range(3):
            began = time.monotonic()
            elsewhere(busy(lambda: limited(changes[change])))
            seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.5  # MariaDB counts whole seconds
    changes[change]()


def test_creates_queue_behind_a_change_of_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transactions that create streams overlap without end, the rules would otherwise never change."""
    monkeypatch.setattr(rules, "LOCK_MS", 10_000)
    stream("others/first")
    changing = Thread(target=lambda: elsewhere(lambda: subscribe("s", "", "events/a")))
    creating = Thread(target=lambda: elsewhere(stream))
    with transaction.atomic():
        stream("others/second")
        changing.start()
        changing.join(0.3)
        assert changing.is_alive()
        creating.start()
        creating.join(0.3)
        assert creating.is_alive()
    changing.join()
    creating.join()
    assert SubscriptionLink.objects.get().stream == Stream.objects.get(path="events/a")


def test_the_delivery_sees_what_was_committed_while_it_waited_for_a_lock() -> None:
    """At REPEATABLE READ it would see the link as it was before, and lose the wake of the second append."""
    subscribe()
    first = stream()
    wake = one_wake()
    looking: list[Thread] = []
    acks = request(wake, ("events/a", first.next_offset))

    def look() -> None:
        with isolated("REPEATABLE READ"):
            look_at_unseen(USING)

    with transaction.atomic():
        assert leases.callback("s", wake.token, acks, USING) is False
        elsewhere(lambda: Stream.objects.get(path="events/a").append(b"y"))
        looking.append(Thread(target=lambda: elsewhere(look)))
        looking[0].start()
        looking[0].join(0.2)
        assert looking[0].is_alive()  # it waits for the row of the subscription
    looking[0].join()
    assert [link.tail for link in one_wake().pending] == [2]


def subscribe_without_links() -> None:
    config = SubscriptionConfig("webhook", "events/*", (), "https://example.com/", "", 30_000, "")
    registry.create("s", config, "http://testserver/", USING)


def test_a_transaction_that_appends_and_then_creates_outlives_a_change_of_the_rules() -> None:
    """The change holds the rules and waits for the stream, and the transaction holds the stream and waits for them."""
    first = stream()
    subscribe("s", "", "other")

    def add() -> None:
        with suppress(OperationalError):
            limited(lambda: registry.add_streams("s", ["events/a"], USING))

    with transaction.atomic():
        first.append(b"y")
        adding = Thread(target=lambda: elsewhere(add))
        adding.start()
        adding.join(0.02)
        stream("events/b")
    adding.join()
    assert first.read() is not None
    assert Stream.objects.count() == 2
