"""Makes pages of a site of the Markdown pages that GitHub shows.

- The navigation is that of `docs/README.md` and of the README of each folder, so each page is listed once.
- A link that leaves `docs/` leads to the repository.
- `<!-- README: TITLE -->` stands for a section of the project's README, and `<!-- README -->` for its beginning.
- `<!-- CHANGELOG -->` stands for the sections of the changelog. Links to the changelog lead to the page that has it.
- A docstring that names a page, as in `docs/pages.md`, has a link with the title of the page.
- A diagram in Mermaid is shown as the picture that `tools/draw_diagrams.py` has drawn of it.

Knows nothing of the project's code.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from sphinx.application import Sphinx

__all__ = ["Sphinx", "setup"]

_LINK = re.compile(r"(\]\()(?![a-z]+:|[#/])([^)#\s]+)(#[^)\s]*)?\)")
_README = re.compile(r"^<!-- README(?:: (.+))? -->$", re.MULTILINE)
CHANGELOG = "<!-- CHANGELOG -->"
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A diagram in a page."""
_NAMED_PAGE = re.compile(r"`?docs/([\w/-]+)\.md`?")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^(?:- |\d+\. |\| )\[[^\]]+\]\(([^)#:]+\.md)\)", re.MULTILINE)


def setup(app: Sphinx, root: Path, repository: str) -> None:
    """Connect the site's builder with these rules.

    Args:
        app: the builder.
        root: the folder of the project, which has `docs/`.
        repository: the URL of the project's repository.
    """
    site = Site(root, repository)
    app.connect("source-read", lambda app, docname, source: source.__setitem__(0, site.page(docname, source[0])))
    app.connect("autodoc-process-docstring", _shorten)
    app.connect("autodoc-process-docstring", site.link_pages)


class Site:
    """The rules for one project."""

    def __init__(self, root: Path, repository: str) -> None:
        self.docs = root / "docs"
        self.readme = root / "README.md"
        self.changelog = root / "CHANGELOG.md"
        self.repository = repository

    def page(self, docname: str, text: str) -> str:
        """Return the text of a page as the site's builder reads it."""
        folder = (self.docs / docname).parent
        text = _README.sub(lambda match: self.of_readme(match[1]), text)
        if CHANGELOG in text:
            text = text.replace(CHANGELOG, self.of_changelog())
        text = DIAGRAM.sub(lambda match: self.diagram(match[1], folder), text)
        text = _outside_of_code(text, lambda part: self.with_links(part, folder))
        return text + self.navigation(docname)

    def of_changelog(self) -> str:
        """Return the sections of the changelog, one for each version."""
        _, mark, sections = self.changelog.read_text().partition("\n## ")
        if not mark:
            raise ValueError("CHANGELOG.md has no section of a version")
        return _outside_of_code(mark + sections, lambda part: self.with_links(part, self.changelog.parent))

    def of_readme(self, title: str | None) -> str:
        """Return a section of the README without its title, or the part before all sections."""
        text = self.readme.read_text()
        if title is None:
            part = text.partition("\n\n")[2].partition("\n## ")[0]
        else:
            part = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        if not part:
            raise ValueError(f"README.md has no section {title!r}")
        named = {name: line for line in re.findall(r"^\[.+$", text, re.MULTILINE) for name in [line.partition("]:")[0]]}
        used = [line for name, line in named.items() if f"]{name}]" in part and line not in part]
        return "\n".join([_outside_of_code(part, lambda part: self.with_links(part, self.readme.parent)), *used])

    def with_links(self, text: str, folder: Path) -> str:
        """Return a text whose links lead to pages of the site, or else to the repository."""

        def link(match: re.Match[str]) -> str:
            target = (folder / match[2]).resolve()
            anchor = match[3] or ""
            if target in (self.docs, self.docs / "README.md"):
                target = self.docs / "index.md"
            if target == self.changelog and folder != self.docs / "reference":
                target = self.docs / "reference" / "changelog.md"
            if target.is_relative_to(self.docs) and target.is_file():
                path = "/" + target.relative_to(self.docs).as_posix()
            else:
                kind = "tree" if target.is_dir() else "blob"
                path = f"{self.repository}/{kind}/main/{target.relative_to(self.docs.parent).as_posix()}"
            return f"{match[1]}{path}{anchor})"

        return _LINK.sub(link, text)

    def link_pages(self, app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
        """Make links of the pages that a docstring names."""

        def link(match: re.Match[str]) -> str:
            return f":doc:`/{match[1]}`" if (self.docs / f"{match[1]}.md").is_file() else match[0]

        lines[:] = [_NAMED_PAGE.sub(link, line) for line in lines]

    def diagram(self, source: str, folder: Path) -> str:
        """Return the picture of a diagram, with the first line of its description."""
        name = diagram_name(source)
        if not (self.docs / "images" / name).is_file():
            raise ValueError(f"docs/images/{name} is missing: run tools/draw_diagrams.py")
        return f"![Diagram of the following text](/images/{name})"

    def navigation(self, docname: str) -> str:
        """Return the hidden tables of contents below a page."""
        if docname == "index":
            text = (self.docs / "README.md").read_text()
            kinds = re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", text, re.MULTILINE)
            return "".join(_toctree(title, _ENTRY.findall(part)) for title, part in kinds)
        page = self.docs / f"{docname}.md"
        folder = page.parent if page.name == "README.md" else page.with_suffix("")
        if folder == self.docs or not folder.is_dir():
            return ""
        listed = _ENTRY.findall(page.read_text()) if page.name == "README.md" else []
        files = [*sorted(folder.glob("*.md")), *sorted(folder.glob("*/README.md"))]
        there = [path.relative_to(page.parent).as_posix() for path in files if path != page]
        if page.name != "README.md" and (folder / "README.md").exists():
            return ""
        return _toctree("", [name for name in listed if name in there] + [name for name in there if name not in listed])


def diagram_name(source: str) -> str:
    """Return the name of the picture of a diagram, which changes with its source."""
    return f"diagram-{hashlib.sha256(source.encode()).hexdigest()[:12]}.svg"


def _toctree(caption: str, pages: list[str]) -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    names = [page.removesuffix(".md") for page in pages]
    return "\n".join(["", "", "```{toctree}", *options, "", *names, "```", ""])


def _outside_of_code(text: str, change: object) -> str:
    assert callable(change)
    parts = []
    end = 0
    for match in _FENCED.finditer(text):
        parts += [change(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, change(text[end:])])


def _shorten(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Leave the first paragraph of a module's docstring: the rest is for readers of the code."""
    if what == "module" and "" in lines:
        del lines[lines.index("") :]
