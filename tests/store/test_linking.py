"""New streams and the subscriptions that follow them: in the transaction that creates the stream."""

from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.models.stream import LinkState
from django_durable_streams.protocol.globs import Glob
from django_durable_streams.protocol.subscriptions import SubscriptionConfig
from django_durable_streams.store.operations import Append, Create, Delete
from django_durable_streams.store.upkeep import removal
from django_durable_streams.store.write import group_commit, linking
from django_durable_streams.store.write.commit_context import CommitContext
from django_durable_streams.store.write.row_cache import make_row_cache
from django_durable_streams.subscriptions import registry

pytestmark = pytest.mark.django_db

TEXT = "text/plain"


@pytest.fixture(autouse=True)
def no_cached_rules() -> None:
    linking._cached.clear()


def subscribe(name: str, pattern: str = "", *streams: str) -> Any:
    config = SubscriptionConfig("webhook", pattern, streams, "https://example.com/", "", 30_000, "")
    subscription, created = registry.create(name, config, "http://testserver/", "default")
    assert created
    return subscription


def apply(*operations: Any, context: CommitContext | None = None) -> list[Any]:
    outcomes, _ = group_commit.apply(operations, "default", context or CommitContext(), wait=context is None)
    return outcomes


def create(path: str, data: bytes = b"") -> None:
    (outcome,) = apply(Create(path, TEXT, data=data))
    assert outcome.created


def link_of(path: str) -> SubscriptionLink:
    return SubscriptionLink.objects.get(path=path)


def state_of(path: str) -> int | None:
    return Stream.objects.get(path=path).link_state


def test_a_change_compiles_the_changed_patterns_only(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def glob(text: str) -> Glob:
        compiled.append(text)
        return Glob(text)

    def created(path: str) -> tuple[set[str | None], list[str]]:
        """The subscriptions that follow a new stream, and what its creation has compiled."""
        compiled.clear()
        create(path)
        names = SubscriptionLink.objects.filter(path=path).values_list("subscription__name", flat=True)
        return set(names), sorted(compiled)

    monkeypatch.setattr(linking, "glob", glob)
    for name in ("a", "b", "c"):
        subscribe(name, f"{name}/*")
    assert created("a/1") == ({"a"}, ["a/*", "b/*", "c/*"])
    subscribe("d", "*/2")
    assert created("a/2") == ({"a", "d"}, ["*/2"])
    registry.delete("a", "default")
    assert created("a/3") == (set(), ["a/*"])
    subscribe("a", "**")
    assert created("a/4") == ({"a"}, ["**"])
    assert created("b/2") == ({"a", "b", "d"}, [])


@pytest.mark.parametrize("data", [b"", b"x"])
def test_a_new_stream_is_linked_before_its_first_message(data: bytes) -> None:
    subscription = subscribe("s", "events/*")
    create("events/a", data)
    create("others/a", data)
    link = link_of("events/a")
    assert (link.subscription_id, link.stream, link.acked_position) == (
        subscription.pk,
        Stream.objects.get(path="events/a"),
        None,
    )
    assert (link.is_glob, link.is_explicit) == (True, False)
    assert state_of("events/a") == (LinkState.UNSEEN if data else LinkState.SEEN)
    assert state_of("others/a") is None
    assert SubscriptionLink.objects.count() == 1


def test_an_append_marks_a_linked_stream_and_no_other() -> None:
    subscribe("s", "events/*")
    create("events/a")
    create("others/a")
    for path in ("events/a", "others/a"):
        apply(Append(path, TEXT, b"x"))
    assert state_of("events/a") == LinkState.UNSEEN
    assert state_of("others/a") is None


def test_many_streams_of_one_batch_are_linked() -> None:
    subscribe("s", "events/*")
    subscribe("t", "**")
    context = CommitContext()
    context.row_cache = make_row_cache("default")
    for first in (0, 100):
        apply(*(Create(f"events/{number}", TEXT) for number in range(first, first + 100)), context=context)
    assert SubscriptionLink.objects.count() == 400
    assert set(Stream.objects.values_list("link_state", flat=True)) == {LinkState.SEEN}


def test_streams_of_a_batch_are_linked_by_a_rule_that_came_after_the_last_batch() -> None:
    context = CommitContext()
    context.row_cache = make_row_cache("default")
    for name, expected in (("a", 0), ("b", 0), ("c", 30)):
        if name == "c":
            subscribe("s", "events/**")
        apply(*(Create(f"events/{name}/{number}", TEXT) for number in range(30)), context=context)
        assert SubscriptionLink.objects.count() == expected
    assert Stream.objects.count() == 90


def test_a_rule_that_was_rolled_back_links_nothing() -> None:
    subscribe("t", "other")
    with transaction.atomic():
        subscribe("s", "events/*")
        create("events/a")
        transaction.set_rollback(True)
    create("events/b")
    assert not SubscriptionLink.objects.exists()
    assert state_of("events/b") is None


def test_an_explicit_link_waits_for_its_stream() -> None:
    subscribe("s", "", "events/a")
    subscribe("t", "events/*", "events/a")
    assert list(SubscriptionLink.objects.values_list("stream", flat=True)) == [None, None]
    create("events/a", b"x")
    for link in SubscriptionLink.objects.all():
        assert (link.stream, link.is_explicit, link.acked_position) == (Stream.objects.get(), True, None)
    assert state_of("events/a") == LinkState.UNSEEN


@pytest.mark.parametrize("pattern", ["events/*", ""])
def test_a_new_stream_at_an_old_path_begins_at_its_own_beginning(pattern: str) -> None:
    subscribe("s", pattern, *(() if pattern else ("events/a",)))
    create("events/a", b"x")
    SubscriptionLink.objects.unguarded().update(acked_position=1)
    apply(Delete("events/a"))
    create("events/a", b"yz")
    link = link_of("events/a")
    assert (link.stream, link.acked_position) == (Stream.objects.get(path="events/a"), None)
    while removal.purge("default"):
        pass
    assert link_of("events/a").stream == Stream.objects.get(path="events/a")


def test_a_purge_keeps_explicit_links_only() -> None:
    subscribe("s", "events/*", "manual")
    for path in ("events/a", "manual"):
        create(path, b"x")
        apply(Delete(path))
    while removal.purge("default"):
        pass
    link = SubscriptionLink.objects.get()
    assert (link.path, link.stream_id, link.acked_position) == ("manual", None, None)
    create("manual", b"y")
    assert link_of("manual").stream == Stream.objects.get(path="manual")


def test_streams_without_links_cost_no_query_more_when_something_is_appended() -> None:
    create("others/a")
    with CaptureQueriesContext(
        connection,
    ) as before:
        apply(Append("others/a", TEXT, b"x"))
    subscribe("s", "events/*")
    with CaptureQueriesContext(connection) as after:
        apply(Append("others/a", TEXT, b"x"))
    assert len(after) == len(before)
