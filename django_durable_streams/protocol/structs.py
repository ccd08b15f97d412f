"""Structs of msgspec that several threads decode.

msgspec examines a struct when it first decodes one, and other threads run meanwhile. A thread that decodes the same
struct then finds it half examined, and the process crashes. So each module examines its structs when it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


def examine(names: Mapping[str, object]) -> None:
    """Let msgspec examine the structs of a module. To be called at the end of the module, with its `globals()`."""
    for value in names.values():
        if isinstance(value, type(msgspec.Struct)):
            msgspec.json.Decoder(value)
