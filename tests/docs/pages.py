"""The documentation as data: its fenced code, its tables, its links."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))

_HEADING = re.compile(r"^(#+) (.+)$")


class Block(NamedTuple):
    """A piece of fenced code."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced code of a page in some languages."""
    result = []
    opened: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened = number, line.removeprefix("```"), []
            else:
                start, language, text = opened
                if language in languages:
                    result.append(Block(page, start, language, "".join(f"{line}\n" for line in text)))
                opened = None
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{page.name}: the fence of line {opened[0]} is not closed"
    return result


def section(page: Path, title: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level = 0
    result = []
    fenced = False
    for line in page.read_text().splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else _HEADING.match(line)
        if level and heading is not None and len(heading[1]) <= level:
            break
        if level:
            result.append(line)
        elif heading is not None and heading[2] == title:
            level = len(heading[1])
    assert level, f"{page.name} has no heading {title!r}"
    return "\n".join(result)


def table(text: str) -> list[list[str]]:
    """The rows of the first table in a text, without its head."""
    rows = re.search(r"^\|.*\n\|[-:| ]+\|\n((?:\|.*(?:\n|\Z))*)", text, re.MULTILINE)
    assert rows is not None, "there is no table"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[1].splitlines()]


def tables(text: str) -> list[list[list[str]]]:
    """The rows of all tables in a text."""
    return [table(part) for part in re.split(r"\n(?=\n\|)", text) if "\n|" in part]


def code(cell: str) -> str:
    """What stands between the backticks of a table's cell."""
    result = re.fullmatch(r"`([^`]+)`", cell)
    assert result is not None, f"not in backticks: {cell}"
    return result[1]


def links(page: Path) -> list[str]:
    """The targets of a page's links."""
    return re.findall(r"\]\(([^)\s]+)\)", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}
