"""What docs/ai.md says of the events of a chat and of its messages is so, and its other samples run."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from django.test import override_settings

from django_durable_streams.checks.access import check_permission
from django_durable_streams.checks.settings import check_settings
from django_durable_streams.conf import SETTING
from django_durable_streams.contrib.ai.answers import Chat
from django_durable_streams.contrib.ai.events import AnyEvent, Event, Message, Part, Start, Text, TextPart, encode
from django_durable_streams.contrib.ai.history import ChatMessage
from django_durable_streams.models import Stream
from tests.docs.pages import ROOT, blocks, code, section, table

PAGE = ROOT / "docs" / "ai.md"
STATIC = ROOT / "django_durable_streams" / "static" / "durable_streams"
TEXT = section(PAGE, "The events of a chat")
PARTS = TEXT.partition("These are the parts")[2]


def fields_of(kind: Any) -> dict[str, str | None]:
    """The names of a struct's fields in JSON, with their defaults as JSON has them."""
    result: dict[str, str | None] = {}
    for field in msgspec.structs.fields(kind):
        default = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if default is msgspec.NODEFAULT:
            result[field.encode_name] = None
        else:
            is_word = isinstance(default, str) and default
            result[field.encode_name] = default if is_word else json.dumps(default)
    return result


def shown(cell: str) -> dict[str, str | None]:
    return {name: default or None for name, default in re.findall(r"`(\w+)`(?: \(`([^`]*)`\))?", cell)}


@pytest.mark.parametrize(("text", "union"), [(TEXT, AnyEvent), (PARTS, Part)], ids=["events", "parts"])
def test_every_type_is_shown_with_its_fields_and_defaults(text: str, union: Any) -> None:
    kinds = {kind.__struct_config__.tag: fields_of(kind) for kind in get_args(union)}
    assert {code(row[0]): shown(row[1]) for row in table(text)} == kinds


def test_every_field_of_a_message_is_shown() -> None:
    names = [code(name) for name, _ in table(section(PAGE, "The chat as messages"))]
    assert names == list(ChatMessage.__struct_fields__)


def test_a_default_is_left_out() -> None:
    assert encode(Message("u1", "user", [TextPart("Hi")])) == {
        "type": "message",
        "id": "u1",
        "parts": [{"type": "text", "text": "Hi"}],
    }


def test_the_permission_is_one_to_read() -> None:
    (block,) = [block for block in blocks(PAGE, "python") if "PERMISSION_CLASSES" in block.text]
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    with override_settings(DURABLE_STREAMS=scope[SETTING]):
        assert check_settings(None) == []
        assert check_permission(None) == []
    assert list(scope[SETTING]["PERMISSION_CLASSES"]["OWNER"].values()) == [["read"]]


@pytest.mark.parametrize("name", ["resuming-fetch.js", "event-source.js"])
def test_the_modules_are_there_and_need_nothing(name: str) -> None:
    assert not re.search(r"^import\b|\brequire\b", (STATIC / name).read_text(), re.MULTILINE)
    pages = [Path("docs/ai.md"), Path("docs/browser.md"), Path("docs/pages.md")]
    assert any(f"durable_streams/{name}" in (ROOT / page).read_text() for page in pages)


@pytest.mark.django_db
def test_a_snapshot_has_the_messages_and_the_place_after_them() -> None:
    chat = Chat.objects.create(stream=Stream.objects.create(path="chats/1/a", content_type="application/json"))
    assert chat.snapshot() == ([], "-1")
    events: list[Event] = [Message("u1", "user", [TextPart("Hi")]), Start("run-1", "a1"), Text("Good ")]
    chat.stream.append_many([encode(event) for event in events])
    snapshot = chat.snapshot()
    assert [(message.id, message.text, message.status, message.run) for message in snapshot.messages] == [
        ("u1", "Hi", "done", ""),
        ("a1", "Good ", "streaming", "run-1"),
    ]
    assert snapshot.answer == "run-1"
    assert snapshot.messages == chat.messages()
    chat.stream.append(encode(Text("day")))
    assert list(chat.stream.read(snapshot.next_offset)) == [{"type": "text", "text": "day"}]
    assert chat.snapshot().messages[-1].text == "Good day"
