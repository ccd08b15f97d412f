"""What a simulated process still has in memory at rest, by the classes of its own copy of the package."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

from .images import PACKAGE, Process

ROOMS = ("engine", "server", "tailing", "writer")
"""Where objects live that belong to a request, a reader or a wait."""

MORE = 8
"""How many more objects of a class than in a process that nobody has used may be there: one for each stream or loop."""


def objects(process: Process) -> Counter[str]:
    """Count the objects that a process has, by class. Values do not count: caches of them are bounded."""
    kinds: dict[type, str] = {}
    for name, module in process.modules.items():
        if name.removeprefix(f"{PACKAGE}.").split(".")[0] in ROOMS:
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name and not issubclass(value, tuple):
                    kinds[value] = f"{name.removeprefix(f'{PACKAGE}.')}.{value.__name__}"
    return Counter(kinds[type(each)] for each in gc.get_objects() if type(each) in kinds)


def left_over(process: Process, unused: Counter[str]) -> Iterator[str]:
    """Yield what a process has kept that it should have let go of.

    Args:
        unused: the objects of a process that nobody has used.
    """
    for name, count in objects(process).items():
        if count > unused[name] + MORE:
            yield f"{process} has {count} objects of {name} at rest, where a new process has {unused[name]}"
