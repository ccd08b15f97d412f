"""Checks of what webhooks need: packages, a secret for their keys, and hosts that are worth an exemption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import connections

from ..access.webhook_hosts import allowed_hosts
from ..conf import config
from ..models import Subscription
from ..subscriptions import extra
from .requiring import needs_settings


@register(Tags.security, deploy=True)
@needs_settings
def check_webhook_key(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W024: the private keys are not encrypted."""
    if not extra.is_installed() or config().webhook_key_secret:
        return []
    return [
        Warning(
            "The private keys that sign webhooks are stored in the database without encryption.",
            hint="Set WEBHOOK_KEY_SECRET to a random text of 32 characters or more, and run `manage.py "
            "streams_rotate_key`. Silence this check if there are no webhook subscriptions.",
            id="durable_streams.W024",
        )
    ]


@register(Tags.security, deploy=True)
@needs_settings
def check_webhook_hosts(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W025: webhooks may go to every address."""
    try:
        networks = allowed_hosts(config().webhook_allowed_hosts).networks
    except ValueError:
        return []  # E004
    universal = [str(network) for network in networks if network.prefixlen == 0]
    if not universal:
        return []
    return [
        Warning(
            f"WEBHOOK_ALLOWED_HOSTS has {', '.join(universal)}, so webhooks may go to every server of your network.",
            hint="Name only the hosts or networks of the receivers.",
            id="durable_streams.W025",
        )
    ]


@register(Tags.database)
def check_webhook_packages(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W026: there are webhook subscriptions, but the packages that send webhooks are missing."""
    if extra.is_installed():
        return []
    return [
        Warning(
            f"The database {alias!r} has webhook subscriptions, but packages that send webhooks are missing.",
            hint=extra.INSTALL,
            id="durable_streams.W026",
        )
        for alias in databases or ()
        if _has_webhooks(alias)
    ]


def _has_webhooks(using: str) -> bool:
    # `migrate` runs this check before it makes the table.
    if Subscription._meta.db_table not in connections[using].introspection.table_names():
        return False
    return Subscription.objects.using(using).filter(kind=Subscription.Kind.WEBHOOK).exists()
