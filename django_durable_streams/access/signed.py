"""URLs that carry their own permission, signed with `SECRET_KEY`."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from django.core.signals import setting_changed
from django.core.signing import BadSignature, Signer
from django.utils.http import urlencode

from ..links import stream_url
from ..protocol import paths
from ..runtime.bounded_cache import BoundedCache
from .access_request import AccessRequest
from .base import STREAM_ACTIONS, Action, Permission, by_token
from .users import User

PARAMETER = "token"
"""The query parameter that carries the signature."""

SALT = "django_durable_streams.signed_url"

_TOKEN = re.compile(r"([a-z]+(?:-[a-z]+)*)\.([0-9]{1,12})\.([A-Za-z0-9_-]{20,100})")

_MALFORMED = "The token of the URL is not one of a signed URL. It may have been cut off."
_WRONG_SIGNATURE = "The signature of the URL is wrong: it is for another path, or was made with another SECRET_KEY."

MAX_VERIFIED_TOKENS = 4096
"""Valid tokens in the cache of a process, whose signatures are not computed again."""

MAX_VERIFIED_BYTES = 2 * 1024 * 1024
"""Characters of all tokens in that cache, and of their paths."""


def sign(path: str, *actions: str, expires: float | timedelta | datetime) -> str:
    """Return a token for a stream.

    Args:
        path: the stream's path, relative to the root of the streams, not percent-encoded.
        actions: the actions that the token allows: create, read, append, close, delete.
        expires: the end of the token: an aware datetime, or the time from now, in seconds or as a timedelta.

    Raises:
        ValueError: there is no action, or an unknown one.
        InvalidPath: no stream can have this path.
    """
    if not actions or not set(actions) <= set(STREAM_ACTIONS):
        raise ValueError(f"A signed URL needs one or more of these actions: {', '.join(STREAM_ACTIONS)}.")
    if isinstance(expires, datetime):
        moment = expires.timestamp()
    else:
        moment = time.time() + (expires.total_seconds() if isinstance(expires, timedelta) else expires)
    allowed, until = "-".join(dict.fromkeys(actions)), str(int(moment))
    signature = _signer().signature(_message(allowed, until, paths.validate(path)))
    return f"{allowed}.{until}.{signature}"


def signed_url(path: str, *actions: str, expires: float | timedelta | datetime, root: str | None = None) -> str:
    """Return the URL of a stream with a token, relative to the host. Everybody who has the URL may use it.

    Args:
        path, actions, expires: as for `sign`.
        root: the URL of the root of the streams, with a slash at its end. None: as in `links.stream_url`.

    Raises:
        ValueError, InvalidPath: as for `sign`.
    """
    token = sign(path, *actions, expires=expires)
    url = stream_url(path) if root is None else root + quote(path)
    return f"{url}?{urlencode({PARAMETER: token})}"


class SignedURLs(Permission):
    """Allows the actions of a valid token for the stream, whether or not the user is logged in.

    It allows no subscriptions, which may follow any stream.
    """

    in_memory = True
    needs_user = False
    varies_on = ()

    @by_token
    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.CREATE, path, request)

    @by_token
    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.READ, path, request)

    @by_token
    def can_append(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.APPEND, path, request)

    @by_token
    def can_close(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.CLOSE, path, request)

    @by_token
    def can_delete(self, user: User, path: str, request: AccessRequest) -> bool:
        return _allows(Action.DELETE, path, request)


_Key = tuple[str, str]
_verified = BoundedCache[_Key, tuple[frozenset[Action], int]](
    MAX_VERIFIED_TOKENS, max_bytes=MAX_VERIFIED_BYTES, size_of=lambda key: len(key[0]) + len(key[1])
)


def _allows(action: Action, path: str, request: AccessRequest) -> bool:
    token = request.parameter(PARAMETER)
    if token is None:
        request.explain_default("The URL has no token of a signed URL.")
        return False
    key = path, token
    grant = _verified.get(key)
    if grant is None:
        grant = _verify(path, token)
        if grant is None:
            request.explain(_MALFORMED if _TOKEN.fullmatch(token) is None else _WRONG_SIGNATURE)
            return False
        _verified.put(key, grant)
    actions, until = grant
    if time.time() >= until:
        request.explain(f"The signed URL expired at {datetime.fromtimestamp(until, UTC).isoformat()}.")
        return False
    if action not in actions:
        request.explain(f"The signed URL is for: {', '.join(sorted(one.value for one in actions))}.")
        return False
    request.until(until)
    return True


def _verify(path: str, token: str) -> tuple[frozenset[Action], int] | None:
    """Return the actions of a token and its end in Unix seconds, or None if the signature is invalid."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    allowed, until, signature = match.groups()
    signer = _signer()
    try:
        # Compares in constant time, and accepts SECRET_KEY_FALLBACKS.
        signer.unsign(f"{_message(allowed, until, path)}{signer.sep}{signature}")
    except BadSignature:
        return None
    return frozenset(map(Action, allowed.split("-"))), int(until)


def _message(allowed: str, until: str, path: str) -> str:
    return f"{allowed}.{until}.{path}"


def _signer() -> Signer:
    return Signer(salt=SALT)


def _clear(**kwargs: Any) -> None:
    _verified.clear()


setting_changed.connect(_clear, dispatch_uid="durable_streams.signed")
