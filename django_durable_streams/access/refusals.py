"""The line in the log about a refused request, the same for streams and for chats. Decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..runtime.printable import loggable
from .users import User

logger = logging.getLogger("django_durable_streams.access")


def log_refusal(
    action: str, path: str, user: User, address: str, reasons: Iterable[str], fields: Mapping[str, Any]
) -> None:
    """Log a refused request.

    Args:
        action: the refused action, such as `read`.
        path: the path of a stream, the id of a subscription, or the prefix of a listing.
        user: the user as the server sees it. None counts as anonymous.
        address: the client's address.
        reasons: sentences without secrets and line breaks.
        fields: attributes for the log record.
    """
    name = user.pk if getattr(user, "is_authenticated", False) else "anonymous"
    logger.warning(
        "%s of %s is refused to user %s at %s.%s", action, loggable(path), name,
        loggable(address), "".join(f" {reason}" for reason in reasons), extra=fields,
    )  # fmt: skip
