"""Text that the standard library makes classes from is compiled once, and not in each simulated process anew.

Each process loads its own copy of the package's modules, with some sixty dataclasses and named tuples. The standard
library writes the text of their methods, which is the same each time.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from types import CodeType
from typing import Any


def install() -> None:
    """Have `dataclasses` and `collections` keep what they compile. They look these names up in their own modules."""
    vars(dataclasses)["exec"] = _keeping(exec, "exec")
    vars(collections)["eval"] = _keeping(eval, "eval")


def _keeping(run: Callable[..., Any], mode: str) -> Callable[..., Any]:
    codes: dict[str, CodeType] = {}

    def run_kept(text: str, *namespaces: Any) -> Any:
        code = codes.get(text)
        if code is None:
            code = codes[text] = compile(text, "<string>", mode, dont_inherit=True)
        return run(code, *namespaces)

    return run_kept
