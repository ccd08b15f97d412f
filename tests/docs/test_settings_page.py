"""docs/settings.md has every setting under a heading of its own, with its type and default."""

import re
from typing import NamedTuple

from django.test import override_settings

from django_durable_streams.conf import SETTING, Config, config, findings, names
from tests.docs.pages import ROOT, code

PAGE = ROOT / "docs" / "settings.md"

# A value of each type, as the page names it.
VALUES = {
    "True or False": True,
    "A whole number": 7,
    "A number": 7.5,
    "A text": "text",
    "A list": ["text"],
    "A dict": {"key": "value"},
}


class Entry(NamedTuple):
    """A setting of the page."""

    name: str
    type: str
    default: str
    meaning: str


def entries() -> list[Entry]:
    matches = re.findall(
        r"^### (.+)\n\n(.+)\. Default: (.+)\n\n((?:(?!#).+\n)+(?:\n|\Z)?)", PAGE.read_text(), re.MULTILINE
    )
    return [Entry(name, kind, code(default), meaning.strip()) for name, kind, default, meaning in matches]


def test_every_setting_has_a_heading_and_nothing_else_has() -> None:
    headings = re.findall(r"^### (.+)$", PAGE.read_text(), re.MULTILINE)
    assert headings == [entry.name for entry in entries()]
    assert sorted(headings) == sorted(names())


def test_the_page_has_the_defaults() -> None:
    # Its values are Python, so they can be given as settings: that has to make no difference.
    shown = {entry.name: eval(entry.default, {"__builtins__": {}}) for entry in entries()}
    with override_settings(**{SETTING: shown}):
        assert config() == Config()


def is_accepted(name: str, value: object) -> bool:
    """Whether a value has a type that a setting may have."""
    return all(finding.id != "durable_streams.E003" for finding in findings({name: value}))


def test_the_page_has_the_types() -> None:
    shown = {entry.name: entry.type for entry in entries()}
    assert shown.pop("PERMISSION_CLASSES") == "A text, a dict or a list"
    for name, kind in shown.items():
        accepted = {one for one, value in VALUES.items() if is_accepted(name, value)}
        assert accepted == ({"A whole number", kind} if kind == "A number" else {kind}), name


def test_the_page_explains_every_setting() -> None:
    assert all(entry.meaning.endswith(".") for entry in entries())
