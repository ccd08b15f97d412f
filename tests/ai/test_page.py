"""The page of docs/ai.md, with the real AI SDKs: a reload and a killed server cost no message and double none."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ai.test_clients import COUNT, HERE, RUN_SECONDS, SERVING, WORDS
from tests.docs.pages import ROOT, blocks
from tests.servers import Server

pytestmark = pytest.mark.conformance

PACKAGES = ("ai5", "ai6", "ai7")
ANSWER = f"I look it up.{WORDS}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    url = f"sqlite:///{tmp_path_factory.mktemp('page') / 'db.sqlite3'}"
    with Server(database_url=url, env=SERVING) as server:
        yield server


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the page, in a file."""
    (block,) = [block for block in blocks(ROOT / "docs" / "ai.md", "js") if "useChat" in block.text]
    file = tmp_path_factory.mktemp("page") / "chat.js"
    file.write_text(block.text)
    return file


@pytest.fixture(scope="module", params=PACKAGES)
def shown(request: pytest.FixtureRequest, server: Server, page: Path) -> Any:
    """What the page shows with a package after the scenarios in which the server stays."""
    return result(opened(request.param, server, page, "reload", "left"))


def opened(package: str, server: Server, page: Path, *scenarios: str) -> subprocess.Popen[str]:
    node = shutil.which("node")
    assert node, "node is missing"
    command = [node, "page.mjs", package, server.base_url, str(page), *scenarios]
    return subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> Any:
    printed, _ = process.communicate(timeout=RUN_SECONDS)
    assert process.returncode == 0
    return json.loads(printed.splitlines()[-1])


def await_line(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert any(line.strip() == word for line in process.stdout), f"{word!r} never came"


def texts(shown: dict[str, Any]) -> list[tuple[str, str]]:
    return [(role, text) for role, _, text in shown["messages"]]


WHOLE = [("user", "What is a stream?"), ("assistant", ANSWER)]


def test_a_reload_shows_all_messages_once(shown: Any) -> None:
    reload = shown["reload"]
    (user, part) = texts(reload["at"])
    assert user == WHOLE[0]
    assert len(part[1]) < len(ANSWER)
    for one in reload["pages"]:
        assert texts(one) == WHOLE
        assert one["status"] == "ready"
    # The parts of the stored chat are those that have arrived live.
    live, stored = reload["kinds"]
    assert live == stored == [["text"], ["reasoning", "text", "tool-look_up", "data-progress", "text"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_an_answer_is_whole_though_its_server_is_killed(server: Server, page: Path, package: str) -> None:
    process = opened(package, server, page, "killed")
    await_line(process, "reading")
    server.kill()
    await_line(process, "refused")
    server.start()
    for one in result(process)["killed"]["pages"]:
        assert texts(one) == WHOLE
        assert one["status"] == "ready"


def test_a_page_that_leaves_reads_no_further(shown: Any) -> None:
    left = shown["left"]
    assert len(texts(left["pages"][0])[1][1]) < len(ANSWER)
    assert left["pages"][0]["status"] == "ready"
    assert left["stored"]


def test_the_words_are_counted() -> None:
    assert WORDS.count("word") == COUNT
