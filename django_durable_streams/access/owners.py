"""Streams that belong to users by their paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .access_request import AccessRequest
from .base import STREAM_ACTIONS, Action, Permission
from .patterns import pattern, value_of
from .users import User

_ACTIONS = (*STREAM_ACTIONS, Action.LIST.value)


class Owner(Permission):
    """Allows users to use the streams at their own paths. It allows no subscriptions, which may follow any stream.

    Args:
        owner: a pattern of paths such as `users/{user.pk}/**`, or a list of patterns. They allow all actions. Or a dict
            from patterns to lists of actions: create, read, append, close, delete, list. Only a pattern that ends
            with `/**` allows to list. A pattern without a field of the user is for all users who are logged in.

    Raises:
        ValueError: a pattern or an action is invalid.
    """

    in_memory = True

    def __init__(self, *, owner: str | Iterable[str] | Mapping[str, Iterable[str]]) -> None:
        if isinstance(owner, str):
            owner = [owner]
        actions_by_pattern = owner if isinstance(owner, Mapping) else dict.fromkeys(owner, _ACTIONS)
        self._patterns = {
            action: [pattern(text) for text in actions_by_pattern if action in actions_by_pattern[text]]
            for action in _ACTIONS
        }
        self.patterns = [pattern(text) for text in actions_by_pattern]
        for text, actions in actions_by_pattern.items():
            if isinstance(actions, str) or not set(actions) <= set(_ACTIONS):
                raise ValueError(f"The actions of {text!r} must be a list with some of: {', '.join(_ACTIONS)}.")

    def allowed_paths(self, action: Action, user: User) -> str:
        if not user.is_authenticated or action.value not in self._patterns:
            return ""
        patterns = ", ".join(one.as_for(user) for one in self._patterns[action.value])
        return f"Patterns for {user} to {action.value}: {patterns or 'none'}."

    def may_allow(self, action: Action, first: str) -> bool:
        """Return whether a pattern may allow the action on a path that begins with the segment `first`.

        Only the first segment of each pattern is compared.
        """
        segments = (one.text.partition("/")[0] for one in self._patterns[action.value])
        return any(segment == first or not {"*", "{"}.isdisjoint(segment) for segment in segments)

    def prepare(self, user: User) -> None:
        # A field may lead to another model. This query loads it, so later checks use memory only.
        for patterns in self._patterns.values():
            for path_pattern in patterns:
                for field in path_pattern.fields:
                    value_of(user, field)

    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.CREATE, user, path, request)

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.READ, user, path, request)

    def can_append(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.APPEND, user, path, request)

    def can_close(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.CLOSE, user, path, request)

    def can_delete(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.DELETE, user, path, request)

    def can_list(self, user: User, prefix: str, request: AccessRequest) -> bool:
        patterns = self._patterns[Action.LIST.value]
        if user.is_authenticated and any(one.matches_all_below(prefix, user) for one in patterns):
            return True
        return _refuse(user, request)

    def _allows(self, action: Action, user: User, path: str, request: AccessRequest) -> bool:
        if user.is_authenticated and any(one.matches(path, user) for one in self._patterns[action.value]):
            return True
        return _refuse(user, request)


def _refuse(user: User, request: AccessRequest) -> bool:
    if user.is_authenticated:
        request.explain("No pattern of OWNER allows this user the action on this path.")
    else:
        request.explain_default("OWNER is for users who are logged in.")
    return False
