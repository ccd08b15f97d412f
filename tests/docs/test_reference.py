"""docs/reference says what is there: headers, statuses, and the options of commands."""

import inspect
import re

from django_durable_streams.protocol import errors, headers
from django_durable_streams.protocol.errors import DurableStreamsError
from tests.docs.pages import ROOT, section, table
from tools import write_options

HTTP = ROOT / "docs" / "reference" / "http.md"


def shown(title: str) -> set[str]:
    """The names in the first column of a table."""
    return {name for row in table(section(HTTP, title)) for name in re.findall(r"`([^`]+)`", row[0])}


def test_every_header_is_in_a_table() -> None:
    names = {value.decode() for name, value in vars(headers).items() if name.isupper() and isinstance(value, bytes)}
    there = {name.lower() for title in ("Request headers", "Response headers") for name in shown(title)}
    assert len(names) > 30
    assert names - there == set()


def test_headers_of_streams_are_those_of_the_code() -> None:
    names = {value for name, value in vars(headers).items() if name.isupper() and isinstance(value, bytes)}
    for title in ("Request headers", "Response headers"):
        ours = {name.lower().encode() for name in shown(title) if name.startswith(("Stream-", "Producer-"))}
        assert ours <= names
    source = "".join(path.read_text() for path in (ROOT / "django_durable_streams").rglob("*.py")).lower()
    for name in shown("Response headers"):
        assert f'b"{name.lower()}"' in source or f'"{name.lower()}"' in source, name


def test_every_status_of_a_refusal_is_on_the_page() -> None:
    statuses = {
        kind.status for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DurableStreamsError)
    }
    on_page = set(map(int, re.findall(r"\b([45]\d\d)\b", section(HTTP, "Requests"))))
    assert statuses - {500} == on_page


def test_the_options_of_commands_are_those_of_their_parsers() -> None:
    assert write_options.PAGE.read_text() == write_options.page(), "run tools/write_options.py"
