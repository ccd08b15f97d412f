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


_ALL = (
    Mutation(
        "news-that-do-not-join",
        "engine/hub.py",
        "            if start != self.tail or segment is None:\n",
        "            if segment is None:\n",
        "News are believed without a look at whether they join on to what is known: a reader skips what was lost.",
    ),
    Mutation(
        "stale-row-cache",
        "store/known.py",
        "        self.is_alone = version == self._version\n",
        "        self.is_alone = self._version is not None\n",
        "What a connection remembers of streams is believed though others have written: their appends are overwritten.",
    ),
    Mutation(
        "told-before-commit",
        "store/sql/sqlite.py",
        """            if waits is not None:
                waits()  # until here there was nothing to wait for, and to the disk it is far
            self._execute(own, "COMMIT", ())
""",
        """            if waits is not None:
                waits()
            try:
                self._execute(own, "COMMIT", ())
            except Exception:
                pass
""",
        "A commit that fails is taken for one that does not: acknowledged appends are lost.",
    ),
)

MUTATIONS = {mutation.name: mutation for mutation in _ALL}
