"""URLs that carry their own permission, signed with SECRET_KEY."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from django.core.signals import setting_changed
from django.core.signing import BadSignature, Signer
from django.utils.http import urlencode

from ..links import stream_url
from ..protocol import paths
from .access_request import AccessRequest
from .base import ACTIONS, Action, Permission
from .users import User

PARAMETER = "token"
"""The query parameter that carries the signature."""

SALT = "django_durable_streams.signed_url"

_TOKEN = re.compile(r"([a-z]+(?:-[a-z]+)*)\.([0-9]{1,12})\.([A-Za-z0-9_-]{20,100})")

MAX_REMEMBERED = 4096
"""Good tokens that a process remembers, so as not to compute their signatures again."""


def sign(path: str, *actions: str, expires: float | timedelta | datetime) -> str:
    """Return a token for a stream.

    Args:
        path: of the stream, relative to the root of the streams; not percent-encoded.
        actions: what the token allows: some of create, read, append, close, delete.
        expires: when it ends: an aware datetime, or how long from now, in seconds or as a timedelta.

    Raises:
        ValueError: no action, or one that means nothing.
        InvalidPath: no stream can have this path.
    """
    if not actions or not set(actions) <= set(ACTIONS):
        raise ValueError(f"A signed URL is for some of: {', '.join(ACTIONS)}.")
    if isinstance(expires, datetime):
        moment = expires.timestamp()
    else:
        moment = time.time() + (expires.total_seconds() if isinstance(expires, timedelta) else expires)
    allowed, until = "-".join(dict.fromkeys(actions)), str(int(moment))
    signature = _signer().signature(_message(allowed, until, paths.validate(path)))
    return f"{allowed}.{until}.{signature}"


def signed_url(path: str, *actions: str, expires: float | timedelta | datetime, root: str | None = None) -> str:
    """Return a URL of a stream that whoever has it may use, until it expires; relative to the host.

    Takes the arguments of `sign` and:
        root: URL of the root of the streams, with a slash at its end. By default as in `links.stream_url`.

    Raises: as `sign`.
    """
    token = sign(path, *actions, expires=expires)
    url = stream_url(path) if root is None else root + quote(path)
    return f"{url}?{urlencode({PARAMETER: token})}"


class SignedURLs(Permission):
    """Whoever comes with a signature for this stream and action, unexpired, may do it, logged in or not."""

    in_memory = True
    needs_user = False
    varies_on = ()

    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.CREATE, path, request)

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.READ, path, request)

    def can_append(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.APPEND, path, request)

    def can_close(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.CLOSE, path, request)

    def can_delete(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.DELETE, path, request)


_remembered: dict[tuple[str, str], tuple[frozenset[Action], int]] = {}


def _allows(action: Action, path: str, request: AccessRequest) -> bool:
    token = request.parameter(PARAMETER)
    if token is None:
        return False
    key = path, token
    known = _remembered.get(key)
    if known is None:
        known = _verify(path, token)
        if known is None:
            return False
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[key] = known
    actions, until = known
    if action not in actions or time.time() >= until:
        return False
    request.until(until)
    return True


def _verify(path: str, token: str) -> tuple[frozenset[Action], int] | None:
    """Return the actions that a token allows and its end, or None where it is not from here."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    allowed, until, signature = found.groups()
    signer = _signer()
    try:
        # Compares in constant time, and knows SECRET_KEY_FALLBACKS.
        signer.unsign(f"{_message(allowed, until, path)}{signer.sep}{signature}")
    except BadSignature:
        return None
    return frozenset(map(Action, allowed.split("-"))), int(until)


def _message(allowed: str, until: str, path: str) -> str:
    return f"{allowed}.{until}.{path}"


def _signer() -> Signer:
    return Signer(salt=SALT)


def _forget(**kwargs: Any) -> None:
    _remembered.clear()


setting_changed.connect(_forget, dispatch_uid="durable_streams.signed")
