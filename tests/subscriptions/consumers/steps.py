"""The steps of tests that run consumers without the command."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth import get_user_model

from django_durable_streams.consumers import Batch, Consumer, consumer
from django_durable_streams.models import Stream
from django_durable_streams.subscriptions.consumers import cursors
from django_durable_streams.subscriptions.consumers.cursors import Claim
from django_durable_streams.subscriptions.consumers.runner import Runner
from django_durable_streams.subscriptions.consumers.subscribing import link_existing, subscribe
from django_durable_streams.subscriptions.pending import look_at_unseen
from tests.subscriptions.steps import USING

SECONDS = 60


def json_stream(path: str = "s/1", *values: Any) -> Stream:
    stream = Stream.objects.create(path=path, content_type="application/json")
    if values:
        stream.append_many(values)
    return stream


def register(handler: Callable[[Batch], Any], **options: Any) -> Consumer:
    return consumer("s/*", name="c", **options)(handler)


def subscribed(one: Consumer, *, from_beginning: bool | None = True) -> int:
    """Link all streams of a consumer, each from its beginning, and return the key of its subscription.

    With `from_beginning=None` they begin where the consumer says.
    """
    subscription_id = subscribe(one, USING, from_beginning=from_beginning)
    while not link_existing(subscription_id, USING).is_done:
        pass
    return subscription_id


def runner(one: Consumer, **options: Any) -> Runner:
    return Runner({subscribed(one): one}, USING, **options)


def run(one: Consumer, **options: Any) -> None:
    """Handle what can be handled now."""
    worker = runner(one, **options)
    while worker.step():
        pass


def take(one: Consumer) -> Claim:
    """Take the stream as a worker that then vanishes."""
    subscription_id = subscribed(one)
    look_at_unseen(USING)
    (link,) = cursors.claimable(subscription_id, USING, 0, 10)
    claim = cursors.claim(link, one.lease, USING)
    assert claim is not None
    return claim


def usernames() -> list[str]:
    """The effects of a handler that creates users, in their order."""
    return list(get_user_model().objects.order_by("pk").values_list("username", flat=True))


def letters(path: str = "dead-letters/c") -> list[Any]:
    """The messages that were parked."""
    stream = Stream.objects.filter(path=path).first()
    return [] if stream is None else [letter["value"] for letter in stream.read()]
