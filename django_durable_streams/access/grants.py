"""What a live read stands on. It is looked at again while the read lasts, and the read ends with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from ..conf import config
from ..protocol.errors import DurableStreamsError, ServiceUnavailable
from .access_request import AccessRequest
from .base import Action
from .identities import Identity

if TYPE_CHECKING:
    from ..protocol.messages import Request
    from .users import User

logger = logging.getLogger("django_durable_streams.access")


UNCHECKED_SECONDS = 15.0
"""How long a live read goes on once it should be judged again and cannot be: then nobody knows whether it may."""


class Judge(Protocol):
    """Decides again about a read that began some time ago: the guard."""

    def caller_again(self, request: Request, caller: Identity) -> Identity | Awaitable[Identity]:
        """Return the caller of a request as the caller is now."""

    async def may(self, action: Action, user: User, path: str, view: AccessRequest) -> bool:
        """Return whether a user may do something with a stream."""

    def refusal(self, caller: Identity, view: AccessRequest, path: str, action: Action) -> DurableStreamsError:
        """Return the error for a caller who may not."""


class Grant:
    """The permission of a live read.

    Readers ask `holds` now and then, and whenever they have something to hand out. Every REAUTHORIZE_INTERVAL that
    starts another look at the caller and the permission; all that are due at a time go to the database together. A look
    that fails or does not return keeps the permission for UNCHECKED_SECONDS.
    """

    def __init__(self, guard: Judge, request: Request, path: str, caller: Identity, view: AccessRequest) -> None:
        self._guard = guard
        self._request = request
        self._path = path
        self._caller = caller
        self._view = view
        self._refusal: DurableStreamsError | None = None
        self._look: asyncio.Task[None] | None = None
        self._next_look = time.monotonic() + config().reauthorize_interval
        self._judged_until = self._next_look + UNCHECKED_SECONDS
        self._ends = _monotonic(view.expires)

    @property
    def seconds_left(self) -> float:
        """How long it can last at most."""
        return max(0.0, self._ends - time.monotonic())

    def holds(self, now: float) -> bool:
        """Whether it still holds at a monotonic time, as far as is known."""
        if self._refusal is not None or now >= self._ends or now >= self._judged_until:
            return False
        if now >= self._next_look and (self._look is None or self._look.done()):
            self._next_look = now + config().reauthorize_interval
            self._look = asyncio.ensure_future(self._look_again())
        return True

    def check(self) -> None:
        """See that it still holds.

        Raises:
            NotAuthenticated, PermissionDenied: it does not.
            ServiceUnavailable: nobody knows.
        """
        now = time.monotonic()
        if self.holds(now):
            return
        if self._refusal is None and now < self._ends:
            raise ServiceUnavailable("It cannot be found out whether this is still allowed. Try again.")
        raise self._refusal or self._refuse(self._caller)

    async def _look_again(self) -> None:
        """Judge the read again, with what is true now of whoever reads."""
        request, guard = self._request, self._guard
        try:
            found = guard.caller_again(request, self._caller)
            caller = found if isinstance(found, Identity) else await found
            view = AccessRequest(request)
            if await guard.may(Action.READ, caller.user, self._path, view):
                self._ends = _monotonic(view.expires)
                self._judged_until = time.monotonic() + config().reauthorize_interval + UNCHECKED_SECONDS
            else:
                self._refusal = self._refuse(caller)
        except DurableStreamsError as error:
            logger.warning("A live read of %s cannot be judged again at present: %s", self._path, error)
        except Exception:
            logger.exception("Judging a live read of %s again has failed; it ends.", self._path)
            self._refusal = self._refuse(self._caller)

    def _refuse(self, caller: Identity) -> DurableStreamsError:
        return self._guard.refusal(caller, self._view, self._path, Action.READ)


def _monotonic(moment: float | None) -> float:
    """A moment in Unix seconds as monotonic time."""
    return float("inf") if moment is None else time.monotonic() + moment - time.time()
