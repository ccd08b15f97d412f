"""Corrects the markup of the theme where screen readers and keyboards need more. axe-core then finds nothing.

Each replacement can be made twice. Knows nothing of the pages' content.
"""

from __future__ import annotations

import re

from built_pages import change_when_built
from sphinx.application import Sphinx

REPLACEMENTS = [
    # Captions of the navigation are headings, and need a level.
    (re.compile(r'<p class="caption" role="heading">'), '<p class="caption" role="heading" aria-level="2">'),
    # Two landmarks of one kind need names.
    (re.compile(r'<aside class="(sidebar-drawer)">'), r'<aside class="\1" aria-label="All pages">'),
    (re.compile(r'<aside class="(toc-drawer[^"]*)">'), r'<aside class="\1" aria-label="Parts of this page">'),
    # Code and tables that scroll have to be reached with the keyboard.
    (re.compile(r"<pre>"), '<pre tabindex="0">'),
    (re.compile(r'<div class="(table-wrapper[^"]*)">'), r'<div class="\1" tabindex="0">'),
    # A head without text is an empty cell.
    (re.compile(r'<th class="head[^"]*">(?:<p></p>)?</th>'), "<td></td>"),
]


def setup(app: Sphinx) -> None:
    """Correct all pages when the site has been built."""
    change_when_built(app, corrected)


def corrected(text: str) -> str:
    """Return a page with all replacements."""
    for pattern, replacement in REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text
