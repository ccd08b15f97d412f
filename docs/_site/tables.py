"""Tables of many columns fit the site: in small type on a desktop, and as a list of cards on a phone.

`static/site.css` has the styles of the class `wide`. A card shows the head of each column beside its cell.

Knows nothing of the pages' content.
"""

from __future__ import annotations

import re

from built_pages import change_when_built
from sphinx.application import Sphinx

MIN_COLUMNS = 7
"""Tables with fewer columns fit as they are."""

_TABLE = re.compile(r'<table class="docutils align-default">(.*?</thead>)(.*?)</table>', re.DOTALL)
_HEAD = re.compile(r'<th class="head[^"]*">(.*?)</th>|<td></td>', re.DOTALL)
_ROW = re.compile(r"<tr .*?</tr>", re.DOTALL)
_CELL = re.compile(r"<td(?=[ >])")
_TAG = re.compile(r"<[^>]+>")


def setup(app: Sphinx) -> None:
    """Mark the tables of all pages when the site has been built."""
    change_when_built(app, with_labels)


def with_labels(text: str) -> str:
    """Return a page whose wide tables have a class, and whose cells have the heads of their columns."""
    return _TABLE.sub(_with_labels, text)


def _with_labels(table: re.Match[str]) -> str:
    head, body = table.groups()
    # A text of HTML without its tags is a text of HTML. Only quotes would end the attribute.
    labels = [_TAG.sub("", one[1] or "").strip().replace('"', "&quot;") for one in _HEAD.finditer(head)]
    if len(labels) < MIN_COLUMNS:
        return table[0]
    rows = _ROW.sub(lambda row: _with_labels_of(row[0], labels), body)
    return f'<table class="docutils align-default wide">{head}{rows}</table>'


def _with_labels_of(row: str, labels: list[str]) -> str:
    remaining = iter(labels)
    return _CELL.sub(lambda cell: f'{cell[0]} data-label="{next(remaining)}"', row)
