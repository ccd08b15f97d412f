"""The configuration of subscriptions: create, confirm, delete, and their explicit links (specification, section 6).

Each function is one short transaction. Existing streams are linked later, in portions (`backfill`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.db import connections
from django.db.models import Q, QuerySet

from ..conf import config as settings
from ..models import Stream, Subscription, SubscriptionLink
from ..models.stream import LinkState
from ..protocol.subscriptions import (
    SubscriptionConfig,
    own_wake_stream,
    registry_as_wake_stream,
    subscription_already_exists,
)
from ..store.sql import statements
from ..store.sql.rows import slices
from .addresses import receiver_of
from .rows import change, find, links, locked, subscriptions, transaction
from .rules import changing_link_rules, locking

LINKS_PER_DELETE = 1000
"""Links of deleted subscriptions that one transaction deletes."""


def create(name: str, config: SubscriptionConfig, base_url: str, using: str) -> tuple[Subscription, bool]:
    """Create a subscription, or confirm that it exists with this configuration. Return it, and whether it is new.

    Args:
        name: its id.
        config: its configuration.
        base_url: the root of the streams in the URLs of webhooks.
        using: alias of the database.

    Raises:
        SubscriptionError: there is one with another configuration, or its wake stream is the registry of streams.
        django.db.OperationalError: a transaction that creates streams has not ended. Try again.
    """
    check_wake_stream(config.wake_stream)
    digest = config.digest()
    existing = subscriptions(using).filter(name=name).first()
    if existing is not None:
        return _confirm(existing, digest), False
    with changing_link_rules(using):
        existing = subscriptions(using).filter(name=name).first()  # the lock may have waited for its creation
        if existing is not None:
            return _confirm(existing, digest), False
        subscription = Subscription(
            name=name,
            kind=config.kind,
            pattern=config.pattern,
            webhook_url=config.webhook_url,
            receiver=receiver_of(config.webhook_url) if config.webhook_url else "",
            wake_stream=config.wake_stream,
            lease_ms=config.lease_ms,
            description=config.description,
            config_hash=digest,
            base_url=base_url,
            linked_through=0 if config.pattern else None,
        )
        streams = _lock_streams(config.streams, using)
        (subscription,) = subscriptions(using).bulk_create([subscription])
        _link_explicitly(subscription, config.streams, streams, using)
    return subscription, True


def check_wake_stream(path: str) -> None:
    """Check that wake events can be written to a stream. An empty path: there is none.

    Raises:
        SubscriptionError: the path is that of the registry of streams.
    """
    if path and path == settings().registry_path:
        raise registry_as_wake_stream()


def _confirm(existing: Subscription, digest: str) -> Subscription:
    if existing.config_hash != digest:
        raise subscription_already_exists()
    return existing


def delete(name: str, using: str) -> None:
    """Delete a subscription: nothing can use its id, its wake or its tokens any more.

    Raises:
        SubscriptionError: there is none of this name (404).
        django.db.OperationalError: a transaction that creates streams has not ended. Try again.
    """
    find(name, using)  # a request without effect changes no rules
    with changing_link_rules(using):
        subscription = _locked(name, using)
        change(subscription, using, name=None, pattern="", wake_id="", holder="", due_at=None, linked_through=None)


def delete_remains(using: str) -> bool:
    """Delete some links of deleted subscriptions, then their rows, and return whether there may be more."""
    deleted = list(Subscription.objects.using(using).filter(name__isnull=True).values_list("pk", flat=True)[:1])
    if not deleted:
        return False
    with transaction(using):
        ids = list(links(using, subscription_id__in=deleted).values_list("pk", flat=True)[:LINKS_PER_DELETE])
        if ids:
            links(using, pk__in=ids).delete()
        else:
            Subscription.objects.using(using).unguarded().filter(pk__in=deleted).delete()
    return True


def add_streams(name: str, paths: Sequence[str], using: str) -> None:
    """Link streams explicitly, at their present tails. They need not exist yet.

    Raises:
        SubscriptionError: there is no subscription of this name (404), or a stream is its own wake stream (400).
        django.db.OperationalError: a transaction that creates streams has not ended. Try again.
    """
    subscription = find(name, using)
    if subscription.wake_stream in paths:
        raise own_wake_stream()
    if _explicit_links(subscription, paths, using).count() == len(set(paths)):
        return  # a request without effect changes no rules
    with changing_link_rules(using):
        streams = _lock_streams(paths, using)  # before the subscription, as everywhere
        subscription = _locked(name, using)
        if subscription.wake_stream in paths:  # another one by now
            raise own_wake_stream()
        _link_explicitly(subscription, paths, streams, using)


def remove_stream(name: str, path: str, using: str) -> None:
    """Remove an explicit link, if there is one. The pattern may still match the stream.

    Raises:
        SubscriptionError: there is no subscription of this name (404).
        django.db.OperationalError: a transaction that creates streams has not ended. Try again.
    """
    if not _explicit_links(find(name, using), [path], using).exists():
        return  # a request without effect changes no rules
    # A transaction that creates the stream has read the link, and would insert it again.
    with changing_link_rules(using):
        explicit = _explicit_links(_locked(name, using), [path], using)
        explicit.filter(Q(is_glob=False) | Q(stream=None)).delete()
        explicit.update(is_explicit=False)


def _explicit_links(subscription: Subscription, paths: Sequence[str], using: str) -> QuerySet[SubscriptionLink]:
    """Return the explicit links of a subscription to streams at some paths."""
    return links(using, subscription=subscription, path__in=paths, is_explicit=True)


def _locked(name: str, using: str) -> Subscription:
    """Lock a subscription and return it. Called with the rules locked."""
    with locking(using):
        return find(name, using, lock=True)


def _lock_streams(paths: Sequence[str], using: str) -> dict[str | None, Stream]:
    """Lock the streams that exist at some paths, and return them by path.

    No stream can appear at one of the paths meanwhile, because its transaction waits for the lock of the link rules.
    """
    query = Stream.objects.using(using).alive().filter(path__in=paths).order_by("id")
    with locking(using):
        return {stream.path: stream for stream in locked(query, using)}


def _link_explicitly(
    subscription: Subscription, paths: Sequence[str], streams: Mapping[str | None, Stream], using: str
) -> None:
    """Insert explicit links, or mark existing links as explicit. Called with the rules and the streams locked."""
    wanted = [
        SubscriptionLink(
            subscription=subscription,
            path=path,
            stream=streams.get(path),
            is_explicit=True,
            acked_position=streams[path].tail_position if path in streams else None,
        )
        for path in dict.fromkeys(paths)
    ]
    add_links(subscription, wanted, using, is_explicit=True)


def add_links(subscription: Subscription, wanted: Sequence[SubscriptionLink], using: str, **kind: bool) -> None:
    """Insert those links that are missing, and set `kind` in the others. Called with the rows of the streams locked.

    Appends to the streams mark them from now on.
    """
    existing = links(using, subscription=subscription, path__in=[link.path for link in wanted])
    wanted_ids = {link.path: link.stream_id for link in wanted if link.stream_id is not None}
    # A consumer's link that its pattern did not match for a while may have an earlier stream at the path.
    outdated = [link.pk for link in existing if link.stream_id != wanted_ids.get(link.path, link.stream_id)]
    links(using, pk__in=outdated).delete()
    linked_paths = set(existing.values_list("path", flat=True))
    existing.update(**kind)
    links(using).bulk_create([link for link in wanted if link.path not in linked_paths])
    _mark_linked([link.stream_id for link in wanted if link.stream_id is not None], using)


def link_new(subscription: Subscription, stream_ids: Sequence[int], using: str) -> None:
    """Insert links to streams that the pattern matches. Called with their rows locked. None of them has a link yet.

    One statement: very many links are inserted, and building them here would take the interpreter from requests.
    """
    sql = statements(using)
    with connections[using].cursor() as cursor:
        for slice_ids in slices(stream_ids):
            sql.link_matching(cursor, subscription.pk, slice_ids, from_beginning=subscription.from_beginning)
    _mark_linked(stream_ids, using)


def _mark_linked(stream_ids: Sequence[int], using: str) -> None:
    present = Stream.objects.using(using).unguarded().filter(pk__in=stream_ids, path__isnull=False)
    rows = present.filter(link_state__isnull=True)
    rows.update(link_state=LinkState.SEEN)
