"""Rules of retention: what of a stream is kept. Everything else may be trimmed, as whole appends.

Knows no stream: the rules of a path come from the setting `RETENTION`, or from the stream itself (`store.upkeep`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from .arguments import MAX_TTL_SECONDS
from .errors import InvalidParameter
from .offsets import MAX_NUMBER
from .pattern_rules import PatternRules


class RetentionRules(NamedTuple):
    """The rules of a stream. Data is trimmed as soon as one of them allows it. Without any, all data is kept.

    Attributes:
        age: seconds for which data is kept after it was appended.
        bytes: the newest bytes that are kept.
        messages: the newest messages that are kept.
    """

    age: int | None = None
    bytes: int | None = None
    messages: int | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in self)


KEEP_ALL = RetentionRules()

_LARGEST = {"age": MAX_TTL_SECONDS, "bytes": MAX_NUMBER, "messages": MAX_NUMBER}


def rules(*, age: Any = None, bytes: Any = None, messages: Any = None) -> RetentionRules:
    """Return checked rules.

    Args:
        age: whole seconds, or a `timedelta`.
        bytes: a number of bytes, as the data is stored.
        messages: a number of messages.

    Raises:
        InvalidParameter: one of them is no whole number, or is not greater than zero.
    """
    if isinstance(age, timedelta):
        seconds = age.total_seconds()
        age = int(seconds) if seconds == int(seconds) else seconds
    checked = RetentionRules(age, bytes, messages)
    for name, value in checked._asdict().items():
        largest = _LARGEST[name]
        if value is not None and (type(value) is not int or not 0 < value <= largest):
            unit = "seconds, or a timedelta of such," if name == "age" else f"{name},"
            raise InvalidParameter(
                f"The retention {name}={value!r} is refused. Give a whole number of {unit} from 1 to {largest}, or "
                "leave it out."
            )
    return checked


def retention_patterns(setting: Mapping[str, Any]) -> PatternRules[RetentionRules]:
    """Return the rules of paths by the setting `RETENTION`.

    Raises:
        DurableStreamsError: a pattern or a rule is invalid. The message names it.
    """
    return PatternRules(setting, rules, RetentionRules._fields, "{'age': 86400}")
