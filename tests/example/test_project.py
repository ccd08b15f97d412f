"""The example project without a browser: a model of a provider, and permissions other than the default."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded
from tests.ai.provider import Provider
from tests.ai.provider import provider as serving
from tests.servers import EXAMPLE, example_environment, migrated_sqlite_file

CHAT = """
import json
from asgiref.sync import async_to_sync
from django.test import Client
from django_durable_streams.contrib.ai.answers import Chat

body = {"id": "c1", "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Which tea?"}]}]}
response = Client().post("/api/chat", json.dumps(body), content_type="application/json")
assert response.status_code == 201, response.content
run = Chat.at("chats/c1").runs.get()
async_to_sync(run.await_end)()
print(json.dumps([run.state, run.error, Chat.at("chats/c1").messages()[-1].text]))
"""

STRICT = """
import json
from django.contrib.auth.models import User
from django.test import Client

anonymous, client = Client(), Client()
client.force_login(User.objects.create_user("ada"))
pages = ["/", "/c/abc/", "/board/", "/board/columns"]
forms = ["/c/abc/branch", "/board/cards", "/board/here", "/board/cards/1/delete"]
body = {"id": "c1", "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]}
print(json.dumps({
    "pages": [anonymous.get(page).status_code for page in pages],
    "forms": [anonymous.post(form).status_code for form in forms],
    "chat": anonymous.post("/api/chat", json.dumps(body), content_type="application/json").status_code,
    "after login": [client.get(page).status_code for page in pages],
}))
"""


HOSTILE = """
import json
from django.test import Client
from django_durable_streams.contrib.ai.answers import Chat
from django_durable_streams.models import Stream

client = Client()
longest = "c" * 128
long = ["c" * 129, "c" * 3000, "-c", "c.c", "%00"]
client.get("/board/")
visitor = client.cookies["visitor"].value.split(":")[0]
Stream.objects.create(path=f"presence/board/{visitor}", content_type="text/plain").close()
body = {"id": "c1", "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Which tea?"}]}]}
for id in ("c1", longest):
    client.post("/api/chat", json.dumps({**body, "id": id}), content_type="application/json")
stream = Chat.at("chats/c1").stream
foreign = [None, [], "x", {"type": "message"}, {"type": "message", "id": "m2", "parts": None}]
stream.append_many([*foreign, {"type": "start", "run": 1}])
print(json.dumps({
    "longest": client.get(f"/c/{longest}/").status_code,
    "unknown": client.get("/c/c2/").status_code,
    "long": [client.get(f"/c/{id}/").status_code for id in long],
    "long branch": client.post(f"/c/{long[1]}/branch").status_code,
    "here": client.post("/board/here").status_code,
    "odd branches": [client.post("/c/c1/branch", {"before": before}).status_code for before in ("", "m9", chr(0))],
    "branch": client.post("/c/c1/branch", {"before": "m1"}).status_code,
    "messages": len(client.get("/api/chat/c1/messages").json()["messages"]) > 0,
    "cards": [client.post(f"/board/cards/{pk}/delete").status_code for pk in ("9" * 30, "1")],
}))
"""


def run(tmp_path: Path, script: str, variables: dict[str, str]) -> Any:
    """Run a script in the example project, on a database of its own, and return what it prints."""
    database = tmp_path / "db.sqlite3"
    database.write_bytes(migrated_sqlite_file().read_bytes())
    command = [sys.executable, str(EXAMPLE / "manage.py"), "shell", "--verbosity", "0", "-c", script]
    environment = example_environment(
        {"DATABASE_URL": f"sqlite:///{database}", "ALLOWED_HOSTS": "testserver", **variables}
    )
    done = preloaded.run(command, cwd=EXAMPLE, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as provider:
        yield provider


def chunk(text: str, reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tea", "choices": [choice]}


def settings_for(provider: Provider) -> dict[str, str]:
    return {"OPENAI_MODEL": "tea", "OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": "none"}


def test_a_model_answers_if_the_environment_names_one(tmp_path: Path, provider: Provider) -> None:
    provider.script = [chunk("Green "), chunk("tea.", "stop"), "[DONE]"]
    assert run(tmp_path, CHAT, settings_for(provider)) == ["done", "", "Green tea."]
    (request,) = provider.requests
    assert (request["model"], request["messages"]) == ("tea", [{"role": "user", "content": "Which tea?"}])


def test_a_model_that_refuses_ends_the_answer_without_secrets(tmp_path: Path, provider: Provider) -> None:
    provider.status = 401
    state, error, text = run(tmp_path, CHAT, settings_for(provider))
    assert (state, error, text) == ("failed", "The model did not answer (AuthenticationError).", "")


def test_other_permissions_ask_for_a_login(tmp_path: Path) -> None:
    answers = run(tmp_path, STRICT, {"PERMISSION": "django_durable_streams.permissions.ModelPermissions"})
    assert answers == {
        "pages": [302] * 4,
        "forms": [302] * 4,
        "chat": 403,
        "after login": [200, 404, 200, 200],  # there is no chat yet
    }


def test_odd_addresses_and_streams_of_others_are_no_errors_of_the_server(tmp_path: Path) -> None:
    """Everybody may use the streams of the example, also those that its pages need."""
    assert run(tmp_path, HOSTILE, {}) == {
        "longest": 200,
        "unknown": 404,
        "long": [404] * 5,
        "long branch": 404,
        "here": 200,
        "odd branches": [400] * 3,
        "branch": 201,
        "messages": True,
        "cards": [404, 404],
    }


@pytest.mark.parametrize(
    ("variable", "value"),
    [("EXAMPLE_DOOR", "wsgi"), ("PUBLIC_URL", "192.168.1.20:8000"), ("TOKENS_PER_SECOND", "0")],
)
def test_an_odd_setting_is_named_at_the_start(variable: str, value: str) -> None:
    command = [sys.executable, str(EXAMPLE / "manage.py"), "check"]
    done = preloaded.run(command, cwd=EXAMPLE, env=example_environment({variable: value}), timeout=60)
    assert done.returncode == 1
    assert f"ImproperlyConfigured: {variable} " in done.stderr


def test_lists_may_have_spaces(tmp_path: Path) -> None:
    script = """
import json
from django.conf import settings
print(json.dumps([settings.ALLOWED_HOSTS, settings.DURABLE_STREAMS["PERMISSION_CLASSES"], settings.IS_OPEN]))
"""
    classes = [f"django_durable_streams.permissions.{name}" for name in ("SignedURLs", "ModelPermissions")]
    variables = {"ALLOWED_HOSTS": "a.example, b.example,", "PERMISSION": ", ".join(classes)}
    assert run(tmp_path, script, variables) == [["a.example", "b.example"], classes, False]
    assert run(tmp_path, script, {"PERMISSION": ""})[2] is True
