"""Changes the HTML of all pages when the site has been built. Knows nothing of their content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sphinx.application import Sphinx


def change_when_built(app: Sphinx, change: Callable[[str], str]) -> None:
    """Have a function change the text of each page. It may get a text that it has changed before."""

    def change_all(app: Sphinx, error: Exception | None) -> None:
        if error is None and app.builder.format == "html":
            for file in Path(app.outdir).rglob("*.html"):
                text = file.read_text()
                changed = change(text)
                if changed != text:
                    file.write_text(changed)

    app.connect("build-finished", change_all)
