"""What the README says is so: its lines for a project, its commands, its figures. It is short, and leads everywhere."""

import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import httpx
import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.template import engines
from django.test import Client, override_settings

from django_durable_streams.conf import SETTING
from django_durable_streams.models import Stream
from tests.docs.pages import README, ROOT, anchors, blocks, links, section, table, tables
from tests.docs.walk import Walk, environment

MAX_LINES = 149
MAX_COLUMNS = 90
"""Longer lines of code are cut on the front page of the site, in a window of 1280 pixels."""
INSTALLATION = ROOT / "docs" / "installation.md"
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


def test_its_code_fits_the_column_of_the_site() -> None:
    code = blocks(README, "python", "html+django", "sh")
    assert [(str(block), line) for block in code for line in block.text.splitlines() if len(line) > MAX_COLUMNS] == []


def test_it_leads_to_every_page_of_the_documentation() -> None:
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - {"docs/index.md"}
    assert pages - {link.partition("#")[0] for link in links(README)} == set()


def test_every_link_has_its_target() -> None:
    text = README.read_text()
    names = set(re.findall(r"\]\[([^\]\"]+)\]", text))  # no key of a dict
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
    module = ModuleType("settings_and_urls_of_the_readme")
    module.__dict__["DATABASES"] = {"default": {}}
    exec(python("urlpatterns"), module.__dict__)
    lines = module.__dict__
    assert lines["INSTALLED_APPS"] == ["daphne", ..., "django_durable_streams"]
    lines["urlpatterns"] = lines["urlpatterns"][1:]  # without the project's own

    user, other = (User.objects.create_user(name) for name in ("owner", "other"))
    client = Client()
    client.force_login(user if owner else other)
    url = URL.format(user.pk)
    with override_settings(ROOT_URLCONF=module, DURABLE_STREAMS=lines[SETTING]):
        order = SimpleNamespace(save=lambda: None, user_id=user.pk)
        exec(python("news_of"), {"order": order})
        response = client.get(url)
        forged = client.post(url, {"text": "A forged message"}, content_type="application/json")
        assert {forged.status_code, client.delete(url).status_code} == {403}
    if owner:
        assert response.json() == [{"text": "Your order is on its way."}]
    else:
        assert response.status_code == 403


def test_a_new_project_with_its_lines_shows_the_page_before_the_first_message(tmp_path: Path) -> None:
    walk = Walk(tmp_path, environment())
    walk.run("django-admin startproject mysite")
    walk.folder /= "mysite"
    walk.run("python manage.py startapp shop")
    settings, _, urls = python("urlpatterns").partition("\n# urls.py\n")
    (page,) = blocks(README, "html+django")
    append(walk, "mysite/settings.py", settings.replace("...", '*INSTALLED_APPS, "shop"'))
    more = 'from shop.views import news\nurlpatterns += [path("news/", news)]\n'
    append(walk, "mysite/urls.py", urls.replace("...", "*urlpatterns") + more)
    assert anchors(INSTALLATION) >= {"the-database"} <= {link.partition("#")[2] for link in links(README)}
    (call,) = re.findall(r"its view passes news=(.+) #}", page.text)
    view = f"def news(request):\n    return render(request, 'news.html', {{'news': {call}}})\n"
    append(walk, "shop/views.py", python("news_of").partition("\nwith ")[0] + "\n" + view)
    append(walk, "shop/templates/news.html", page.text)
    assert "WARNINGS" not in walk.run("python manage.py migrate")
    create = "from django.contrib.auth.models import User; User.objects.create_superuser('ada', password='tea')"
    walk.run(f'python manage.py shell --verbosity 0 -c "{create}"')
    walk.server = "python manage.py runserver 8000"
    with walk.serving() as url, httpx.Client(base_url=url) as client:
        form = {"csrfmiddlewaretoken": "", "username": "ada", "password": "tea"}
        client.get("/admin/login/")
        form["csrfmiddlewaretoken"] = client.cookies["csrftoken"]
        assert client.post("/admin/login/", data=form).status_code == 302
        shown = client.get("/news/").text
        for pattern in (r'from "(/static/[^"]+)"', r'follow\("([^"]+)"'):
            (address,) = re.findall(pattern, shown)
            assert client.get(address).status_code == 200, address
        with client.stream("GET", f"{address}?offset=now&live=sse") as response:
            assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream")


def append(walk: Walk, name: str, text: str) -> None:
    """Write a text at the end of a file of the project, which may be new."""
    file = walk.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as output:
        output.write(f"\n{text}")


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
        for page in (README, INSTALLATION):
            assert f"{name} {versions[0]} to {versions[-1]}" in page.read_text(), page


@pytest.mark.parametrize(
    ("shown", "measured"),
    [
        ("Append 100 B to one stream, from 64 connections", "append 100 B, one stream, req/s"),
        ("Append 100 B to 1,000 streams", "append 100 B, 1,000 streams, req/s"),
        ("Read 1 KB", "GET 1 KB, req/s"),
        ("From an append to 500 SSE readers, median", "append to SSE delivery, 500 readers, p50, ms"),
        ("From an append to 500 SSE readers, p99", "append to SSE delivery, 500 readers, p99, ms"),
    ],
)
def test_the_figures_are_those_of_the_benchmarks(shown: str, measured: str) -> None:
    rows = table(section(README, "Speed"))
    assert len(rows) == 5
    (said,) = [row[1:] for row in rows if row[0] == shown]
    behind_nginx = tables(section(BENCHMARKS, "In the shape of production"))[1]
    (figures,) = [row[1:] for row in behind_nginx if row[0] == measured]
    for cell, figure in zip(said, figures, strict=True):
        value = number(figure)
        assert number(cell) in (float(f"{value:.2g}"), round(value)), (cell, figure)


def test_the_comparison_says_what_was_measured() -> None:
    lines = table(section(BENCHMARKS, "Beside what a Django project would take instead"))
    measured = {line[0]: line[1:] for line in lines}
    (row,) = [row for row in table(section(README, "Compared with others")) if row[0].startswith("A message to 500")]
    for cell, prefix in ((row[1], "this app, on SQLite"), (row[5], "django-eventstream"), (row[6], "Channels")):
        figures = [values for title, values in measured.items() if title.startswith(prefix)]
        delays = {round(number(values[0])) for values in figures}
        shares = {round(number(values[3])) for values in figures}
        delay, share = cell.split(";")
        assert {int(text) for text in re.findall(r"\d+", delay)} == {min(delays), max(delays)}
        assert {int(text) for text in re.findall(r"\d+", share)} == {min(shares), max(shares)}


def test_what_it_says_of_the_shape_without_a_proxy_holds() -> None:
    (row,) = [row for row in table(section(BENCHMARKS, "Figures")) if row[0].startswith("append 100 B, one stream")]
    sqlite, postgresql, memory, files = map(number, row[2:6])
    assert min(sqlite, postgresql) > memory
    assert sqlite / files == pytest.approx(40, rel=0.1)


def number(cell: str) -> float:
    """The number at the beginning of a cell."""
    digits = re.match(r"[\d.,]+", cell)
    assert digits is not None, cell
    return float(digits[0].replace(",", ""))
