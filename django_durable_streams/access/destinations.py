"""Refuses and logs reads by which a browser would run a stream as code. Knows no user and no permission."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..protocol import browsers
from ..protocol.errors import PermissionDenied
from ..runtime.printable import loggable
from .access_request import AccessRequest

if TYPE_CHECKING:
    from ..protocol.messages import Request

logger = logging.getLogger("django_durable_streams.access")


def check_destination(request: Request) -> None:
    """Check that a browser does not request a stream as a page's script, worker or stylesheet.

    Raises:
        PermissionDenied: the browser would run the stream as code (403).
    """
    try:
        browsers.check_destination(request.headers)
    except PermissionDenied:
        access_request = AccessRequest(request)
        logger.warning(
            "read of %s is refused at %s. A page wants to run the stream as code (Sec-Fetch-Dest, Service-Worker).",
            loggable(request.path), loggable(access_request.address), extra=access_request.log_fields,
        )  # fmt: skip
        raise
