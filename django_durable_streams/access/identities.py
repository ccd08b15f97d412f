"""Identities of callers: loaded in batches in a thread, and cached for a short time.

An optimisation besides its purpose. A cached identity costs a request two dict lookups instead of two queries.

- Invariant: a cached identity is never older than `AUTH_CACHE_SECONDS`. A change in this process is visible at once.
- Why it holds: each identity has the time until which it is fresh. `invalidate` drops entries, and makes loads that
  began before it return their result without caching it.
- Switch off: `AUTH_CACHE_SECONDS: 0`. Requests that wait at the same time then still share their queries.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any, cast

from django.conf import settings
from django.db import Error
from django.http import HttpRequest, parse_cookie
from django.middleware.csrf import CSRF_SESSION_KEY

from ..conf import config
from ..protocol import headers
from ..runtime.bounded_cache import BoundedCache
from ..runtime.results import contained, copy_of
from . import sessions, workers
from .ambient_credentials import is_ambient
from .users import User, anonymous

MAX_IDENTITIES = 10_000
"""Identities in the cache of a process."""

MAX_IDENTITY_KEY_BYTES = 4 * 1024 * 1024
"""Characters of all keys in that cache. The keys of signed cookies hold whole sessions, and clients choose them."""

MAX_KEY_LENGTH = 4096
"""Characters of a session's key. Longer keys count as no key. The keys of signed cookies hold whole sessions."""

MAX_CACHED_COOKIE_BYTES = 8192
"""Bytes of a `Cookie` header up to which its session key is cached."""

LOGOUT_BLOCK_SECONDS = 2.0
"""How long a session is not cached after a logout. Its row may exist until the transaction of the logout commits."""

PRUNE_BLOCKS_AFTER = 1000
"""Sessions with a recent logout after which the list is searched for those that may be cached again."""

NO_SESSION = ""
"""The key of callers without a session."""

Source = Mapping[str, Any] | HttpRequest


class Identity:
    """The caller of a request.

    Attributes:
        user: a user of the project's model, or an anonymous user.
        key: the session's key, or `NO_SESSION`.
        ambient: whether a browser sends the credentials by itself, so that other sites can cause requests with them.
        csrf_secret: the session's CSRF secret, if `CSRF_USE_SESSIONS` is set.
        fresh_until: the monotonic time until which the cache may return this identity.
    """

    __slots__ = ("ambient", "csrf_secret", "fresh_until", "key", "user")

    def __init__(
        self, user: User, *, key: str = NO_SESSION, ambient: bool = False, csrf_secret: str | None = None
    ) -> None:
        self.user = user
        self.key = key
        self.ambient = ambient
        self.csrf_secret = csrf_secret
        self.fresh_until = 0.0

    @property
    def is_authenticated(self) -> bool:
        """Whether the user is logged in."""
        return bool(self.user.is_authenticated)


class IdentityLoader:
    """Loads and caches identities. Methods that may have to wait return an awaitable.

    Args:
        prepare: is called in a thread with each loaded user.
    """

    def __init__(self, prepare: Callable[[User], None]) -> None:
        self._prepare = prepare
        self._identities = BoundedCache[str, Identity](MAX_IDENTITIES, max_bytes=MAX_IDENTITY_KEY_BYTES, size_of=len)
        self._uncached_until: dict[str, float] = {}
        self._invalidations = 0
        self._lock = Lock()
        self._has_sessions = sessions.are_installed()

    def get_for_source(self, source: Source, cookies: bytes | None) -> Identity | Awaitable[Identity]:
        """Return the identity of a request at the ASGI application: the scope's user, or else the session's user.

        Args:
            source: the ASGI scope. For a request of Django's, only the cookies count.
            cookies: the header `Cookie`.
        """
        scope: Mapping[str, Any] = {} if isinstance(source, HttpRequest) else source
        user = scope.get("user")
        if user is not None:
            ambient = bool(user.is_authenticated) and not _has_client_credentials(scope, cookies)
            secret = _csrf_secret(scope.get("session")) if ambient else None
            return workers.look_up(self._prepare_all, Identity(user, ambient=ambient, csrf_secret=secret))
        return self.get_for_cookies(cookies)

    def get_for_cookies(self, cookies: bytes | None) -> Identity | Awaitable[Identity]:
        """Return the identity of the session that a header `Cookie` names."""
        if cookies is None or not self._has_sessions:
            return self.get_for_session(NO_SESSION)
        find_key = session_key if len(cookies) <= MAX_CACHED_COOKIE_BYTES else session_key.__wrapped__
        return self.get_for_session(find_key(cookies))

    def get_for_session(self, key: str) -> Identity | Awaitable[Identity]:
        """Return the identity of a session by its key."""
        identity = self._identities.get(key)
        if identity is not None and time.monotonic() < identity.fresh_until:
            return identity
        return workers.look_up(self._load, key)

    @contained
    def from_request(self, request: HttpRequest) -> Identity:
        """Return the identity of a request at the URLs, as middleware has set it. Synchronous; may use the database."""
        user = getattr(request, "user", None)
        if user is None:
            user = anonymous()
        self._prepare(user)
        ambient = bool(user.is_authenticated)
        return Identity(user, ambient=ambient, csrf_secret=_csrf_secret(getattr(request, "session", None)))

    def refresh(self, source: Source, cookies: bytes | None, identity: Identity) -> Identity | Awaitable[Identity]:
        """Return the current identity of the caller of an earlier request."""
        if isinstance(source, HttpRequest):
            session, has_user = getattr(source, "session", None), True
        else:
            session, has_user = source.get("session"), "user" in source
        if not has_user:
            return self.get_for_source(source, cookies)
        if not identity.is_authenticated:
            return self.get_for_session(NO_SESSION)
        key = getattr(session, "session_key", None)
        if key and session is not None and sessions.belongs_to(session, identity.user):
            return self.get_for_session(key)
        return workers.look_up(self._load_users, identity)

    def invalidate(self, user: User = None, key: str | None = None) -> None:
        """Drop the cached identities of a user or a session, or all of them. Safe to call from any thread."""
        with self._lock:
            self._invalidations += 1
            if key is not None:
                self._identities.pop(key)
                self._block_caching(key)
            if user is not None:
                self._identities.drop_where(lambda identity: bool(identity.user.pk == user.pk))
            elif key is None:
                self._identities.clear()

    def _block_caching(self, key: str) -> None:
        now = time.monotonic()
        if len(self._uncached_until) > PRUNE_BLOCKS_AFTER:
            self._uncached_until = {key: until for key, until in self._uncached_until.items() if until > now}
        self._uncached_until[key] = now + LOGOUT_BLOCK_SECONDS

    def _load(self, keys: Sequence[str]) -> Sequence[Identity | Exception]:
        """Load the identities of several sessions with the same queries. Runs in the thread."""
        invalidations = self._invalidations
        identities = self._load_identities(set(keys))
        with self._lock:
            if invalidations == self._invalidations:  # otherwise the queries may have read the state before the change
                self._store({key: one for key, one in identities.items() if isinstance(one, Identity)})
        return [_own(identities[key]) for key in keys]

    def _load_identities(self, keys: set[str]) -> dict[str, Identity | Exception]:
        loaded_sessions = sessions.load_sessions(keys - {NO_SESSION}) if keys != {NO_SESSION} else {}
        users = sessions.users_of(loaded_sessions)
        identities: dict[str, Identity | Exception] = {}
        visitor: Identity | Exception | None = None
        for key in keys:
            user = users.get(key)
            if user is not None:
                secret = loaded_sessions[key].get(CSRF_SESSION_KEY)
                identities[key] = self._prepared(Identity(user, key=key, ambient=True, csrf_secret=secret))
                continue
            visitor = visitor or self._prepared(Identity(anonymous()))
            identities[key] = Identity(visitor.user, key=key) if isinstance(visitor, Identity) else visitor
        return identities

    def _store(self, identities: dict[str, Identity]) -> None:
        now = time.monotonic()
        until = now + config().auth_cache_seconds
        for key, identity in identities.items():
            if self._uncached_until.get(key, 0.0) <= now:
                identity.fresh_until = until
                self._identities.put(key, identity)

    def _load_users(self, identities: Sequence[Identity]) -> Sequence[Identity | Exception]:
        """Reload users that do not come from a session. Runs in the thread."""
        users = sessions.reload_users([identity.user for identity in identities])
        return [self._prepared(Identity(user or anonymous())) for user in users]

    def _prepare_all(self, identities: Sequence[Identity]) -> Sequence[Identity | Exception]:
        return [self._prepared(identity) for identity in identities]

    def _prepared(self, identity: Identity) -> Identity | Exception:
        """Return an identity whose user is prepared, or the error of this user alone.

        Raises:
            Error: a query has failed. All of them may succeed over a new connection.
        """
        try:
            self._prepare(identity.user)
        except Error:
            raise
        except Exception as error:
            return error
        return identity


def _own(identity: Identity | Exception) -> Identity | Exception:
    """Return an identity, or an error of its own for each request, because an error keeps the frames that it passes."""
    return identity if isinstance(identity, Identity) else cast("Exception", copy_of(identity))


def _has_client_credentials(scope: Mapping[str, Any], cookies: bytes | None) -> bool:
    """Return whether the request is authenticated by a header that no browser sends by itself."""
    if cookies is not None:
        return False
    values = [value for name, value in scope["headers"] if name == headers.AUTHORIZATION]
    return bool(values) and not any(is_ambient(headers.AUTHORIZATION, value) for value in values)


def _csrf_secret(session: Any) -> str | None:
    return session.get(CSRF_SESSION_KEY) if session is not None and settings.CSRF_USE_SESSIONS else None


@lru_cache(maxsize=512)
def session_key(cookies: bytes) -> str:
    """Return the session's key from a `Cookie` header, or `NO_SESSION`."""
    name = settings.SESSION_COOKIE_NAME
    if name.encode() not in cookies:
        return NO_SESSION
    key = parse_cookie(cookies.decode("latin-1")).get(name, NO_SESSION)
    return key if 8 <= len(key) <= MAX_KEY_LENGTH else NO_SESSION


def has_session_cookie(cookies: bytes | None) -> bool:
    """Return whether a `Cookie` header has a session cookie, of whatever value."""
    return cookies is not None and settings.SESSION_COOKIE_NAME in parse_cookie(cookies.decode("latin-1"))


def session_failure(cookies: bytes | None) -> str:
    """Return a sentence about a request without a user: whether it has a session cookie. Empty without sessions."""
    if not sessions.are_installed():
        return ""
    name = settings.SESSION_COOKIE_NAME
    if not has_session_cookie(cookies):
        return f"The request has no session cookie ({name})."
    return f"The session cookie ({name}) leads to no user here."
