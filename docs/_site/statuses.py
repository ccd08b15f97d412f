"""Lets the search of the site find the statuses of HTTP, such as 403. Sphinx leaves all numbers out of it.

Knows nothing of the pages' content.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

STATUS = re.compile(r"[1-5]\d\d")
SCRIPT = "_static/searchtools.js"
LEFT_OUT = r"queryTerm.match(/^\d+$/)"
"""The condition under which Sphinx's script ignores a word of a query."""


class SearchWithStatuses(SearchEnglish):
    """English words and statuses."""

    def word_filter(self, word: str) -> bool:
        """See the base class."""
        return STATUS.fullmatch(word) is not None or super().word_filter(word)


def setup(app: Sphinx) -> None:
    """Index statuses, and let the script of the search look them up."""
    app.add_search_language(SearchWithStatuses)
    app.connect("build-finished", _correct)


def _correct(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        file = Path(app.outdir) / SCRIPT
        text = file.read_text()
        if LEFT_OUT in text:
            file.write_text(text.replace(LEFT_OUT, f"!/^{STATUS.pattern}$/.test(queryTerm) && {LEFT_OUT}"))
        elif STATUS.pattern not in text:
            raise ValueError(f"{SCRIPT} of this version of Sphinx has another condition than {LEFT_OUT}")
