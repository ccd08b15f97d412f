"""What an examination has found."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One finding: its subject, what was seen, and what to do."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    """Return a finding that something is as it should be."""
    return Finding(Level.OK, subject, text)


def note(subject: str, text: str, remedy: str = "") -> Finding:
    """Return a finding that may be as somebody wants it."""
    return Finding(Level.NOTE, subject, text, remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding that costs speed or safety."""
    return Finding(Level.WARNING, subject, text, remedy)


def error(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding that something cannot work."""
    return Finding(Level.ERROR, subject, text, remedy)
