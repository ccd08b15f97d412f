"""What a wake tells: the body of a webhook, and the event in a wake stream (specification, section 7)."""

from __future__ import annotations

import msgspec

from .. import clock
from .leases import Wake
from .serialization import callback_url, describe_pending


def wake_event(wake: Wake) -> bytes:
    """Return the event that tells the readers of a wake stream of a wake (section 7.2)."""
    return msgspec.json.encode(
        {
            "type": "wake",
            "subscription_id": wake.subscription.name,
            "stream": wake.pending[0].path,
            "generation": wake.subscription.generation,
            "ts": clock.to_microseconds(clock.now()) // 1000,
        }
    )


def body_of(wake: Wake) -> bytes:
    """Return the body of a webhook request (section 7.1)."""
    subscription = wake.subscription
    return msgspec.json.encode(
        {
            "subscription_id": subscription.name,
            "wake_id": subscription.wake_id,
            "generation": subscription.generation,
            "streams": describe_pending(wake.pending),
            "callback_url": callback_url(subscription),
            "callback_token": wake.token,
        }
    )
