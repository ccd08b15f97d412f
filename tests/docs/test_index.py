"""docs/README.md leads to every page of the documentation, by the four kinds of pages."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, links, section

DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
SITE_INDEX = DOCS / "index.md"
KINDS = ("Tutorials", "How-to guides", "Reference", "Explanation")
# Each folder has an index of its own. Those of the first level are in the index of all.
OWN_INDEXES = sorted(DOCS.glob("*/**/README.md"))


def entries() -> list[tuple[str, str, str]]:
    """The title, page and description of each line of the index."""
    lines = [line for kind in KINDS for line in section(INDEX, kind).splitlines() if line]
    matches = [re.fullmatch(r"- \[([^\]]+)\]\(([^)]+)\): (.+\.)", line) for line in lines]
    assert None not in matches, lines[matches.index(None)]
    return [(match[1], match[2], match[3]) for match in matches if match is not None]


def pages_beside(index: Path) -> set[Path]:
    return set(index.parent.glob("*.md")) - {index, SITE_INDEX}


def test_the_index_has_the_four_kinds_and_nothing_else() -> None:
    titles = re.findall(r"^## (.+)$", INDEX.read_text(), re.MULTILINE)
    assert tuple(titles) == KINDS
    assert len(entries()) == len([link for link in links(INDEX) if not link.startswith("https://")])


def test_every_page_is_in_the_index_once() -> None:
    shown = [DOCS / page for _, page, _ in entries()]
    assert len(shown) == len(set(shown))
    assert set(shown) == pages_beside(INDEX) | set(DOCS.glob("*/README.md"))


def test_pages_have_the_titles_that_the_index_says() -> None:
    for title, page, _ in entries():
        assert (DOCS / page).read_text().startswith(f"# {title}\n"), page


@pytest.mark.parametrize("index", OWN_INDEXES, ids=lambda index: index.parent.name)
def test_every_page_of_a_folder_is_in_its_index(index: Path) -> None:
    assert pages_beside(index) <= {index.parent / link for link in links(index)}
