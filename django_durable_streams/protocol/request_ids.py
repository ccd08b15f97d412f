"""The id of a request in log messages: the one that a proxy or a client has sent, or a new one. Does not log."""

from __future__ import annotations

import re
import secrets
from typing import Any

from .messages import Request

REQUEST_ID = b"x-request-id"

_VALID_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id(request: Request) -> str:
    """Return the id of a request: its `X-Request-ID` if that is valid, and otherwise a new one, which it keeps."""
    sent = request.headers.get(REQUEST_ID, b"")
    if _VALID_ID.fullmatch(sent):
        return sent.decode("ascii")
    made_id: str | None = getattr(request, "made_id", None)
    if made_id is None:
        made_id = request.made_id = secrets.token_hex(16)
    return made_id


def log_fields(request: Request) -> dict[str, Any]:
    """Return the attributes of a log record about a request, for `extra`."""
    return {"request_id": request_id(request), "method": request.method[:32], "stream_path": request.path}
