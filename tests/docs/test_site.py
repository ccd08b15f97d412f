"""The site builds without a warning, its links lead somewhere, and its reference has every public name."""

import importlib
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

from django_durable_streams.models.async_methods import AsyncStreamMethods
from django_durable_streams.models.methods import StreamMethods
from django_durable_streams.protocol.errors import DurableStreamsError
from tests.docs.pages import ROOT
from tests.docs.site import built_site

DOCS = ROOT / "docs"
PACKAGE = "django_durable_streams"

# What projects import from.
MODULES = [
    f"{PACKAGE}.{name}"
    for name in (
        "channels",
        "consumers",
        "contrib.ai.answers",
        "contrib.ai.events",
        "contrib.ai.permissions",
        "contrib.ai.views",
        "links",
        "pages",
        "permissions",
        "pull_wake",
        "signals",
        "testing",
    )
]


class Page(NamedTuple):
    """A page of the site: its anchors, its links, and the files that a browser loads for it."""

    anchors: set[str]
    links: list[str]
    loaded: list[str]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page(set(), [], [])

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attributes if value is not None}
        if "id" in values:
            self.page.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        elif tag == "link" and "href" in values and values.get("rel") != "canonical":
            self.page.loaded.append(values["href"])
        elif "src" in values:
            self.page.loaded.append(values["src"])


def read(file: Path) -> Page:
    reader = _Reader()
    reader.feed(file.read_text())
    return reader.page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_site(tmp_path_factory)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: read(file) for file in site.rglob("*.html") if "_static" not in file.parts}


def test_every_page_is_in_the_site(site: Path) -> None:
    names = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")} - {Path("README.html")}
    assert {name for name in names if not (site / name).is_file()} == set()


def test_the_changelog_is_a_page_to_which_other_pages_lead(site: Path) -> None:
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    text = (site / "reference" / "changelog.html").read_text()
    assert versions
    assert all(f"{version}" in text for version in versions)
    assert "CHANGELOG -->" not in text
    for name in ("upgrading.html", "deployment/upgrades.html"):
        assert "reference/changelog.html" in (site / name).read_text()


def test_links_lead_to_pages_and_their_parts(pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchors = pages[target].anchors if target in pages else set()
            if not target.exists() or (parts.fragment and target in pages and unquote(parts.fragment) not in anchors):
                broken.append(f"{file.name}: {link}")
    assert broken == []


def test_links_to_the_repository_lead_to_its_files(pages: dict[Path, Page]) -> None:
    in_repository = re.compile(
        r"https://github\.com/django-durable-streams/django-durable-streams/(?:blob|tree)/main/([^?#]+)(?:[?#].*)?"
    )
    paths = {match[1] for page in pages.values() for link in page.links if (match := in_repository.fullmatch(link))}
    assert len(paths) > 20
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_no_page_names_a_file_of_the_documentation(site: Path) -> None:
    """Docstrings and comments of samples name pages. Whoever reads the site has no such files."""
    text = (site / "reference" / "api" / "pages.html").read_text()
    assert 'href="../../pages.html"' in text
    files = [file for file in site.rglob("*.html") if file.parent.name != "_modules"]
    named = {
        file.relative_to(site).as_posix(): re.findall(r">[^<]*?\b(docs/[\w/-]+\.md)", file.read_text())
        for file in files
    }
    assert {name: files for name, files in named.items() if files} == {}


def test_each_cell_of_a_wide_table_has_the_head_of_its_column(site: Path) -> None:
    """A phone shows the row as a card, where the head stands beside the cell."""
    titles = ["", "This app", "Node reference", "Electric’s Rust server", "rakaia-streams", "django-eventstream"]
    titles += ["Channels and your tables", "Centrifugo"]
    (table,) = re.findall(r'<table class="[^"]* wide">.*?</table>', (site / "index.html").read_text(), re.DOTALL)
    rows = re.findall(r"<tr .*?</tr>", table.partition("</thead>")[2], re.DOTALL)
    assert len(rows) > 5
    assert all(re.findall(r'<td data-label="([^"]*)"', row) == titles for row in rows)
    assert " wide" not in (site / "howto" / "clients.html").read_text().partition("<article")[2]


def test_no_page_loads_anything_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {file for page in pages.values() for file in page.loaded}
    assert loaded
    assert {file for file in loaded if urlsplit(file).netloc} == set()
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", style.read_text()), style.name


def documented(site: Path) -> set[str]:
    """The names in the reference, from the site's inventory."""
    from sphinx.util.inventory import InventoryFile

    content = (site / "objects.inv").read_bytes()
    inventory = InventoryFile.loads(content, uri="")
    return {name for domain, objects in inventory.data.items() if domain.startswith("py:") for name in objects}


def public(module: ModuleType) -> Iterator[str]:
    """The public names of a module: `__all__`, or those that are defined there."""
    names = getattr(module, "__all__", None)
    if names is None:
        own = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        names = [name for name in own if not name.startswith("_")]
    for name in names:
        yield f"{module.__name__}.{name}"


def test_the_reference_has_every_public_name(site: Path) -> None:
    shown = documented(site)
    names = {name for module in MODULES for name in public(importlib.import_module(module))}
    submodules = {name for name in names if name in sys.modules}
    assert len(names) > 70
    assert names - submodules - shown == set()


def test_the_reference_has_every_method_of_streams_and_every_error(site: Path) -> None:
    shown = documented(site)
    methods = {
        name for kind in (StreamMethods, AsyncStreamMethods) for name in vars(kind) if not name.startswith("_")
    } - {"Meta"}
    methods = {name for name in methods if callable(getattr(StreamMethods, name, getattr(AsyncStreamMethods, name, 0)))}
    assert len(methods) > 25
    assert {name for name in methods if f"{PACKAGE}.models.Stream.{name}" not in shown} == set()
    kinds = [DurableStreamsError]
    for kind in kinds:
        kinds += [child for child in kind.__subclasses__() if child.__module__ == DurableStreamsError.__module__]
    assert len(kinds) > 30
    assert {kind.__name__ for kind in kinds if f"{kind.__module__}.{kind.__name__}" not in shown} == set()
