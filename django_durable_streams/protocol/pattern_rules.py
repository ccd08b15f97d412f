"""Rules of streams that a setting gives by patterns of their paths. Knows no particular rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from .errors import DurableStreamsError, InvalidParameter
from .globs import Glob

Rules = TypeVar("Rules", bound=tuple[Any, ...])


class PatternRules(Generic[Rules]):
    """The rules of paths, by pattern. Of several patterns that match, the first one counts.

    Args:
        setting: the rules of each pattern, as a dict with some of the names.
        make: returns the checked rules for the values of such a dict, or raises a DurableStreamsError.
        names: the names of the rules.
        example: rules as text, for messages.

    Raises:
        DurableStreamsError: a pattern or a rule is invalid. The message names it.
    """

    def __init__(
        self, setting: Mapping[str, Any], make: Callable[..., Rules], names: tuple[str, ...], example: str
    ) -> None:
        self._make, self._names, self._example = make, names, example
        self.patterns: list[tuple[Glob, Rules]] = [
            (_glob_of(text), self._rules_of(text, value)) for text, value in setting.items()
        ]

    def find(self, path: str) -> Rules | None:
        """Return the rules of a path. None: no pattern matches."""
        return next((rules for pattern, rules in self.patterns if pattern.matches(path)), None)

    def _rules_of(self, pattern: str, value: Any) -> Rules:
        if not isinstance(value, Mapping):
            raise InvalidParameter(f"The rules of {pattern!r} must be a dict such as {self._example}, not {value!r}.")
        unknown = [key for key in value if key not in self._names]
        if unknown:
            raise InvalidParameter(
                f"The rules of {pattern!r} have an unknown key: {unknown[0]!r}. Known keys: {', '.join(self._names)}."
            )
        try:
            return self._make(**value)
        except DurableStreamsError as error:
            raise InvalidParameter(f"The rules of {pattern!r}: {error.detail}") from error


def _glob_of(text: Any) -> Glob:
    if not isinstance(text, str):
        raise InvalidParameter(f"A pattern must be a text such as 'chat/*', not {text!r}.")
    return Glob(text)
