"""Events for Datastar (https://data-star.dev), as results of renderers. Knows no streams and no requests."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from ...protocol.page_events import PageEvent

Mode = Literal["outer", "inner", "replace", "prepend", "append", "before", "after", "remove"]

_LINE_BREAK = re.compile("\r\n|\r|\n")


def patch_elements(
    html: Any = "", *, selector: str = "", mode: Mode = "outer", view_transition: bool = False
) -> PageEvent:
    """Return the event that puts elements into the page.

    Args:
        html: the elements, as HTML. Django's safe texts and objects with `__html__` are HTML, too.
        selector: CSS selector of the element to change. Without it, each element replaces the one with the same id.
        mode: what to do with the elements. The modes other than `outer` and `replace` need a selector.
        view_transition: whether the browser animates the change.

    Raises:
        ValueError: the mode is unknown, has no selector, or the selector has a line break.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode is one of {', '.join(get_args(Mode))}, not {mode!r}.")
    if not selector and mode not in ("outer", "replace"):
        raise ValueError(f"The mode {mode} needs a selector.")
    if _LINE_BREAK.search(selector):
        raise ValueError("A selector has one line.")
    lines = [f"mode {mode}"] if mode != "outer" else []
    lines += [f"selector {selector}"] if selector else []
    lines += ["useViewTransition true"] if view_transition else []
    return _event("elements", lines, html.__html__() if hasattr(html, "__html__") else str(html))


def patch_signals(signals: Mapping[str, Any] | str, *, only_if_missing: bool = False) -> PageEvent:
    """Return the event that changes signals of the page.

    Args:
        signals: new values by name, or a JavaScript object as text. None removes a signal.
        only_if_missing: whether signals that the page has already keep their values.
    """
    text = signals if isinstance(signals, str) else json.dumps(signals)
    return _event("signals", ["onlyIfMissing true"] if only_if_missing else [], text)


def _event(kind: str, lines: list[str], text: str) -> PageEvent:
    # A line without a space behind its key would be misunderstood, so an empty line keeps the space.
    lines += [f"{kind} {line}" for line in _LINE_BREAK.split(text)] if text else []
    return PageEvent("\n".join(lines), f"datastar-patch-{kind}")
