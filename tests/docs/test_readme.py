"""What the README says is so: its lines for a project, its commands, its figures. It is short, and leads everywhere."""

import re
import subprocess
import tomllib
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.template import engines
from django.test import Client, override_settings
from django.urls import include, path

from django_durable_streams.conf import SETTING
from django_durable_streams.models import Stream
from tests.docs.pages import README, ROOT, anchors, blocks, links, section, table

MAX_LINES = 150
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
URL = "/v1/stream/users/{}/news"

# Runs the script of the page with a `follow` that tells one message.
RUN_SCRIPT = """
const shown = [];
const document = {
  getElementById: (id) => ({ append: (item) => shown.push([id, item.tag, item.textContent]) }),
  createElement: (tag) => ({ tag }),
};
const follow = (url, { onmessage, onerror }) => (onmessage({ text: "hello" }, "1_1"), onerror(403), shown.push(url));
%s
process.stdout.write(JSON.stringify(shown));
"""


def python(text: str) -> str:
    """The one block of Python that has some text."""
    (block,) = [block for block in blocks(README, "python") if text in block.text]
    return block.text


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MAX_LINES


def test_it_leads_to_every_page_of_the_documentation() -> None:
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - {"docs/index.md"}
    assert pages - {link.partition("#")[0] for link in links(README)} == set()


def test_every_link_has_its_target() -> None:
    text = README.read_text()
    names = set(re.findall(r"\]\[([^\]]+)\]", text))
    targets = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, re.MULTILINE))
    assert names == set(targets)
    assert all(target.startswith("https://") for target in targets.values())
    for link in links(README):
        file, _, anchor = link.partition("#")
        if not file.startswith("https://"):
            assert (ROOT / file).is_file() if file else anchor, link
            assert not anchor or anchor in anchors(ROOT / file if file else README), link


@pytest.mark.parametrize("owner", [True, False], ids=["the owner", "another user"])
def test_the_lines_for_a_project_work(transactional_db: None, owner: bool) -> None:
    urls = ModuleType("urls_of_the_readme")
    urls.__dict__.update(path=path, include=include)
    exec(python("urlpatterns"), urls.__dict__)
    urls.urlpatterns = urls.urlpatterns[1:]  # type: ignore[attr-defined]  # without the project's own
    scope: dict[str, Any] = {}
    exec(python("INSTALLED_APPS"), scope)
    assert scope["INSTALLED_APPS"] == [..., "django_durable_streams"]

    user, other = (User.objects.create_user(name) for name in ("owner", "other"))
    client = Client()
    client.force_login(user if owner else other)
    with override_settings(ROOT_URLCONF=urls, DURABLE_STREAMS=scope[SETTING]):
        order = SimpleNamespace(save=lambda: None, user_id=user.pk)
        exec(python("news.append"), {"order": order})
        response = client.get(URL.format(user.pk))
    if owner:
        assert response.json() == [{"text": "Your order is on its way."}]
    else:
        assert response.status_code == 403


@override_settings(STATIC_URL="/static/")
def test_the_page_shows_the_messages() -> None:
    (block,) = blocks(README, "html+django")
    html = engines["django"].from_string(block.text).render({"news": Stream(path="users/7/news")})
    (script,) = re.findall(r'<script type="module">\n(.*?)</script>', html, re.DOTALL)
    line, _, rest = script.partition("\n")
    (module,) = re.findall(r'import { follow } from "/static/(.+)";', line)
    assert finders.find(module) is not None
    (shown,) = re.findall(r'<ul id="(\w+)">', html)
    done = subprocess.run(["node", "-e", RUN_SCRIPT % rest], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f'[["{shown}","li","hello"],["{shown}","li","Refused: 403"],"{URL.format(7)}"]'


def test_the_two_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    shown = [block.text.split() for block in blocks(README, "sh") if block.text.startswith("make")]
    assert shown == [["make", "run"], ["make", "test"]]
    for _, target in shown:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_supported_versions_are_those_of_the_package() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    for name, prefix in (("Python", "Programming Language :: Python :: 3."), ("Django", "Framework :: Django :: ")):
        versions = [entry.rpartition(" ")[2] for entry in classifiers if entry.startswith(prefix)]
        for page in (README, ROOT / "docs" / "installation.md"):
            assert f"{name} {versions[0]} to {versions[-1]}" in page.read_text(), page


@pytest.mark.parametrize(
    ("shown", "measured"),
    [
        ("Append 100 B to one stream, from 64 connections", "append 100 B, one stream, 64 connections ↑"),
        ("Append 100 B exactly once, from 64 producers", "append 100 B, 64 idempotent producers on one stream ↑"),
        ("Read 1 KB", "GET 1 KB, 64 connections ↑"),
        ("From an append to 1,000 SSE readers, median", "append to SSE delivery, 1,000 readers, p50 ↓"),
        ("Memory of a waiting SSE reader", "memory per idle SSE reader, 1,000 readers ↓"),
    ],
)
def test_the_figures_are_those_of_the_benchmarks(shown: str, measured: str) -> None:
    rows = table(section(README, "Speed"))
    assert len(rows) == 5
    (said,) = [row[1:] for row in rows if row[0] == shown]
    (figures,) = [row[2:6] for row in table(section(BENCHMARKS, "Figures")) if row[0] == measured]
    for cell, figure in zip(said, figures, strict=True):
        value = number(figure)
        assert number(cell) in (float(f"{value:.2g}"), round(value)), (cell, figure)


def number(cell: str) -> float:
    """The number at the beginning of a cell."""
    digits = re.match(r"[\d.,]+", cell)
    assert digits is not None, cell
    return float(digits[0].replace(",", ""))
