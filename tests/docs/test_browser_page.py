"""What docs/browser.md says of `follow.js` is so: its size, its options, its types."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.browser.course import RECIPES
from tests.browser.recipe_pages import PACKAGES, recipes
from tests.browser.test_recipes import DATASTAR
from tests.docs.pages import ROOT, section, table

PAGE = ROOT / "docs" / "browser.md"
FOLLOW = ROOT / "django_durable_streams" / "static" / "durable_streams" / "follow.js"
MAX_BYTES = 3 * 1024

USE = """
import { follow } from "./follow.js"
const followed: Promise<void> = follow("/v1/stream/chat", {
  offset: "-1",
  onmessage: (message, offset) => console.log(message.text, offset.length),
  onend() {},
  onerror: (status) => console.log(status.toFixed()),
  onreset() {},
  signal: new AbortController().signal,
  headers: {get Authorization() { return "Bearer x" }},
  credentials: "include",
  share: "ada",
})
follow(new URL("https://example.com/"), {onmessage() {}})
"""
MISUSE = """
import { follow } from "./follow.js"
follow("/v1/stream/chat", {})
follow(1, {onmessage() {}})
follow("/v1/stream/chat", {onmessage() {}, offset: 1})
follow("/v1/stream/chat", {onmessage: (message, offset: number) => {}})
"""


def test_the_module_is_small_and_needs_nothing() -> None:
    text = FOLLOW.read_text()
    assert len(text.encode()) <= MAX_BYTES
    assert not re.search(r"\bimport\b|\brequire\b", text)


def test_every_option_is_in_the_table() -> None:
    (names,) = re.findall(r"follow\(url, \{(.*?)\.\.\.init\}\)", FOLLOW.read_text())
    options = {name.partition(" ")[0] for name in names.split(", ") if name}
    cells = [row[0] for row in table(section(PAGE, "follow()"))]
    shown = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    assert options | {"credentials"} == shown


def test_every_recipe_is_tested() -> None:
    assert set(recipes()) == {*RECIPES, DATASTAR}


@pytest.mark.browser
def test_the_types_are_those_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "follow.js").write_text(FOLLOW.read_text())
    (tmp_path / "use.ts").write_text(USE)
    (tmp_path / "misuse.ts").write_text(MISUSE)
    compiler = [str(PACKAGES / "typescript" / "bin" / "tsc"), "--noEmit", "--strict", "--allowJs", "--checkJs", "false"]
    options = ["--target", "es2022", "--module", "esnext", "--lib", "es2022,dom,dom.iterable", "use.ts", "misuse.ts"]
    done = subprocess.run(
        ["node", *compiler, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    errors = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [re.match(r"misuse\.ts\((\d)", line)[1] for line in errors] == ["3", "4", "5", "6"], done.stdout  # type: ignore[index]
