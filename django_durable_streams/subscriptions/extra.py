"""Whether the optional packages for webhooks are installed: the extra `webhooks`. Pull-wake works without them."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

from ..protocol.subscriptions import SubscriptionError

WEBHOOKS_NOT_INSTALLED = "WEBHOOKS_NOT_INSTALLED"

PACKAGES = ("anyio", "certifi", "cryptography", "httpcore")

INSTALL = "Install django-durable-streams[webhooks]."


@lru_cache(maxsize=1)
def is_installed() -> bool:
    """Return whether this process can sign and send webhooks."""
    return all(find_spec(package) is not None for package in PACKAGES)


def require() -> None:
    """Refuse if the packages are missing.

    Raises:
        SubscriptionError: they are (501).
    """
    if not is_installed():
        raise SubscriptionError(
            WEBHOOKS_NOT_INSTALLED,
            501,
            f"This server cannot send webhooks, because packages are missing. {INSTALL} Or use type pull-wake.",
        )
