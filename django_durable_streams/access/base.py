"""What a permission class is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .users import User

if TYPE_CHECKING:
    from .access_request import AccessRequest

Verdict = bool | Awaitable[bool]


class Action(Enum):
    """What somebody wants to do with a stream."""

    CREATE = "create"
    READ = "read"
    APPEND = "append"
    CLOSE = "close"
    DELETE = "delete"

    # Members are one of a kind. Enum's own hash is written in Python, and felt at each request.
    __hash__ = object.__hash__

    @property
    def method(self) -> str:
        """The name of the method that judges it."""
        return f"can_{self.value}"


ACTIONS = tuple(action.value for action in Action)


Judgement = TypeVar("Judgement", bound=Callable[..., Any])


def for_everybody(method: Judgement) -> Judgement:
    """Mark a permission's method that allows its action to everybody, whatever the request."""
    # The mark names what it was put on: functools.wraps copies it to a function that may refuse.
    method._is_for_everybody = method  # type: ignore[attr-defined]
    return method


def is_for_everybody(permission: object, action: Action) -> bool:
    """Whether a permission allows an action to everybody. A method of a subclass has to say so for itself."""
    method = getattr(permission, action.method)
    function = getattr(method, "__func__", method)
    return getattr(function, "_is_for_everybody", None) is function


class Permission:
    """Decides who may do what. Everything is refused that a subclass does not allow.

    Methods are given the user, the stream's path and the request, and return whether they allow it. Each may be `async
    def`. One that is not runs in a thread, so it may use the database; it should take milliseconds, as few threads do
    this for all requests.

    The settings name the class, or a dict with `CLASS` and options, which are passed in lower case as keywords.
    """

    in_memory: ClassVar[bool] = False
    """Whether the methods ask nothing but memory. They are then called in the event loop, which must never wait."""

    needs_user: ClassVar[bool] = True
    """Whether the methods look at the user. Where no permission does, nobody is looked up."""

    varies_on: tuple[str, ...] = ("Cookie", "Authorization")
    """The request headers that the decision about a read depends on, for the `Vary` of its answer."""

    credential_headers: tuple[str, ...] = ()
    """The request headers besides `Authorization` that the methods look at and only a client's own code sends, such as
    `X-Api-Key`, never a browser or a proxy. Of a change that another site may have made a browser send, the methods see
    no other headers of a project's own."""

    challenge: str | None = None
    """`WWW-Authenticate` for those who came without credentials, where a token would help them."""

    def prepare(self, user: User) -> None:
        """Look up what the methods will need to know of a user. Called in a thread, once each time a user is loaded."""

    def can_create(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Whether the user may create the stream, also as a fork, closed or with a first append."""
        return False

    def can_read(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Whether the user may read the stream, look at its state, and fork it. Live readers are judged again."""
        return False

    def can_append(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Whether the user may append."""
        return False

    def can_close(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Whether the user may close the stream."""
        return False

    def can_delete(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Whether the user may delete the stream."""
        return False
