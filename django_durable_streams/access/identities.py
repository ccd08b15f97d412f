"""Who is calling: looked up in batches, off the event loop, and remembered for a short time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

from django.conf import settings
from django.http import HttpRequest, parse_cookie
from django.middleware.csrf import CSRF_SESSION_KEY

from ..conf import config
from ..protocol import headers
from . import sessions, workers
from .ambient_credentials import is_ambient
from .users import User, anonymous

MAX_REMEMBERED = 10_000
"""Callers that a process remembers."""

MAX_KEY_LENGTH = 4096
"""Characters in a session's key; those of signed cookies hold the whole session."""

MAX_REMEMBERED_COOKIES = 8192
"""Bytes of a `Cookie` header up to which the key in it is remembered."""

HELD_SECONDS = 2.0
"""How long a session is not remembered after it was told to end: it may be there for a moment yet."""

NOBODY = ""
"""The key of those without a session."""

Source = Mapping[str, Any] | HttpRequest


class Identity:
    """Who sent a request.

    Attributes:
        key: of the session, or NOBODY.
        ambient: whether the browser sends by itself what says who this is, so that other sites could make it do so.
        csrf_secret: what the session holds of it, where CSRF_USE_SESSIONS is set.
        fresh_until: monotonic time up to which this may be believed.
    """

    __slots__ = ("ambient", "csrf_secret", "fresh_until", "key", "user")

    def __init__(self, user: User, *, key: str = NOBODY, ambient: bool = False, csrf_secret: str | None = None) -> None:
        self.user = user
        self.key = key
        self.ambient = ambient
        self.csrf_secret = csrf_secret
        self.fresh_until = 0.0

    @property
    def is_known(self) -> bool:
        """Whether it is anybody."""
        return bool(self.user.is_authenticated)


class IdentityLoader:
    """Finds and remembers callers.

    Args:
        prepare: is called with every user that was loaded, in a thread.
    """

    def __init__(self, prepare: Callable[[User], None]) -> None:
        self._prepare = prepare
        self._known: dict[str, Identity] = {}
        self._held: dict[str, float] = {}
        self._forgotten = 0
        self._lock = Lock()
        self._has_sessions = sessions.are_installed()

    def of_source(self, source: Source, cookies: bytes | None) -> Identity | Awaitable[Identity]:
        """Return the caller at the ASGI application: who Channels says it is, or else the session's user.

        Args:
            source: the ASGI scope. Who calls by Django's request is known already, or nobody.
        """
        scope: Mapping[str, Any] = {} if isinstance(source, HttpRequest) else source
        user = scope.get("user")
        if user is not None:
            ambient = bool(user.is_authenticated) and not _has_own_credentials(scope, cookies)
            secret = _csrf_secret(scope.get("session")) if ambient else None
            return workers.look_up(self._prepare_all, Identity(user, ambient=ambient, csrf_secret=secret))
        return self.of_cookies(cookies)

    def of_cookies(self, cookies: bytes | None) -> Identity | Awaitable[Identity]:
        """Return the session's user."""
        if cookies is None or not self._has_sessions:
            return self.of_key(NOBODY)
        find = session_key if len(cookies) <= MAX_REMEMBERED_COOKIES else session_key.__wrapped__
        return self.of_key(find(cookies))

    def of_key(self, key: str) -> Identity | Awaitable[Identity]:
        """Return the caller with a session's key."""
        known = self._known.get(key)
        if known is not None and time.monotonic() < known.fresh_until:
            return known
        return workers.look_up(self._load, key)

    def of_request(self, request: HttpRequest) -> Identity:
        """Return the caller at the URL door, as middleware has found it. Synchronous; may use the database."""
        user = getattr(request, "user", None)
        if user is None:
            user = anonymous()
        self._prepare(user)
        ambient = bool(user.is_authenticated)
        return Identity(user, ambient=ambient, csrf_secret=_csrf_secret(getattr(request, "session", None)))

    def refresh(self, source: Source, cookies: bytes | None, caller: Identity) -> Identity | Awaitable[Identity]:
        """Return the caller of a request that came some time ago, as it is now."""
        if isinstance(source, HttpRequest):
            session, given = getattr(source, "session", None), True
        else:
            session, given = source.get("session"), "user" in source
        if not given:
            return self.of_source(source, cookies)
        if not caller.is_known:
            return self.of_key(NOBODY)
        key = getattr(session, "session_key", None)
        if key and session is not None and sessions.holds(session, caller.user):
            return self.of_key(key)
        return workers.look_up(self._load_users, caller)

    def forget(self, user: User = None, key: str | None = None) -> None:
        """Forget what is remembered of a user, a session, or of everybody. Safe to call from any thread."""
        with self._lock:
            self._forgotten += 1
            if key is not None:
                self._known.pop(key, None)
                self._hold(key)
            if user is not None:
                for known in [key for key, caller in self._known.items() if caller.user.pk == user.pk]:
                    del self._known[known]
            elif key is None:
                self._known.clear()

    def _hold(self, key: str) -> None:
        now = time.monotonic()
        if len(self._held) > 1000:
            self._held = {held: until for held, until in self._held.items() if until > now}
        self._held[key] = now + HELD_SECONDS

    def _load(self, keys: Sequence[str]) -> Sequence[Identity | Exception]:
        """Look callers up by the keys of their sessions, all at once. For the thread."""
        forgotten = self._forgotten
        wanted = set(keys)
        found = self._look_up(wanted)
        with self._lock:
            if forgotten == self._forgotten:  # else what was read may be what was to be forgotten
                self._remember(found)
        return [found[key] for key in keys]

    def _look_up(self, keys: set[str]) -> dict[str, Identity]:
        held = sessions.load_sessions(keys - {NOBODY}) if keys != {NOBODY} else {}
        users = sessions.users_of(held)
        found = {}
        nobody = None
        for key in keys:
            user = users.get(key)
            if user is None:
                nobody = nobody or self._prepared(anonymous())
                found[key] = Identity(nobody, key=key)
            else:
                secret = held[key].get(CSRF_SESSION_KEY)
                found[key] = Identity(self._prepared(user), key=key, ambient=True, csrf_secret=secret)
        return found

    def _remember(self, found: dict[str, Identity]) -> None:
        now = time.monotonic()
        until = now + config().auth_cache_seconds
        for key, caller in found.items():
            if self._held.get(key, 0.0) <= now:
                caller.fresh_until = until
                self._known.pop(key, None)
                self._known[key] = caller
        while len(self._known) > MAX_REMEMBERED:
            self._known.pop(next(iter(self._known)))

    def _load_users(self, callers: Sequence[Identity]) -> Sequence[Identity | Exception]:
        """Look users up who did not come from a session. For the thread."""
        found = sessions.load_again([caller.user for caller in callers])
        return [Identity(self._prepared(user or anonymous())) for user in found]

    def _prepare_all(self, callers: Sequence[Identity]) -> Sequence[Identity | Exception]:
        for caller in callers:
            self._prepare(caller.user)
        return callers

    def _prepared(self, user: User) -> User:
        self._prepare(user)
        return user


def _has_own_credentials(scope: Mapping[str, Any], cookies: bytes | None) -> bool:
    """Whether the client's own code must have sent what middleware knows the user by: no browser sends it by itself."""
    given = [value for name, value in scope["headers"] if name == headers.AUTHORIZATION]
    return cookies is None and bool(given) and not any(is_ambient(headers.AUTHORIZATION, value) for value in given)


def _csrf_secret(session: Any) -> str | None:
    return session.get(CSRF_SESSION_KEY) if session is not None and settings.CSRF_USE_SESSIONS else None


@lru_cache(maxsize=512)
def session_key(cookies: bytes) -> str:
    """Return the session's key from a `Cookie` header, or NOBODY."""
    name = settings.SESSION_COOKIE_NAME
    if name.encode() not in cookies:
        return NOBODY
    key = parse_cookie(cookies.decode("latin-1")).get(name, NOBODY)
    return key if 8 <= len(key) <= MAX_KEY_LENGTH else NOBODY
