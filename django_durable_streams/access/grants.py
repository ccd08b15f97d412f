"""The permission of a live read, which is checked again while the read lasts.

A grant does not know readers. Readers ask the grant, and end when it no longer holds. While nothing is due, asking
costs three comparisons.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from ..conf import config
from ..protocol.errors import DurableStreamsError, ServiceUnavailable
from ..runtime.printable import loggable
from .access_request import AccessRequest
from .base import Action
from .identities import Identity

if TYPE_CHECKING:
    from ..protocol.messages import Request
    from .users import User

logger = logging.getLogger("django_durable_streams.access")


UNCHECKED_SECONDS = 15.0
"""How long a live read goes on after a check was due and could not be made."""


class Authorizer(Protocol):
    """What a grant needs of the guard, to check an earlier request again."""

    credential_headers: frozenset[bytes]
    """Request headers that only a client's own code sends, in lower case."""

    def refresh_identity(self, request: Request, identity: Identity) -> Identity | Awaitable[Identity]:
        """Return the current identity of the caller of an earlier request."""

    async def is_allowed(self, action: Action, user: User, path: str, access_request: AccessRequest) -> bool:
        """Return whether a user may do an action on a stream."""

    def refusal(
        self,
        identity: Identity,
        access_request: AccessRequest,
        path: str,
        action: Action,
        *,
        is_denied: bool = True,
    ) -> DurableStreamsError:
        """Return the error for a refused action. `is_denied`: whether the permissions have denied it."""


class Grant:
    """The permission of a live read.

    Readers call `holds` at each tick of the hub, and before they send data. Every `REAUTHORIZE_INTERVAL` this call
    starts a new check of the identity and the permission. All checks that are due together use the same queries. If a
    check fails or does not return, the grant holds for `UNCHECKED_SECONDS` more.
    """

    def __init__(
        self, authorizer: Authorizer, request: Request, path: str, identity: Identity, access_request: AccessRequest
    ) -> None:
        self._authorizer = authorizer
        self._request = request
        self._path = path
        self._identity = identity
        self._access_request = access_request
        self._refusal: DurableStreamsError | None = None
        self._recheck: asyncio.Task[None] | None = None
        self._next_recheck = time.monotonic() + config().reauthorize_interval
        self._valid_until = self._next_recheck + UNCHECKED_SECONDS
        self._expires = _monotonic(access_request.expires)

    @property
    def seconds_left(self) -> float:
        """The longest time that the grant can still hold, in seconds."""
        return max(0.0, self._expires - time.monotonic())

    def holds(self, now: float) -> bool:
        """Return whether the grant holds at a monotonic time, by the latest check."""
        if self._refusal is not None or now >= self._expires or now >= self._valid_until:
            return False
        if now >= self._next_recheck and (self._recheck is None or self._recheck.done()):
            self._next_recheck = now + config().reauthorize_interval
            self._recheck = asyncio.ensure_future(self._check_again())
        return True

    def check(self) -> None:
        """Return if the grant holds now.

        Raises:
            NotAuthenticated, PermissionDenied: the grant has expired, or the permission was withdrawn (401, 403).
            ServiceUnavailable: the permission could not be checked in time (503).
        """
        now = time.monotonic()
        if self.holds(now):
            return
        if self._refusal is None and now < self._expires:
            raise ServiceUnavailable("The permission cannot be checked at present. Try again.")
        if self._refusal is None:
            self._access_request.forget_reasons()
            self._access_request.explain("The permission of the live read has expired.")
        raise self._refusal or self._end()

    async def _check_again(self) -> None:
        """Check the current permission of the current identity."""
        request, authorizer = self._request, self._authorizer
        try:
            refreshed = authorizer.refresh_identity(request, self._identity)
            identity = refreshed if isinstance(refreshed, Identity) else await refreshed
            access_request = AccessRequest(request, authorizer.credential_headers)
            access_request.caller = identity
            if await authorizer.is_allowed(Action.READ, identity.user, self._path, access_request):
                self._expires = _monotonic(access_request.expires)
                self._valid_until = time.monotonic() + config().reauthorize_interval + UNCHECKED_SECONDS
            else:
                self._refusal = authorizer.refusal(identity, access_request, self._path, Action.READ)
        except DurableStreamsError as error:
            fields = self._access_request.log_fields
            logger.warning(
                "The permission of a live read of %s cannot be checked at present: %s",
                loggable(self._path),
                error,
                extra=fields,
            )
        except Exception:
            fields = self._access_request.log_fields
            logger.exception(
                "Checking the permission of a live read of %s has failed. The read ends.",
                loggable(self._path),
                extra=fields,
            )
            self._refusal = self._end()

    def _end(self) -> DurableStreamsError:
        """Return the error of a live read that no permission has denied."""
        request, action = self._access_request, Action.READ
        return self._authorizer.refusal(self._identity, request, self._path, action, is_denied=False)


def _monotonic(moment: float | None) -> float:
    """Return the monotonic time of a moment in Unix seconds."""
    return float("inf") if moment is None else time.monotonic() + moment - time.time()
