"""Callback and claim tokens: signed, and bound to one wake of one subscription (specification, section 12.9)."""

from __future__ import annotations

from typing import Any

from django.core import signing

from ..models import Subscription
from ..protocol.subscriptions import token_expired, token_invalid

TOKEN_SECONDS = 3600
"""For how long a token is valid. A wake whose lease a worker has extended for longer is fenced, and woken again."""

_SALT = "django_durable_streams.subscription."


def make(subscription: Subscription, purpose: str) -> str:
    """Return a token for the present wake of a subscription.

    Args:
        subscription: the subscription, with the generation of the wake.
        purpose: `callback` for webhooks, `claim` for workers.
    """
    return signing.dumps([subscription.pk, subscription.generation], salt=_SALT + purpose)


def verify(token: str, purpose: str) -> tuple[int, int]:
    """Return the key of the subscription and the generation of the wake for which a token was made.

    It asks no database, so a request without a valid token costs little and learns nothing.

    Raises:
        SubscriptionError: the token is too old, or was not made here, or for another purpose (401).
    """
    try:
        content: Any = signing.loads(token, salt=_SALT + purpose, max_age=TOKEN_SECONDS)
    except signing.SignatureExpired:
        raise token_expired() from None
    except signing.BadSignature:
        raise token_invalid() from None
    key, generation = content
    return key, generation
