"""Subscriptions as clients see them (specification, section 6.3)."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from .. import clock
from ..models import Subscription
from ..protocol.subscriptions import WEBHOOK
from ..store.read import log_reader
from . import signing_keys
from .pending import offset_at
from .rows import links

CONTROL_PATH = "__ds/"
"""Root of the control APIs, relative to the root of the streams."""

LINKS_PER_QUERY = 1000


def describe(subscription: Subscription, using: str) -> dict[str, Any]:
    """Return a subscription with its links, as the answer to a GET has it."""
    return {
        "id": subscription.name,
        "subscription_id": subscription.name,
        "type": subscription.kind,
        "pattern": subscription.pattern or None,
        "streams": _links(subscription, using),
        "webhook": _webhook(subscription, using) if subscription.kind == WEBHOOK else None,
        "wake_stream": subscription.wake_stream or None,
        "lease_ttl_ms": subscription.lease_ms,
        "created_at": _time(subscription),
        "status": subscription.status,
        "description": subscription.description,
    }


def _webhook(subscription: Subscription, using: str) -> dict[str, Any]:
    return {
        "url": subscription.webhook_url,
        "signing": {
            "alg": "ed25519",
            "kid": signing_keys.active_key(using).kid,
            "jwks_url": f"{subscription.base_url}{CONTROL_PATH}jwks.json",
        },
    }


def _links(subscription: Subscription, using: str) -> list[dict[str, Any]]:
    """Return all links to streams that exist, and the explicit ones to others."""
    described: list[dict[str, Any]] = []
    after = 0
    while True:
        rows = list(links(using, subscription=subscription, pk__gt=after).order_by("pk")[:LINKS_PER_QUERY])
        stream_ids = [link.stream_id for link in rows if link.stream_id is not None]
        infos = log_reader.find_ids(stream_ids, using) if stream_ids else {}
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
        if len(rows) < LINKS_PER_QUERY:
            return described
        after = rows[-1].pk


def _time(subscription: Subscription) -> str:
    moment = clock.from_project(subscription.created_at).astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
