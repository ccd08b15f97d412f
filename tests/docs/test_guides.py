"""The guides of docs/howto do what they say: their settings are accepted, and their code runs."""

import json
import re
import shlex
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.core.wsgi import get_wsgi_application
from django.middleware import csrf
from django.test import Client, RequestFactory, override_settings

from django_durable_streams.checks.access import check_permission
from django_durable_streams.checks.settings import check_settings
from django_durable_streams.conf import SETTING
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import StreamExists
from django_durable_streams.testing import StreamClient, stop_engines
from tests.docs.pages import ROOT, Block, blocks, code, section, table

HOWTO = ROOT / "docs" / "howto"
SETTINGS = [
    block
    for page in sorted(HOWTO.glob("*.md"))
    for block in blocks(page, "python")
    # `test_rooms_guide` follows the guide on rooms, whose settings need the ones of its project.
    if re.search(rf"^{SETTING} = ", block.text, re.MULTILINE) and page.name != "rooms.md"
]


def run(page: str, text: str, **names: Any) -> dict[str, Any]:
    """Run the one block of Python of a page that has some text, and return its names."""
    (block,) = [block for block in blocks(HOWTO / page, "python") if text in block.text]
    exec(compile(block.text, str(block), "exec"), names)
    return names


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_the_settings_are_accepted(block: Block) -> None:
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    with override_settings(DURABLE_STREAMS=scope[SETTING]):
        assert check_settings(None) == []
        assert check_permission(None) == []


def test_there_are_settings_for_each_situation() -> None:
    situations = re.findall(r"^## ", (HOWTO / "situations.md").read_text(), re.MULTILINE)
    assert len([block for block in SETTINGS if block.page.name == "situations.md"]) == len(situations) == 7


# Refusals


def test_the_refusals_that_are_quoted_are_those_of_the_code() -> None:
    text = (HOWTO / "refused.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "django_durable_streams").rglob("*.py"))
    quoted = re.findall(
        r"^### (The CSRF check failed\..+|Streams cannot be .+|No pattern of OWNER .+)$", text, re.MULTILINE
    )
    assert len(quoted) == 5
    # One part of the answer is Django's own reason.
    parts = [part for quote in quoted for part in re.split(r"(?<=failed\.) ", quote)]
    sources = source + Path(csrf.__file__).read_text()
    assert [part for part in parts if part.strip() not in sources] == []


@pytest.mark.django_db
def test_the_commands_that_are_shown_print_what_is_shown() -> None:
    User.objects.create_user("ada", pk=7)
    (block,) = blocks(HOWTO / "refused.md", "console")
    command, *shown = block.text.splitlines()
    arguments = command.removeprefix("$ python manage.py streams ").split()
    package = "django_durable_streams.permissions"
    classes = [f"{package}.SignedURLs", {"CLASS": f"{package}.Owner", "OWNER": "users/{user.pk}/**"}]
    output = StringIO()
    with override_settings(DURABLE_STREAMS={"PERMISSION_CLASSES": classes}), pytest.raises(CommandError) as caught:
        call_command("streams", *arguments, stdout=output)
    assert [*output.getvalue().splitlines(), f"CommandError: {caught.value}"] == shown
    for _, cell in table(section(HOWTO / "refused.md", "Ask the settings")):
        assert "check-access read chat/42" in cell


# Old streams and old data


def test_whole_streams_go_and_old_data_goes(db: None) -> None:
    """The commands do what their rows of the table say: the one deletes streams, the other one data."""
    page = HOWTO / "deleting.md"
    texts = [block.text for block in blocks(page, "sh")]
    commands = [line for text in texts if "cron" not in text for line in text.splitlines()]
    assert len(commands) == 4
    for row, name in zip(table(page.read_text()), ("prune", "trim", "prune-answers"), strict=True):
        assert row[1].startswith(f"`streams {name} ")
    for path in ("chats/1/a", "logs/web", "board"):
        Stream.objects.create(path=path, content_type="text/plain").append("old")
    for command in commands:
        name, *arguments = shlex.split(command.removeprefix("python manage.py streams "))
        call_command("streams", name, *(text.replace("30d", "0s").replace("7d", "0s") for text in arguments))
        left = {stream.path: "".join(stream.read()) for stream in Stream.objects.alive()}
        expected = {"chats/1/a": "old", "logs/web": "old", "board": "old"}
        if command in commands[1:]:
            del expected["chats/1/a"]
        if command in commands[3:]:
            expected["logs/web"] = ""
        assert left == expected, command


def test_the_daily_jobs_are_those_of_the_commands() -> None:
    """`test_operations_pages` runs them."""
    pages = (HOWTO / "deleting.md", ROOT / "docs" / "commands.md")
    here, there = ([one.text for one in blocks(page, "sh") if "/etc/cron.d" in one.text] for page in pages)
    assert len(here) == 1
    assert here == there


def test_a_pattern_of_all_streams_takes_a_quiet_board(db: None) -> None:
    text = " ".join((HOWTO / "deleting.md").read_text().split())
    assert "`'**'`, and no pattern at all, take every stream" in text
    for pattern in (["**"], []):
        Stream.objects.create(path="board")
        call_command("streams", "prune", *pattern, "--idle", "0s", "--no-input")
        assert not Stream.objects.alive().exists()


def test_a_stream_that_brings_its_end_with_it(db: None) -> None:
    run("deleting.md", "ttl=")
    assert Stream.objects.get().ttl == 7 * 24 * 3600


# Other frameworks


@pytest.mark.django_db(transaction=True)
def test_a_token_of_the_login_reads_the_streams_of_its_user() -> None:
    user = User.objects.create_user("ada")
    own, other = f"users/{user.pk}/news", "users/0/news"
    for path in (own, other):
        Stream.objects.create(path=path, content_type="application/json").append({"text": "hello"})
    settings = run("frameworks.md", "BearerTokens")
    with override_settings(DURABLE_STREAMS=settings[SETTING], STREAM_KEY=settings["STREAM_KEY"]):
        request = RequestFactory().get("/token")
        request.user = user
        token = json.loads(run("frameworks.md", "def stream_token")["stream_token"](request).content)["token"]
        client = StreamClient(headers={"authorization": f"Bearer {token}"})
        assert async_to_sync(client.read)(own, "-1").json() == [{"text": "hello"}]
        assert async_to_sync(client.read)(other, "-1").status == 401
    stop_engines()


@pytest.mark.django_db
def test_the_view_of_rest_framework_appends_and_links() -> None:
    from rest_framework.test import APIRequestFactory, force_authenticate

    user = User.objects.create_user("ada")
    request = APIRequestFactory().post("/orders", {"what": "tea"}, format="json")
    force_authenticate(request, user)
    response = run("frameworks.md", "class Orders")["Orders"].as_view()(request)
    assert (response.status_code, response.data) == (201, {"news": f"/v1/stream/users/{user.pk}/news"})
    assert list(Stream.objects.get(path=f"users/{user.pk}/news").read()) == [{"ordered": "tea"}]


@pytest.mark.django_db(transaction=True)
def test_the_operation_of_ninja_returns_a_url_that_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("shop_api")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    (block,) = [block for block in blocks(HOWTO / "frameworks.md", "python") if "NinjaAPI" in block.text]
    exec(compile(block.text, str(block), "exec"), module.__dict__)
    permission = run("frameworks.md", "SignedURLs")[SETTING]
    with override_settings(DURABLE_STREAMS=permission):
        from ninja.testing import TestClient

        answer = TestClient(module.api).post("/orders", json={"what": "tea"})
        assert answer.status_code == 200
        assert Client().get(answer.json()["news"]).json() == [{"ordered": "tea"}]
        assert Client().get(answer.json()["news"].partition("?")[0]).status_code in (401, 403)
    stop_engines()


# Jobs


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The app that the page of jobs shows."""
    for block in blocks(HOWTO / "tasks.md", "python"):
        name, _, text = block.text.partition("\n")
        file = tmp_path / name.removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "reports"]:
        monkeypatch.delitem(sys.modules, name)
    return "reports"


@pytest.mark.django_db(transaction=True)
def test_a_job_that_runs_again_goes_on(reports: str) -> None:
    from importlib import import_module

    jobs = import_module("reports.jobs")
    stream = Stream.objects.create(path="reports/1", content_type="application/json")
    with stream.writer(producer="report:reports/1", close=False) as writer:
        writer.write({"row": "north"})  # a run that was killed after its first message
    for _ in range(2):
        jobs.build_report("reports/1")
    stream.refresh_from_db()
    assert stream.closed
    assert [message["row"] for message in stream.read()] == jobs.ROWS
    command = import_module("reports.management.commands.count_rows").Command()
    printed: list[str] = []
    command.stdout = type("Output", (), {"write": lambda self, text: printed.append(text)})()
    command.handle(path="reports/1")
    assert printed == ["3 rows"]
    stop_engines()


@pytest.mark.django_db(transaction=True)
def test_the_view_enqueues_a_task_of_celery(reports: str) -> None:
    from importlib import import_module

    from celery import Celery

    app = Celery("reports", set_as_current=True)
    app.conf.task_always_eager = True
    views = import_module("reports.views")
    request = RequestFactory().post("/reports")
    response = views.begin(request)
    path = json.loads(response.content)["report"].removeprefix("/v1/stream/")
    assert response.status_code == 202
    assert [message["row"] for message in Stream.objects.get(path=path).read()] == ["north", "east", "south"]
    stop_engines()


@pytest.mark.django_db(transaction=True)
@override_settings(TASKS={"default": {"BACKEND": "django_tasks.backends.immediate.ImmediateBackend"}})
def test_a_task_of_django_tasks_runs_the_job(reports: str) -> None:
    from importlib import import_module

    Stream.objects.create(path="reports/2", content_type="application/json")
    import_module("reports.background").build.enqueue("reports/2")
    assert len(list(Stream.objects.get(path="reports/2").read())) == 3
    stop_engines()


# Moving


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("content_type", "messages"),
    [("application/json", [{"text": "hello"}, [1, 2], "x" * 3000]), ("text/plain", ["hello", "world"]), ("a/b", [])],
)
def test_a_stream_is_copied_page_by_page(content_type: str, messages: list[Any]) -> None:
    with override_settings(
        DURABLE_STREAMS={"PERMISSION_CLASSES": "django_durable_streams.permissions.AllowAll", "PAGE_BYTES": 1024}
    ):
        source = Stream.objects.create(path="old/1", content_type=content_type)
        for message in messages:
            source.append(message)
        source.close()
        copy = run("moving.md", "def copy")["copy"]
        transport = httpx.WSGITransport(app=get_wsgi_application())
        with httpx.Client(transport=transport, base_url="http://testserver") as client:
            copied = copy("/v1/stream/old/1", "new/1", client)
            with pytest.raises(StreamExists):
                copy("/v1/stream/old/1", "new/1", client)
    copied.refresh_from_db()
    assert copied.closed
    whole = list(copied.read()) if content_type != "text/plain" else "".join(copied.read())
    assert whole == (messages if content_type != "text/plain" else "".join(messages))
    stop_engines()


# Other languages


def test_every_official_client_has_a_program() -> None:
    page = HOWTO / "clients.md"
    languages = [re.match(r"\[([^\]]+)\]", row[0])[1] for row in table(page.read_text())]  # type: ignore[index]
    assert len(languages) == 10
    for language in languages:
        assert f"/clients/{language.lower().lstrip('.').replace('net', 'dotnet')}" in section(page, language)


def test_every_package_is_named_as_code() -> None:
    assert all(code(row[1]) for row in table((HOWTO / "clients.md").read_text()))
