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


def check(token: str, subscription: Subscription, purpose: str) -> int:
    """Return the generation of the wake for which a token was made.

    Raises:
        SubscriptionError: it is too old, or was not made here, or is for another subscription or purpose (401).
    """
    try:
        content: Any = signing.loads(token, salt=_SALT + purpose, max_age=TOKEN_SECONDS)
    except signing.SignatureExpired:
        raise token_expired() from None
    except signing.BadSignature:
        content = None
    match content:
        case [int(subscription_id), int(generation)] if subscription_id == subscription.pk:
            return generation
    raise token_invalid()
