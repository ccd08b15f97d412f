"""The clock that a test moves, and the steps of tests that call the functions of subscriptions directly."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_durable_streams import clock
from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.protocol.offsets import decode
from django_durable_streams.protocol.subscriptions import Ack, SubscriptionConfig, SubscriptionError, WakeRequest
from django_durable_streams.subscriptions import backfill, due, registry
from django_durable_streams.subscriptions.leases import Wake
from django_durable_streams.subscriptions.pending import look_at_unseen
from django_durable_streams.subscriptions.turns import Turns

USING = "default"


class Clock:
    """The time of the package, which a test moves."""

    def __init__(self) -> None:
        self.moment = clock.now()

    def __call__(self) -> Any:
        return self.moment

    def move(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def subscribe(name: str = "s", pattern: str = "events/*", *streams: str, kind: str = "webhook") -> Subscription:
    url, wake_stream = ("https://example.com/", "") if kind == "webhook" else ("", "wake")
    config = SubscriptionConfig(kind, pattern, streams, url, wake_stream, 30_000, "")
    subscription, _ = registry.create(name, config, "http://testserver/", USING)
    while not backfill.link_portion(subscription.pk, USING).is_done:
        pass
    return subscription


def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Link each existing stream in a portion of its own."""
    for bound in ("MIN_STREAMS", "MAX_STREAMS"):
        monkeypatch.setattr(backfill, bound, 1)
    monkeypatch.setattr(backfill, "_paces", {})


def wakes(limit: int = 10) -> list[Wake]:
    while look_at_unseen(USING).through:
        pass
    return due.begin_due(USING, Turns(limit))


def one_wake() -> Wake:
    (wake,) = wakes()
    return wake


def stream(path: str = "events/a", data: bytes = b"x") -> Stream:
    return Stream.objects.create(path=path, content_type="text/plain", data=data)


def request(wake: Wake, *acks: tuple[str, str], done: bool = True) -> WakeRequest:
    present = wake.subscription
    return WakeRequest(
        present.wake_id, present.generation, tuple(Ack(path, decode(offset)) for path, offset in acks), done
    )


def acked(path: str = "events/a") -> int | None:
    return SubscriptionLink.objects.get(path=path).acked_position


def refused(code: str, function: Callable[..., object], *args: object) -> None:
    with pytest.raises(SubscriptionError) as raised:
        function(*args, USING)
    assert raised.value.error_code == code
