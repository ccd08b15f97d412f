"""The paths of WSGI requests as the server has sent them, to refuse those that are not UTF-8.

Django percent-encodes bytes that are not UTF-8 again, and replaces the path in `environ`. The URLs of `a%FF` and of
`a%25FF` would then name one stream. A receiver keeps the path before Django replaces it.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from django.core.signals import request_started
from django.http import HttpRequest

_SENT_PATH = "durable_streams.path_info"


def keep_sent_paths() -> None:
    """Keep the path of each WSGI request from now on."""
    request_started.connect(_keep, dispatch_uid="durable_streams.wsgi_paths")


def stream_path(request: HttpRequest, path: str) -> str:
    """Return the path of a stream. If the URL is not UTF-8, it has the replacement character there, as under ASGI."""
    sent: bytes = request.META.get(_SENT_PATH, "").encode("latin-1")
    decoded = sent.decode(errors="replace")
    if "\ufffd" not in decoded:
        return path
    root = request.path_info.removesuffix(path)
    return decoded[len(root) :] if decoded.startswith(root) else f"{path}\ufffd"


def _keep(environ: MutableMapping[str, Any] | None = None, **kwargs: Any) -> None:
    if environ is not None:
        environ[_SENT_PATH] = environ.get("PATH_INFO", "")
