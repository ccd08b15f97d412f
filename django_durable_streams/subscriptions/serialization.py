"""Subscriptions as clients see them (specification, section 6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any
from urllib.parse import quote

from .. import clock
from ..models import Subscription
from ..protocol.paths import CONTROL_ROOT
from ..protocol.subscriptions import WEBHOOK
from ..store.read import log_reader
from . import signing_keys
from .pending import PendingLink, offset_at
from .rows import links

LINKS_PER_PART = 1000
"""Links that one call describes. Meanwhile, the thread of the subscriptions does nothing else."""


def describe(subscription: Subscription, using: str) -> dict[str, Any]:
    """Return a subscription as the answer to a GET has it, except for its links."""
    return {
        "id": subscription.name,
        "subscription_id": subscription.name,
        "type": subscription.kind,
        "pattern": subscription.pattern or None,
        "webhook": _webhook(subscription, using) if subscription.kind == WEBHOOK else None,
        "wake_stream": subscription.wake_stream or None,
        "lease_ttl_ms": subscription.lease_ms,
        "created_at": _time(subscription),
        "status": subscription.status,
        "description": subscription.description,
    }


def describe_links(subscription_id: int, after: int, using: str) -> tuple[list[dict[str, Any]], int | None]:
    """Return a part of a subscription's links: those to streams that exist, and explicit ones to others.

    Args:
        subscription_id: key of the subscription.
        after: key of the last link of the part before, or 0.
        using: alias of the database.

    Returns:
        The links, and the key of the last one if there may be more.
    """
    rows = list(links(using, subscription_id=subscription_id, pk__gt=after).order_by("pk")[:LINKS_PER_PART])
    stream_ids = [link.stream_id for link in rows if link.stream_id is not None]
    infos = log_reader.find_ids(stream_ids, using) if stream_ids else {}
    described: list[dict[str, Any]] = []
    for link in rows:
        info = infos.get(link.stream_id or 0)
        if info is None and not link.is_explicit:
            continue
        described.append(
            {
                "path": link.path,
                "link_type": "explicit" if link.is_explicit else "glob",
                "acked_offset": "-1" if info is None else offset_at(info, link.acked_position, using),
            }
        )
    return described, rows[-1].pk if len(rows) == LINKS_PER_PART else None


def describe_pending(pending: Sequence[PendingLink]) -> list[dict[str, Any]]:
    """Return pending links as webhooks and claims name them."""
    return [
        {
            "path": link.path,
            "link_type": "explicit" if link.is_explicit else "glob",
            "acked_offset": link.acked_offset,
            "tail_offset": link.tail_offset,
            "has_pending": True,
        }
        for link in pending
    ]


def callback_url(subscription: Subscription) -> str:
    """Return the URL that the receiver of a webhook calls back."""
    return f"{subscription.base_url}{CONTROL_ROOT}subscriptions/{quote(subscription.name or '', safe='')}/callback"


def _webhook(subscription: Subscription, using: str) -> dict[str, Any]:
    return {
        "url": subscription.webhook_url,
        "signing": {
            "alg": "ed25519",
            "kid": signing_keys.active_key(using).kid,
            "jwks_url": f"{subscription.base_url}{CONTROL_ROOT}jwks.json",
        },
    }


def _time(subscription: Subscription) -> str:
    moment = clock.from_project(subscription.created_at).astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
