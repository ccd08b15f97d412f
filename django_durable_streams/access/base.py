"""The base class of permissions, and the actions that they allow or refuse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .users import User

if TYPE_CHECKING:
    from .access_request import AccessRequest

Verdict = bool | Awaitable[bool]


class Action(Enum):
    """What a request does with a stream, with a subscription, or with all streams below a prefix."""

    CREATE = "create"
    READ = "read"
    APPEND = "append"
    CLOSE = "close"
    DELETE = "delete"
    SUBSCRIBE = "subscribe"
    LIST = "list"

    # Each member is a single object. Enum's own hash is Python code, and each request uses it several times.
    __hash__ = object.__hash__

    @property
    def method(self) -> str:
        """The name of the permission's method for the action."""
        return f"can_{self.value}"


ACTIONS = tuple(action.value for action in Action)
STREAM_ACTIONS = tuple(action.value for action in Action if action not in (Action.SUBSCRIBE, Action.LIST))
"""The actions on one stream. Subscriptions and listings name any number of streams, so no path of one stream decides
about them."""


Method = TypeVar("Method", bound=Callable[..., Any])


def for_everybody(method: Method) -> Method:
    """Mark a permission's method that allows its action on every stream to everybody."""
    # The mark holds the marked function, because functools.wraps copies it to functions that may refuse.
    method._is_for_everybody = method  # type: ignore[attr-defined]
    return method


def is_for_everybody(permission: object, action: Action) -> bool:
    """Return whether a permission allows an action to everybody. An overriding method needs a mark of its own."""
    method = getattr(permission, action.method)
    function = getattr(method, "__func__", method)
    return getattr(function, "_is_for_everybody", None) is function


def by_token(method: Method) -> Method:
    """Mark a permission's method that depends on the path, the query and the header `Authorization` alone.

    What it allows stays allowed until the moment that it tells the request (`AccessRequest.until`), so the guard may
    remember it until then.
    """
    method._is_by_token = method  # type: ignore[attr-defined]
    return method


def is_by_token(method: Callable[..., Any]) -> bool:
    """Return whether a bound method has the mark of `by_token`, and decides as the class that has marked it.

    An overriding method needs a mark of its own. All methods of a subclass lose the mark if it overrides anything else
    that a marked method may use.
    """
    function = getattr(method, "__func__", None)
    if function is None or getattr(function, "_is_by_token", None) is not function:
        return False
    permission = method.__self__  # type: ignore[attr-defined]
    classes = type(permission).__mro__
    places = [place for place, one in enumerate(classes) if any(value is function for value in vars(one).values())]
    if not places:  # it was set on the object
        return False
    owner = places[-1]  # subclasses may have other names for it
    own = [getattr(permission, "__dict__", {}), *map(vars, classes[:owner])]
    return not any(_is_overridden(name, classes[owner]) for names in own for name in names)


def _is_overridden(name: str, owner: type) -> bool:
    """Return whether a name of a subclass is one that the methods of a class may use.

    The methods of all permissions do not use one another, and each has its own mark.
    """
    return hasattr(owner, name) and (not hasattr(Permission, name) or name == "__getattribute__")


class Permission:
    """Allows or refuses actions. The base class refuses all of them.

    Each method takes the user, the stream's path and the request, and returns whether the action is allowed. A method
    may be `async def`. Other methods run in a thread, so they may use the database. They should take milliseconds,
    because a few threads serve all requests.

    The setting `PERMISSION_CLASSES` names the class, or a dict with `CLASS` and options. Options are passed as keyword
    arguments, with names in lower case.
    """

    in_memory: ClassVar[bool] = False
    """Whether the methods use memory only. They then run in the event loop, which must never wait."""

    needs_user: ClassVar[bool] = True
    """Whether the methods use the user. If no permission does, users are not loaded."""

    varies_on: tuple[str, ...] = ("Cookie", "Authorization")
    """The request headers that decide about a read, for the header `Vary` of the response."""

    credential_headers: tuple[str, ...] = ()
    """Request headers with credentials, besides `Authorization`, such as `X-Api-Key`. Only a client's own code sends
    them, never a browser or a proxy. When another site may have caused a change, the methods see these headers, and no
    other headers of the project's own."""

    challenge: str | None = None
    """The header `WWW-Authenticate` for requests without credentials. None: they get 403 instead of 401."""

    def prepare(self, user: User) -> None:
        """Load the data about a user that the methods need. Called in a thread, each time a user is loaded."""

    def allowed_paths(self, action: Action, user: User) -> str:
        """Return a sentence about the paths on which the user may do the action. Empty: there is nothing to say.

        `streams check-access` prints it after a refusal. It is not logged, and no client sees it.
        """
        return ""

    def can_create(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Return whether the user may create the stream, also as a fork, closed, or with a first append."""
        return False

    def can_read(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Return whether the user may read the stream and its state, and fork it. Live reads are checked again."""
        return False

    def can_append(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Return whether the user may append to the stream."""
        return False

    def can_close(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Return whether the user may close the stream."""
        return False

    def can_delete(self, user: User, path: str, request: AccessRequest) -> Verdict:
        """Return whether the user may delete the stream."""
        return False

    def can_subscribe(self, user: User, subscription_id: str, request: AccessRequest) -> Verdict:
        """Return whether the user may create, see, change, claim and delete the subscription.

        A subscription tells the paths and offsets of all streams that its creator names, and sends them to a webhook.
        It tells no data of streams.
        """
        return False

    def can_list(self, user: User, prefix: str, request: AccessRequest) -> Verdict:
        """Return whether the user may list all streams whose paths begin with a prefix. An empty one means all streams.

        A listing tells paths, content types, sizes and times, also of streams that the user may not read. It tells no
        data of streams. Who may list all streams may read the registry (`REGISTRY_PATH`), too.
        """
        return False
