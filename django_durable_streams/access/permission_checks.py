"""How a guard calls the methods of permissions, and the checks that it makes without a coroutine.

Two optimisations: access to a request whose token was verified before takes 2.2 microseconds instead of 5, and a sixth
of that where the token has allowed the same request before (`python -m benchmarks.production --rows cpu-append`).

- Invariant: the verdict is that of `Guard.admit`.
- Why it holds: it is for requests for which `admit` calls the same methods with the same arguments, and does nothing
  else. Their permissions use memory only, no limit counts them, and no caller is looked up. A remembered grant is of
  one method that depends on nothing but the key of the grant (`base.by_token`), as do all methods before it, which may
  raise an error or note the request. The methods after it are not asked. Refusals are not remembered.
- Switch off: let `methods_in_memory` return nothing, or do not call `_grants.put`.

It does not know how a refusal is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from inspect import isawaitable
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from django.core import exceptions

from ..protocol import headers, paths
from ..protocol.errors import DurableStreamsError
from ..runtime.bounded_cache import BoundedCache
from ..runtime.results import as_failure
from .access_request import AccessRequest
from .base import Action, Permission, is_by_token
from .loading import is_asynchronous
from .verdicts import allows

if TYPE_CHECKING:
    from ..protocol.messages import Request
    from .identities import Identity
    from .users import User

Method = Callable[["User", str, AccessRequest], Any]

Refusal = Callable[["Identity", AccessRequest, str, Action], DurableStreamsError]

ACTION_BY_METHOD = {
    "GET": Action.READ,
    "HEAD": Action.READ,
    "PUT": Action.CREATE,
    "POST": Action.APPEND,
    "DELETE": Action.DELETE,
}


MAX_GRANTS = 4096
"""Grants that a guard remembers."""

MAX_GRANT_BYTES = 8 * 1024 * 1024
"""Bytes of the paths, queries and tokens of these grants."""

Grant = tuple[str, str, bytes, bytes | None]
"""A request that a token has allowed: its HTTP method, path, query, and the header `Authorization`."""


class CallMode(Enum):
    """How the guard calls a permission's method."""

    IN_LOOP = "the method uses memory only"
    AWAIT = "the method is asynchronous"
    IN_THREAD = "the method may use the database"


class PermissionCheck(NamedTuple):
    """A permission's method for one action, and how to call it."""

    method: Method
    mode: CallMode


def permission_check(permission: Permission, action: Action) -> PermissionCheck:
    """Return the check of a permission for an action."""
    if is_asynchronous(permission, action):
        mode = CallMode.AWAIT
    elif permission.in_memory:
        mode = CallMode.IN_LOOP
    else:
        mode = CallMode.IN_THREAD
    return PermissionCheck(getattr(permission, action.method), mode)


def methods_in_memory(checks: Mapping[Action, Sequence[PermissionCheck]]) -> dict[str, tuple[Method, ...]]:
    """Return the methods that decide about a request, by its HTTP method, where all of them use memory only."""
    return {
        method: tuple(check.method for check in checks[action])
        for method, action in ACTION_BY_METHOD.items()
        if all(check.mode is CallMode.IN_LOOP for check in checks[action])
    }


class MemoryChecks:
    """Decides about requests without a wait.

    Args:
        methods: as `methods_in_memory` returns them.
        identity: the caller of all requests.
        credential_headers: as for `AccessRequest`.
        refusal: makes the error for a refused request.
        listed_path: the path at which reads need the permission to list. Empty: there is none.
    """

    def __init__(
        self,
        methods: Mapping[str, tuple[Method, ...]],
        identity: Identity,
        credential_headers: frozenset[bytes],
        refusal: Refusal,
        listed_path: str = "",
    ) -> None:
        self._methods = methods
        self._by_token = {method: tuple(takewhile(is_by_token, asked)) for method, asked in methods.items()}
        """The methods whose grants may be remembered, by HTTP method."""
        self._identity = identity
        self._credential_headers = credential_headers
        self._refusal = refusal
        self._listed_path = listed_path
        self._grants = BoundedCache[Grant, float](MAX_GRANTS, max_bytes=MAX_GRANT_BYTES, size_of=_size)

    def admit(self, request: Request) -> bool:
        """Return whether a request may go on. False: it is not decided, and `Guard.admit` has to decide.

        Raises:
            InvalidPath, StreamNotFound, NotAuthenticated, PermissionDenied: as for `Guard.admit`.
        """
        methods = self._methods.get(request.method)
        if methods is None or _needs_more(request):
            return False
        grant = request.method, request.path, request.query, request.headers.get(headers.AUTHORIZATION)
        if self._grants.get(grant, 0.0) > time.time():
            return True
        path = paths.validate_again(request.path)
        if path == self._listed_path:
            return False
        access_request = AccessRequest(request, self._credential_headers)
        access_request.caller = self._identity
        granted_by = _ask(methods, self._identity.user, path, access_request)
        if granted_by is False:
            raise self._refusal(self._identity, access_request, path, ACTION_BY_METHOD[request.method])
        if granted_by is None:
            return False
        if access_request.expires is not None and granted_by in self._by_token[request.method]:
            self._grants.put(grant, access_request.expires)
        return True


def _needs_more(request: Request) -> bool:
    """Return whether a request needs more than the check of one action."""
    if request.caller is not None:
        return True
    if request.method == "POST":
        return headers.STREAM_CLOSED in request.headers
    if request.method == "PUT":
        return headers.STREAM_FORKED_FROM in request.headers
    # A live read needs a grant. The name of its parameter may be percent-encoded.
    return bool(request.query) and (b"live" in request.query or b"%" in request.query)


def _size(grant: Grant) -> int:
    _, path, query, authorization = grant
    return len(path) + len(query) + len(authorization or b"")


def _ask(methods: tuple[Method, ...], user: User, path: str, request: AccessRequest) -> Method | Literal[False] | None:
    """Return the method that allows a request. False: none does. None: one of them is asynchronous after all."""
    for method in methods:
        try:
            granted = method(user, path, request)
        except exceptions.PermissionDenied:
            continue
        except Exception:
            raise
        except BaseException as error:
            raise as_failure(error) from error
        if granted is True:
            return method
        if isawaitable(granted):  # `Guard.admit` calls it again, and awaits it
            if hasattr(granted, "close"):
                granted.close()
            return None
        if allows(granted, getattr(method, "__name__", "A method")):
            return method
    return False
