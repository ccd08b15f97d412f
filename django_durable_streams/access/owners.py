"""Streams that belong to users by where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .access_request import AccessRequest
from .base import ACTIONS, Action, Permission
from .patterns import pattern, value_of
from .users import User


class Owner(Permission):
    """Users may do with the streams at their own paths what the pattern says; nobody else may.

    Args:
        owner: a pattern of paths such as `users/{user.pk}/**`, or several, which allow everything; or a dict from
            patterns to lists of actions: create, read, append, close, delete. A pattern without a field of the user
            is for everybody who is logged in.

    Raises:
        ValueError: a pattern or an action means nothing.
    """

    in_memory = True

    def __init__(self, *, owner: str | Iterable[str] | Mapping[str, Iterable[str]]) -> None:
        if isinstance(owner, str):
            owner = [owner]
        given = owner if isinstance(owner, Mapping) else dict.fromkeys(owner, ACTIONS)
        self._patterns = {action: [pattern(text) for text in given if action in given[text]] for action in ACTIONS}
        for text, actions in given.items():
            pattern(text)
            if isinstance(actions, str) or not set(actions) <= set(ACTIONS):
                raise ValueError(f"The actions of {text!r} are a list of some of: {', '.join(ACTIONS)}.")

    def prepare(self, user: User) -> None:
        # A field may lead to another model: from here on its value is at hand.
        for patterns in self._patterns.values():
            for known in patterns:
                for field in known.fields:
                    value_of(user, field)

    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.CREATE, user, path)

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.READ, user, path)

    def can_append(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.APPEND, user, path)

    def can_close(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.CLOSE, user, path)

    def can_delete(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.DELETE, user, path)

    def _allows(self, action: Action, user: User, path: str) -> bool:
        return bool(user.is_authenticated) and any(known.matches(path, user) for known in self._patterns[action.value])
