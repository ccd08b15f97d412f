"""The one place where requests are judged, before anything is known of the stream."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from django.core import exceptions
from django.core.signals import setting_changed

from ..conf import Config, config
from ..protocol import headers, paths
from ..protocol.errors import DurableStreamsError, NotAuthenticated, PermissionDenied
from ..runtime.lifecycle import call_at_stop
from ..runtime.results import as_failure
from . import csrf, workers
from .access_request import AccessRequest
from .base import Action, Permission, is_for_everybody
from .creation_policy import CreationPolicy
from .grants import Grant
from .identities import Identity, IdentityLoader
from .loading import is_asynchronous, make_permissions
from .rates import RateLimits
from .users import User, anonymous

if TYPE_CHECKING:
    from ..protocol.messages import Request

logger = logging.getLogger("django_durable_streams.access")

_ACTIONS = {
    "GET": Action.READ,
    "HEAD": Action.READ,
    "PUT": Action.CREATE,
    "POST": Action.APPEND,
    "DELETE": Action.DELETE,
}


class Mode(Enum):
    """How a permission's method is called."""

    HERE = "it asks nothing but memory"
    AWAIT = "it is asynchronous"
    THREAD = "it may use the database"


class PermissionCheck(NamedTuple):
    """A permission's method for an action."""

    may: Callable[[User, str, AccessRequest], Any]
    mode: Mode


class Guard:
    """Judges requests by the settings.

    Raises:
        ImproperlyConfigured, ValueError: the settings mean nothing.
    """

    def __init__(self, settings: Config) -> None:
        self.permissions = make_permissions(settings.permission_classes)
        self.callers = IdentityLoader(self.prepare)
        # Whatever else would be asked: one who allows everything allows it.
        self._opens = any(all(is_for_everybody(known, action) for action in Action) for known in self.permissions)
        self.everybody_reads = any(is_for_everybody(known, Action.READ) for known in self.permissions)
        names = [name for known in self.permissions for name in (*known.varies_on, *known.credential_headers)]
        self.varies_on = tuple(dict.fromkeys(names))
        own = {name.lower().encode("latin-1") for known in self.permissions for name in known.credential_headers}
        self._own_headers = frozenset(own)
        self._judges = {action: [_judge(known, action) for known in self.permissions] for action in Action}
        self._needs_caller = bool(settings.rate_limits) or any(known.needs_user for known in self.permissions)
        self._nobody = Identity(anonymous())
        self._rates = RateLimits(settings.rate_limits, settings.rate_limit_cache) if settings.rate_limits else None
        self._allowed = CreationPolicy(settings) if CreationPolicy.is_needed(settings) else None
        # What a project has written may ask for the task that it runs in, as asyncio.timeout does.
        self.needs_task = any(judge.mode is Mode.AWAIT for judges in self._judges.values() for judge in judges)
        self.is_idle = self._opens and self._rates is None and self._allowed is None

    def prepare(self, user: User) -> None:
        """Let the permissions look up what they need to know of a user. Synchronous."""
        try:
            for permission in self.permissions:
                permission.prepare(user)
        except BaseException as error:  # the thread is not the project's to end
            failure = as_failure(error)
            raise failure from failure.__cause__

    def caller_again(self, request: Request, caller: Identity) -> Identity | Awaitable[Identity]:
        """Return the caller of a request that came some time ago, as the caller is now."""
        return self.callers.refresh(request.source, request.headers.get(b"cookie"), caller)

    async def admit(self, request: Request) -> None:
        """See that a request may go on.

        Raises:
            InvalidPath, StreamNotFound: no stream can have this path.
            NotAuthenticated, PermissionDenied: it is not allowed (401, 403).
            TooManyRequests: it is one too many (429).
            UnsupportedContentType: streams of this kind are not created here (415).
            ServiceUnavailable: it cannot be found out who is asking.
        """
        path = paths.validate_again(request.path)
        action = _ACTIONS[request.method]
        if self._allowed is not None and action is Action.CREATE:
            forks = headers.STREAM_FORKED_FROM in request.headers
            self._allowed.check(path, request.headers.get(headers.CONTENT_TYPE), forks=forks)
        if self._opens and self._rates is None:
            return
        view = AccessRequest(request, self._own_headers)
        caller = request.caller or self._nobody
        if request.caller is None and self._needs_caller:
            cookies = request.headers.get(b"cookie")
            bare = request.is_bare
            found = self.callers.of_cookies(cookies) if bare else self.callers.of_source(request.source, cookies)
            caller = found if isinstance(found, Identity) else await found
        view.caller = caller
        if self._rates is not None:
            for counted in _actions(request, action):
                await self._rates.count(counted, caller, view)
        if not self._opens:
            await self._judge(request, action, path, caller, view)

    async def _judge(self, request: Request, action: Action, path: str, caller: Identity, view: AccessRequest) -> None:
        if caller.ambient and view.forged is not None:
            # Then it does not count that a user is logged in. What is allowed nevertheless does not depend on it.
            view.withhold()
            nobody = self.callers.of_key("")
            caller = nobody if isinstance(nobody, Identity) else await nobody
        refuse = partial(self.refusal, caller, view, path)
        if action is Action.APPEND:
            await self._judge_append(request, path, caller, view, refuse)
            return
        if not await self.may(action, caller.user, path, view):
            raise refuse(action)
        if action is Action.CREATE:
            source = request.fork_source()
            if source is not None and not await self.may(Action.READ, caller.user, source, view):
                raise self.refusal(caller, view, source, Action.READ)
        elif action is Action.READ and request.parameter("live") is not None:
            request.grant = Grant(self, request, path, caller, view)

    async def _judge_append(
        self,
        request: Request,
        path: str,
        caller: Identity,
        view: AccessRequest,
        refuse: Callable[[Action], DurableStreamsError],
    ) -> None:
        closes = _closes(request)
        if closes and not await self.may(Action.CLOSE, caller.user, path, view):
            raise refuse(Action.CLOSE)
        if await self.may(Action.APPEND, caller.user, path, view):
            return
        if not closes:
            raise refuse(Action.APPEND)
        # Whether the close comes with data is known when the body is there.
        request.refuse_body = partial(refuse, Action.APPEND)

    async def may(self, action: Action, user: User, path: str, view: AccessRequest) -> bool:
        """Whether any of the permissions allows an action."""
        for judge in self._judges[action]:
            try:
                if judge.mode is Mode.HERE:
                    granted = judge.may(user, path, view)
                elif judge.mode is Mode.AWAIT:
                    granted = await judge.may(user, path, view)
                else:
                    granted = await cast("Awaitable[bool]", workers.call(partial(judge.may, user, path, view)))
                # A decorated method, or an object that is called, need not look asynchronous. What it returns is true.
                if granted is not True and isawaitable(granted):
                    granted = await granted
            except exceptions.PermissionDenied:
                continue
            if granted:
                return True
        return False

    def refusal(self, caller: Identity, view: AccessRequest, path: str, action: Action) -> DurableStreamsError:
        """Return the error for what is not allowed, and note it in the log. It does not say what there is."""
        who = caller.user.pk if caller.is_known else "anonymous"
        lacks_token = view.was_withheld or view.may_lack
        why = f" CSRF: {view.forged}" if lacks_token else ""
        logger.warning("%s of %s is refused to user %s at %s.%s", action.value, path, who, view.address, why)
        challenge = next((known.challenge for known in self.permissions if known.challenge), None)
        if challenge is not None and not caller.is_known and not view.was_withheld:
            found = ((b"www-authenticate", challenge.encode("latin-1")),)
            return NotAuthenticated("This needs credentials, or others.", found)
        if lacks_token:
            return PermissionDenied(f"The CSRF check failed. Send the CSRF token in the header {csrf.header_name()}.")
        return PermissionDenied("You may not do this, whether or not there is such a stream.")


def _closes(request: Request) -> bool:
    """Whether an append is to close the stream."""
    closed = request.header(headers.STREAM_CLOSED)
    return closed is not None and headers.is_true(closed)


def _actions(request: Request, action: Action) -> tuple[Action, ...]:
    """Return all that a request does, to be counted, by what its method does."""
    return (action, Action.CLOSE) if action is Action.APPEND and _closes(request) else (action,)


def _judge(permission: Permission, action: Action) -> PermissionCheck:
    if is_asynchronous(permission, action):
        mode = Mode.AWAIT
    elif permission.in_memory:
        mode = Mode.HERE
    else:
        mode = Mode.THREAD
    return PermissionCheck(getattr(permission, action.method), mode)


_current: tuple[Config, Guard | None] | None = None


def current_guard() -> Guard | None:
    """Return the guard of the settings in force; None where nothing is to be judged."""
    global _current
    settings = config()
    known = _current
    if known is None or known[0] is not settings:
        guard = Guard(settings)
        known = _current = settings, None if guard.is_idle else guard
    return known[1]


def made_guard() -> Guard | None:
    """Return the guard if one is at work already."""
    return _current[1] if _current is not None else None


def _forget(**kwargs: Any) -> None:
    global _current
    _current = None


setting_changed.connect(_forget, dispatch_uid="durable_streams.guard")
call_at_stop(_forget)
