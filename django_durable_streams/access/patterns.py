"""Patterns of stream paths in settings and tokens.

`*` matches one segment. `**` at the end matches all segments that follow. `{user.pk}` and other attributes of the user
match their values, each inside one segment.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .users import User

_FIELD = re.compile(r"\{(user(?:\.[a-zA-Z][a-zA-Z0-9_]*)+)\}")
_TOKEN = re.compile(r"\{user[^}]*\}|\*+|[^*{]+|\{")

PATH_RULE = "a path has no slash at its ends, and no empty segment."
"""Why no path matches some patterns: see `Pattern.can_match`."""


class Pattern:
    """A compiled pattern of paths.

    Attributes:
        text: the pattern as it was written.
        fields: the attributes of the user in the pattern, such as `user.pk`.

    Raises:
        ValueError: the text is not a pattern.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise ValueError(f"A pattern of paths must be a text such as 'users/{{user.pk}}/**', not {text!r}.")
        self.text = text
        self.fields: list[str] = []
        self._regex = re.compile("".join(self._translate(token) for token in _TOKEN.findall(text)), re.DOTALL)
        if "**" in text.removesuffix("/**").removesuffix("**") or "***" in text:
            raise ValueError(f"In {text!r}, ** may only stand at the end.")
        if text.endswith("**") and text not in ("**",) and not text.endswith("/**"):
            raise ValueError(f"In {text!r}, ** must be a segment of its own.")

    def _translate(self, token: str) -> str:
        if token == "**":
            return ".+"
        if token == "*":
            return "[^/]+"
        field = _FIELD.fullmatch(token)
        if field is not None:
            self.fields.append(field[1])
            return "([^/]+)"
        if token.startswith("{"):
            raise ValueError(
                f"In {self.text!r}, {token} is not an attribute of the user. Write {{user.pk}} or another attribute."
            )
        return re.escape(token)

    def matches(self, path: str, user: User = None) -> bool:
        """Return whether a path matches for a user. A field without a value never matches."""
        match = self._regex.fullmatch(path)
        if match is None or not self.fields:
            return match is not None
        # Values are compared as text, so no user's name can act as a pattern.
        return all(text == value_of(user, field) for text, field in zip(match.groups(), self.fields, strict=True))

    @property
    def can_match(self) -> bool:
        """Whether any stream can have a path that matches. No path has a slash at its ends, or an empty segment."""
        return not {"", ".", ".."} & set(self.text.split("/"))

    def as_for(self, user: User) -> str:
        """Return the pattern with the values of a user. A field without a value stays, and matches nothing."""
        return _FIELD.sub(lambda match: value_of(user, match[1]) or match[0], self.text)

    def matches_all_below(self, prefix: str, user: User = None) -> bool:
        """Return whether all paths that begin with a prefix match for a user, whatever follows.

        Only `**` at the end of the pattern takes any rest. It takes one character, and then it takes all that follow.
        """
        return self.text.endswith("**") and self.matches(prefix + "x", user)


def value_of(user: User, field: str) -> str | None:
    """Return the value of a field such as `user.pk` as text, or None if it has no value."""
    value: object = user
    for name in field.split(".")[1:]:
        value = getattr(value, name, None)
        if value is None or callable(value):
            return None
    return str(value)


@lru_cache(maxsize=1024)
def pattern(text: str) -> Pattern:
    """Return the pattern of a text. Compiled patterns are cached.

    Raises:
        ValueError: the text is not a pattern.
    """
    return Pattern(text)
