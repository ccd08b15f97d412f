"""Texts of clients in log messages and on terminals: without characters that control them. Knows no stream."""

from __future__ import annotations

import re

_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_LINE_BREAKS = re.compile("[\t\n]")

MAX_LOGGED = 1000
"""Characters of a client's text in a log message: more than a path has."""

_LOGGED_END = 200
"""Characters of a longer text that are kept from its end."""


def printable(text: str) -> str:
    """Return a text with escapes in place of characters that control a terminal, or the direction of a line.

    Clients choose paths and names. Characters from U+0080 to U+009F may be in them, and some terminals obey these.
    """
    return _INVISIBLE.sub(_escape, text)


def loggable(text: str) -> str:
    """Return a text that stays in one line of a log, and has a bounded length."""
    if text.isascii() and text.isprintable() and len(text) <= MAX_LOGGED:
        return text
    if len(text) > MAX_LOGGED:
        text = f"{text[: MAX_LOGGED - _LOGGED_END]}[...]{text[-_LOGGED_END:]}"
    return _LINE_BREAKS.sub(_escape, printable(text))


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
