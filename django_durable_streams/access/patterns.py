"""Patterns of stream paths, as settings and tokens write them.

`*` is one segment, `**` at the end everything below; `{user.pk}` and other attributes of the user stand for their
values, each inside one segment.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .users import User

_FIELD = re.compile(r"\{(user(?:\.[a-zA-Z][a-zA-Z0-9_]*)+)\}")
_TOKEN = re.compile(r"\{user[^}]*\}|\*+|[^*{]+|\{")


class Pattern:
    """A pattern of paths.

    Raises:
        ValueError: it means nothing.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise ValueError(f"A pattern of paths is a text such as 'users/{{user.pk}}/**', not {text!r}.")
        self.text = text
        self.fields: list[str] = []
        self._regex = re.compile("".join(self._translate(token) for token in _TOKEN.findall(text)), re.DOTALL)
        if "**" in text.removesuffix("/**").removesuffix("**") or "***" in text:
            raise ValueError(f"In {text!r}, ** can stand at the end only.")
        if text.endswith("**") and text not in ("**",) and not text.endswith("/**"):
            raise ValueError(f"In {text!r}, ** has to be a segment of its own.")

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
            raise ValueError(f"In {self.text!r}, {token} means nothing; write {{user.pk}} or another attribute.")
        return re.escape(token)

    def matches(self, path: str, user: User = None) -> bool:
        """Whether a path is meant, for a user. A user without a value, as anonymous ones have no pk, has no paths."""
        found = self._regex.fullmatch(path)
        if found is None:
            return False
        # What the path has must be exactly the user's value: nothing that a user is called can act as a pattern.
        return all(text == value_of(user, field) for text, field in zip(found.groups(), self.fields, strict=True))


def value_of(user: User, field: str) -> str | None:
    """Return the value of a field such as `user.pk`, as text; None where there is none."""
    value: object = user
    for name in field.split(".")[1:]:
        value = getattr(value, name, None)
        if value is None or callable(value):
            return None
    return str(value)


@lru_cache(maxsize=1024)
def pattern(text: str) -> Pattern:
    """Return the pattern that a text is, compiled once.

    Raises:
        ValueError: it means nothing.
    """
    return Pattern(text)
