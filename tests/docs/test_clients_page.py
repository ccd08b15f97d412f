"""The programs of docs/howto/clients.md that are marked as tested, against a server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.recipe_pages import PACKAGES
from tests.docs.pages import ROOT, blocks, table
from tests.servers import HOST, Server

pytestmark = pytest.mark.browser

PAGE = ROOT / "docs" / "howto" / "clients.md"
SHOWN_ADDRESS = "127.0.0.1:8000"
PROGRAMS = {"Python": ("python", [sys.executable, "client.py"]), "TypeScript": ("js", ["node", "client.mjs"])}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uvicorn") as server:
        yield server


def test_these_are_the_tested_ones() -> None:
    tested = {row[0].partition("]")[0].lstrip("[") for row in table(PAGE.read_text()) if row[2] == "tested"}
    assert tested == set(PROGRAMS)


@pytest.mark.parametrize("language", PROGRAMS)
def test_it_prints_what_it_has_appended(language: str, server: Server, tmp_path: Path) -> None:
    fence, command = PROGRAMS[language]
    (block,) = blocks(PAGE, fence)
    (tmp_path / command[1]).write_text(block.text.replace(SHOWN_ADDRESS, f"{HOST}:{server.port}"))
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "".join(done.stdout.split()).replace('"', "'") in ("[{'text':'hello'}]", "[{text:'hello'}]")
