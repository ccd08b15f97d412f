"""What docs/ai.md says of the events of a chat and of its messages is so, and its other samples run."""

import inspect
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, Self, get_args

import httpx
import msgspec
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import Client, override_settings

from django_durable_streams.checks.access import check_permission
from django_durable_streams.checks.settings import check_settings
from django_durable_streams.conf import SETTING
from django_durable_streams.contrib.ai.answers import Answer, AnswerContext, Chat, Run, start_answer
from django_durable_streams.contrib.ai.events import AnyEvent, Event, Message, Part, Start, Text, TextPart, encode
from django_durable_streams.contrib.ai.history import ChatMessage
from django_durable_streams.models import Stream
from tests.docs.pages import ROOT, Block, blocks, code, section, table
from tests.docs.walk import TUTORIAL, Walk, environment

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


def shown_fields(cell: str) -> dict[str, str | None]:
    return {name: default or None for name, default in re.findall(r"`(\w+)`(?: \(`([^`]*)`\))?", cell)}


@pytest.mark.parametrize(("text", "union"), [(TEXT, AnyEvent), (PARTS, Part)], ids=["events", "parts"])
def test_every_type_is_shown_with_its_fields_and_defaults(text: str, union: Any) -> None:
    kinds = {kind.__struct_config__.tag: fields_of(kind) for kind in get_args(union)}
    assert {code(row[0]): shown_fields(row[1]) for row in table(text)} == kinds


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
    (block,) = [block for block in blocks(PAGE, "python") if f"{SETTING} = " in block.text]
    scope: dict[str, Any] = {"INSTALLED_APPS": [], "DATABASES": {"default": {}}}
    exec(block.text, scope)
    with override_settings(DURABLE_STREAMS=scope[SETTING]):
        assert check_settings(None) == []
        assert check_permission(None) == []
    text = PAGE.read_text()
    assert text.index(block.text) < text.index("# shop/views.py")  # whoever copies the page has met it
    owner = scope[SETTING]["PERMISSION_CLASSES"]["OWNER"]
    assert owner == {"chats/{user.pk}/**": ["read"]}


@pytest.mark.parametrize("is_list", [False, True])
def test_a_project_with_streams_keeps_its_permissions(is_list: bool) -> None:
    additions = [block for block in blocks(PAGE, "python") if f'{SETTING}["PERMISSION_CLASSES"]' in block.text]
    assert ["+= [\n" in block.text for block in additions] == [False, True]
    (chat,) = [block.text for block in blocks(TUTORIAL / "chat.md", "python") if SETTING in block.text]
    scope: dict[str, Any] = {"INSTALLED_APPS": [], "DATABASES": {"default": {}}}
    exec(chat, scope)
    apps = scope["INSTALLED_APPS"]
    before = scope[SETTING]["PERMISSION_CLASSES"]
    if is_list:
        scope[SETTING]["PERMISSION_CLASSES"] = [before]
    exec(additions[is_list].text, scope)
    assert scope["INSTALLED_APPS"] == [*dict.fromkeys([*apps, "django_durable_streams.contrib.ai", "shop"])]
    with override_settings(DURABLE_STREAMS=scope[SETTING]):
        assert check_settings(None) == []
        assert check_permission(None) == []
    classes = scope[SETTING]["PERMISSION_CLASSES"] if is_list else [scope[SETTING]["PERMISSION_CLASSES"]]
    opened = {pattern: actions for one in classes for pattern, actions in one["OWNER"].items()}
    assert opened == {"chat/**": ["read"], "chats/{user.pk}/**": ["read"]}


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


def parts_of_urls() -> list[Block]:
    """Return the blocks of the file with the URLs: the first one, the whole file of the page, and its end."""
    return [block for block in blocks(PAGE, "python") if block.text.startswith("# shop/urls.py")]


def test_the_file_of_the_urls_is_shown_whole_where_the_views_are() -> None:
    first, whole, end = parts_of_urls()
    assert whole.text.startswith("# shop/urls.py\n")
    assert end.text.startswith("# shop/urls.py, at the end\n")
    assert first.text.partition("class ")[2].partition("\n\n\n")[0] in whole.text
    text = PAGE.read_text()
    assert text.index("# shop/views.py") < text.index(whole.text) < text.index("# shop/templates/shop/chat.html")


def test_a_new_project_with_the_files_of_the_page_has_a_chat(tmp_path: Path) -> None:
    """The blocks that name a file are its files, in their order. A model would need a key."""
    walk = Walk(tmp_path, environment())
    walk.run("django-admin startproject mysite")
    walk.folder /= "mysite"
    files = [
        block
        for block in blocks(PAGE, "sh", "python", "html+django")
        if block.language == "sh" or (re.match(r"(#|\{#) (mysite|shop)/", block.text) and "openai" not in block.text)
    ]
    with (walk.folder / "mysite" / "settings.py").open("a") as settings:
        settings.write('LOGIN_URL = "admin:login"\n')
    starts = [block for block in files if block.language == "sh"]
    walk.prepare([starts[0], *(block for block in files if block.language != "sh"), *starts[1:]])
    create = "from django.contrib.auth.models import User; User.objects.create_superuser('ada', password='tea')"
    walk.run(f'python manage.py shell --verbosity 0 -c "{create}"')
    with walk.serving() as url, httpx.Client(base_url=url) as client:
        for page in ("/chat/new/", "/chat/tea/", "/chats/"):
            assert client.get(page).headers["Location"].startswith("/admin/login/"), page
        client.get("/admin/login/")
        form = {"csrfmiddlewaretoken": client.cookies["csrftoken"], "username": "ada", "password": "tea"}
        assert client.post("/admin/login/", data=form).status_code == 302
        page = client.get("/chat/new/").headers["Location"]
        chat_id = page.strip("/").rpartition("/")[2]
        assert client.get(page).status_code == 200
        parts = [{"type": "text", "text": "tea"}]
        body = {"id": chat_id, "messages": [{"id": "u1", "role": "user", "parts": parts}]}
        answer = client.post("/api/chat", json=body, headers={"X-CSRFToken": client.cookies["csrftoken"]})
        assert (answer.status_code, "said: " in answer.text) == (200, True)
        assert len(client.get(f"/api/chat/{chat_id}/messages").json()["messages"]) == 2
        (stream,) = re.findall(r'follow\("([^"]+)"', client.get(page).text)
        with client.stream("GET", f"{stream}?offset=now&live=sse") as response:
            assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream")
        assert f"/chat/{chat_id}/" in client.get("/chats/").text
    assert "Starting ASGI/Daphne" in walk.log.read_text()


@pytest.mark.usefixtures("engines")
def test_a_colleague_with_the_link_to_a_chat_sees_an_empty_one() -> None:
    ada, bob = User.objects.create_user("ada"), User.objects.create_user("bob")
    answered(iter(["Hello"]), ada, f"chats/{ada.pk}/tea")
    module = ModuleType("urls_of_the_page")
    module.__dict__["urlpatterns"] = shown("TeaChat").urls("api/chat")
    for user, status, count in ((ada, 200, 2), (bob, 200, 0), (None, 403, 0)):
        client = Client()
        if user is not None:
            client.force_login(user)
        with override_settings(ROOT_URLCONF=module):
            response = client.get("/api/chat/tea/messages")
        assert (response.status_code, len(response.json().get("messages", []))) == (status, count), user


def shown(name: str) -> Any:
    """Return a function or class of the page, with the one block that defines it executed."""
    (block,) = [
        block
        for block in blocks(PAGE, "python")
        if re.search(rf"^(async def|def|class) {name}\b", block.text, re.M) and block not in parts_of_urls()[1:]
    ]
    scope: dict[str, Any] = {"__name__": "shop"}
    exec(compile(block.text, str(block), "exec"), scope)
    return scope[name]


def answered(source: Any, user: User, path: str) -> ChatMessage:
    """Return the answer of a source to a message."""

    async def run() -> Run:
        turn = Message(f"{path} u1", "user", [TextPart("Good morning")])
        return await (await start_answer(path, Answer(source), user=user, turns=[turn])).await_end()

    run_of_chat = async_to_sync(run)()
    assert run_of_chat.state == Run.State.DONE
    chat = Chat.at(path)
    assert chat is not None
    return chat.messages()[-1]


@pytest.mark.usefixtures("engines")
def test_the_first_source_answers_without_a_model() -> None:
    user = User.objects.create_user("ada")
    assert answered(shown("echo"), user, f"chats/{user.pk}/a").text == "You said: Good morning "


class _Models:
    """A stand-in for the package `openai`, whose model answers with one word, and notes what it was asked."""

    asked: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        pass

    async def _create(self, **request: Any) -> AsyncIterator[Any]:
        self.asked.append(request["messages"])

        async def chunks() -> AsyncIterator[Any]:
            delta = SimpleNamespace(content="day", refusal=None, tool_calls=None)
            yield SimpleNamespace(choices=[SimpleNamespace(delta=delta, finish_reason="stop")], usage=None)

        return chunks()


@pytest.mark.parametrize("written", [[], [Text("Good "), Text("eve")]], ids=["from the start", "in the middle"])
async def test_a_model_goes_on_after_what_is_written(written: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", SimpleNamespace(AsyncOpenAI=_Models))
    question = ChatMessage("u1", "user", [TextPart("Hi")])
    context = AnswerContext("run-1", Chat(), "", [question], written)  # type: ignore[arg-type]
    events = [event async for event in shown("steady_reply")(context, "some-model")]
    assert [event.text for event in events if isinstance(event, Text)] == ["day"]
    asked = _Models.asked.pop()
    assert [turn["role"] for turn in asked[:2]] == ["system", "user"]
    assert [turn["content"] for turn in asked[2:3]] == (["Good eve"] if written else [])
    assert len(asked) == (4 if written else 2)


@pytest.mark.usefixtures("engines")
def test_the_chats_of_a_user_are_found_newest_first() -> None:
    ada, bob = User.objects.create_user("ada"), User.objects.create_user("bob")
    for user, name in ((ada, "first"), (ada, "second"), (bob, "other"), (ada, "deleted")):
        answered(iter([name]), user, f"chats/{user.pk}/{name}")
    Stream.objects.get(path=f"chats/{ada.pk}/deleted").delete()
    chats = shown("chats_of")(ada)
    assert [chat.path.rpartition("/")[2] for chat in chats] == ["second", "first"]
    text = section(PAGE, "The chats of a user")
    names = {field.name for field in Chat._meta.concrete_fields} - {"id"}
    assert {name for name in names if f"`{name}`" in text} == names


def test_the_classes_that_are_shown_name_their_sources() -> None:
    source = shown("count")
    answer = shown("CountingChat")().answer(None)
    assert (answer.source.rpartition(".")[2], answer.on_lost) == (source.__name__, "continue")
    assert set(answer.arguments) <= set(inspect.signature(source).parameters)
    assert shown("TeaChat")().answer(None).source.rpartition(".")[2] == shown("echo").__name__
