"""What the other pages say is so, and what holds for all of them."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client, override_settings

from django_durable_streams import conf, health
from django_durable_streams.engine import lock_waits
from django_durable_streams.engine.key_compaction_task import PASS_REST
from django_durable_streams.engine.retention_tasks import SWEEP_SECONDS
from django_durable_streams.engine.wakeup import redis
from django_durable_streams.protocol import arguments, paths, subscriptions
from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.protocol.key_compaction import MIN_TOMBSTONES, KeyCompactionRules, key_compaction_patterns
from django_durable_streams.runtime import connection_settings, monitor
from django_durable_streams.store import lifetime
from django_durable_streams.store.upkeep import key_compaction, key_passes
from tests.docs.pages import PAGES, ROOT, Block, anchors, blocks, code, links, section, table

PROTOCOL = ROOT / "docs" / "protocol.md"
SERVERS = ROOT / "docs" / "deployment" / "servers.md"
OPERATIONS = ROOT / "docs" / "operations.md"

PYTHON = [block for page in PAGES for block in blocks(page, "python")]
# Apps that the tutorial makes. It is followed as a whole (tests/browser/test_tutorial.py).
TUTORIAL_APPS = ("chat", "rooms", "notes", "orders", "shop")
APPLICATIONS = [block for block in PYTHON if re.search(r"^application = ", block.text, re.MULTILINE)]


def kinds(base: type[DurableStreamsError]) -> list[type[DurableStreamsError]]:
    """An error and all that are kinds of it, in the package."""
    own = [base] if base.__module__ == DurableStreamsError.__module__ else []
    return [*own, *(kind for child in base.__subclasses__() for kind in kinds(child))]


def test_the_table_of_errors_is_complete_and_right() -> None:
    shown = {(code(name), code(exception), status) for name, status, exception, _ in errors_table()}
    assert shown == {(kind.code(), kind.__name__, str(kind.status)) for kind in kinds(DurableStreamsError)}


def test_no_error_is_in_the_table_twice() -> None:
    shown = [row[0] for row in errors_table()]
    assert len(shown) == len(set(shown))


def errors_table() -> list[list[str]]:
    return table(section(PROTOCOL, "Errors"))


def test_the_numbers_are_those_of_the_code() -> None:
    text = " ".join(PROTOCOL.read_text().split())
    assert f"0 to {arguments.MAX_TTL_SECONDS:,} seconds" in text
    assert f"1 to {paths.MAX_PATH_LENGTH} characters" in text
    assert text.count(f"1 to {arguments.MAX_NAME_LENGTH} characters") == 2
    assert (lifetime.MIN_GRACE, lifetime.MAX_GRACE) == (0.5, 60)
    assert "late by 0.5 s, or by 1 % of the TTL where that is more, up to 60 s" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_in_capitals_that_could_be_a_setting_is_one(page: Path) -> None:
    ours = tuple(sorted({name.partition("_")[0] + "_" for name in conf.names()}))
    result = {name for name in re.findall(r"`([A-Z][A-Z_]+)`", page.read_text()) if name.startswith(ours)}
    assert result <= {*conf.names(), *vars(subscriptions)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_show_titles_and_no_names_of_pages(page: Path) -> None:
    """A reader of the site has no such files."""
    assert re.findall(r"\[`?[\w/.-]+\.md`?\]\([^)]+\)", page.read_text()) == []


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles_and_imports_what_is_there(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text, str(block))):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom) and not node.level:  # others are of the app that the page shows
            assert node.module is not None
            if node.module.partition(".")[0] in TUTORIAL_APPS:
                continue
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_dotted_names_of_the_package_can_be_imported(block: Block) -> None:
    from django.utils.module_loading import import_string

    for name in re.findall(r'"(django_durable_streams(?:\.\w+)+)"', block.text):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            import_string(name)


async def ask(application: Any, path: str) -> tuple[int, dict[bytes, bytes]]:
    """The status and headers of the answer to OPTIONS, which needs no database."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "method": "OPTIONS",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(b"host", b"localhost")],
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


def application(block: Block) -> Any:
    """The application that a page shows."""
    scope: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), scope)
    return scope["application"]


@pytest.mark.parametrize("block", APPLICATIONS, ids=str)
@override_settings(STATIC_URL="/static/")
async def test_applications_serve_streams(block: Block) -> None:
    status, result = await ask(application(block), "/v1/stream/chat/42")
    assert status == 204
    assert b"PUT" in result[b"allow"]


def test_there_are_applications_to_test() -> None:
    assert len(APPLICATIONS) == 7


def test_the_urls_with_a_login_refuse_others(settings: Any) -> None:
    (block,) = [block for block in blocks(SERVERS, "python") if "LoginRequiredMiddleware" in block.text]
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    settings.MIDDLEWARE = scope["MIDDLEWARE"]
    for method in ("get", "put", "post", "delete"):
        response = getattr(Client(), method)("/v1/stream/chat")
        assert (response.status_code, response["Location"].partition("?")[0]) == (302, "/accounts/login/")


def test_the_log_says_what_the_page_says_that_it_says() -> None:
    source = "".join(path.read_text() for path in (ROOT / "django_durable_streams").rglob("*.py"))
    rows = table(section(OPERATIONS, "Log messages"))
    assert len(rows) > 5
    for level, message, _ in rows:
        assert f'"{code(message)}' in source, message
        assert level in ("error", "warning")


def test_the_times_of_operations_are_those_of_the_code() -> None:
    text = " ".join(OPERATIONS.read_text().split())
    assert (monitor.STUCK_SECONDS, monitor.PROBE_SECONDS, monitor.INTERVAL) == (0.75, 1.0, 0.25)
    assert "after 0.75 s without an answer" in text
    assert monitor.MAX_WORK_SECONDS == 120
    assert "no answer for two minutes" in text
    assert connection_settings.CONNECT_SECONDS == health.CHECK_SECONDS == 2
    assert f"{lock_waits.MAX_WAIT:.0f} seconds at most" in text
    assert f"Commits up to {redis.MAX_PAYLOAD // 1024} KiB travel along" in text


def test_the_page_on_key_compaction_has_rules_that_work_and_the_numbers_of_the_code() -> None:
    text = section(OPERATIONS, "Key compaction")
    (sample,) = [block for block in blocks(OPERATIONS, "python") if "KEY_COMPACTION" in block.text]
    values: dict[str, Any] = {}
    exec(sample.text, values)
    patterns = key_compaction_patterns(values["DURABLE_STREAMS"]["KEY_COMPACTION"])
    assert patterns.find("state/a") == KeyCompactionRules()
    assert patterns.find("presence/a") == KeyCompactionRules(10, 1_000_000, 3600)
    shown = {code(key): int(code(default)) for key, default, _ in table(text)}
    assert shown == KeyCompactionRules()._asdict()
    words = " ".join(text.split())
    assert f"At least {MIN_TOMBSTONES}." in words
    assert f"{key_compaction.MIN_DIRTY_BYTES // 1024} KiB at least" in words
    assert f"{key_passes.BYTES // 1024} KiB at a time" in words
    assert f"{key_passes.MAX_KEYS:,} new keys" in words
    assert (key_compaction.DIRTY_SHARE, PASS_REST, SWEEP_SECONDS) == (2, 10, 5)  # half, ten times, five seconds
