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
        "after login": [200] * 4,
    }
