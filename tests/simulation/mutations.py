"""Faults that are put back on purpose: the simulation is worth what it finds.

A mutation is a change in the text of a module, made while a simulated process loads it.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """A fault.

    name: what it is called on the command line.
    module: the file, below the package.
    old: what stands there, exactly once.
    new: what stands there instead.
    why: what it does to whom.
    """

    name: str
    module: str
    old: str
    new: str
    why: str

    def applied(self, module: str, text: str) -> str:
        """Return the text of a module with the fault, if it belongs there."""
        if module != self.module:
            return text
        if text.count(self.old) != 1:
            raise LookupError(f"The mutation {self.name} does not fit to {module} any more: write it anew.")
        return text.replace(self.old, self.new)


MUTATIONS: dict[str, Mutation] = {}
