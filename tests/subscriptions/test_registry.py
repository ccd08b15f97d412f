"""The configuration of subscriptions and their links: which requests change the rules for links, and what they cost."""

import pytest

from django_durable_streams.models import DatabaseIdentity, Stream, Subscription, SubscriptionLink
from django_durable_streams.store.upkeep import removal
from django_durable_streams.subscriptions import backfill, registry
from tests.subscriptions.steps import USING, refused, stream, subscribe

pytestmark = pytest.mark.django_db


def rules_version() -> int:
    return DatabaseIdentity.objects.get().link_rules_version


def test_requests_without_effect_change_no_rules() -> None:
    """Each change has all creates wait for a moment, and all processes read the rules again."""
    subscribe("s", "events/*", "a", "b")
    before = rules_version()
    subscribe("s", "events/*", "a", "b")
    registry.add_streams("s", ["a", "b", "a"], USING)
    registry.remove_stream("s", "c", USING)
    refused("SUBSCRIPTION_NOT_FOUND", registry.add_streams, "t", ["a"])
    refused("SUBSCRIPTION_NOT_FOUND", registry.remove_stream, "t", "a")
    refused("SUBSCRIPTION_NOT_FOUND", registry.delete, "t")
    assert rules_version() == before
    registry.add_streams("s", ["b", "c"], USING)
    assert rules_version() != before


def test_a_link_by_the_pattern_becomes_explicit_too() -> None:
    subscribe("s", "events/*")
    stream()
    registry.add_streams("s", ["events/a"], USING)
    registry.remove_stream("s", "events/a", USING)
    link = SubscriptionLink.objects.get()
    assert (link.is_explicit, link.is_glob) == (False, True)


def test_a_portion_reads_few_streams_however_few_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """On SQLite appends wait for it, and everywhere the other requests of the process."""
    monkeypatch.setattr(backfill, "PORTION_SCANNED", 10)
    monkeypatch.setattr(backfill, "MAX_REST_SECONDS", 0.0)
    streams = [stream(f"others/{number}", b"") for number in range(50)]
    stream("events/a")
    for one in streams[5:40]:
        one.delete()
    while removal.purge(USING):
        pass
    assert Stream.objects.count() == 16
    subscription = Subscription.objects.get(pk=subscribe("s", "events/*").pk)
    SubscriptionLink.objects.unguarded().delete()
    Subscription.objects.unguarded().update(linked_through=0)
    portions = 0
    while not backfill.link_portion(subscription.pk, USING).is_done:
        assert not SubscriptionLink.objects.exists() or portions > 1
        portions += 1
    assert portions == 3  # two with ten of others, one with the rest
    assert SubscriptionLink.objects.get().path == "events/a"
