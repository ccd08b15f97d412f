"""Faults that are put back on purpose: the simulation is worth what it finds.

A mutation is a change in the text of a module, made while a simulated process loads it.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """A fault.

    name: what it is called on the command line.
    module: the file, below the package.
    edits: what stands there, exactly once each, and what stands there instead.
    why: what it does to whom.
    seed: a search for it begins there. Earlier ones are known not to find it, and what finds nothing asserts nothing.
    """

    name: str
    module: str
    edits: tuple[tuple[str, str], ...]
    why: str
    seed: int = 0

    def applied(self, module: str, text: str) -> str:
        """Return the text of a module with the fault, if it belongs there.

        Raises:
            LookupError: the module has been written anew, and so must be the mutation.
        """
        if module != self.module:
            return text
        for old, new in self.edits:
            if text.count(old) != 1:
                raise LookupError(f"The mutation {self.name} does not fit to {module} any more: write it anew.")
            text = text.replace(old, new)
        return text


_ALL = (
    Mutation(
        "two-orders",
        "engine/committer.py",
        (
            (
                "        self._context = CommitContext() if context is None else context\n",
                "        self._context = CommitContext() if context is None else context\n"
                "        self._context.locked_paths = lambda paths: ()\n",
            ),
            (
                "                if diagnose(attempt) is FailureKind.BUSY and not self._has_row_locks:\n"
                "                    return None\n",
                "                if diagnose(attempt) is FailureKind.BUSY and not self._has_row_locks:\n"
                "                    return [LOCKED] * len(operations)\n",
            ),
        ),
        "What waits for a lock and what comes later are in two queues: a later append overtakes an earlier one.",
        seed=97,
    ),
    Mutation(
        "news-that-do-not-join",
        "engine/watch.py",
        (("            if start != self.tail or segment is None:\n", "            if segment is None:\n"),),
        "Data of messages is used although it does not join to the known data: a reader skips lost data.",
    ),
    Mutation(
        "instance-without-identity",
        "store/write/batch.py",
        (
            (
                "            if operation.stream_id is not None:\n                expect(",
                "            if False:\n                expect(",
            ),
        ),
        "An instance of a stream that was deleted appends to another one that was made at its path.",
    ),
    Mutation(
        "stale-row-cache",
        "store/write/row_cache.py",
        (
            (
                "self.others_write = commit_count != self._commit_count\n",
                "self.others_write = self._commit_count is None\n",
            ),
        ),
        "What a connection remembers of streams is believed though others have written: their appends are overwritten.",
    ),
    Mutation(
        "told-before-commit",
        "store/sql/sqlite_execution.py",
        (
            (
                '        self._execute(cursor, "COMMIT", ())\n',
                '        try:\n            self._execute(cursor, "COMMIT", ())\n'
                "        except Exception:\n            pass\n",
            ),
        ),
        "A commit that fails is taken for one that does not: acknowledged appends are lost.",
    ),
    Mutation(
        "ttl-from-the-first-use",
        "store/write/stream_state.py",
        (
            (
                "            self.deadline = lifetime.deadline(self.ttl, self.expires_at, now)\n",
                "            self.deadline = self.deadline\n",
            ),
        ),
        "An append does not start the TTL again: a stream ends while it is used.",
    ),
    Mutation(
        "source-without-forks",
        "store/write/batch.py",
        (
            (
                "            self._soft_deleted[state.path] = state\n            self._to_soft_delete.append(state)\n",
                "            self._to_remove.append(state)\n",
            ),
        ),
        "A deleted stream does not keep its data for its forks.",
    ),
    Mutation(
        "writer-begins-too-early",
        "api/stream_appender.py",
        (("taken_over.seq + 1, taken_over.closed", "max(taken_over.seq, 0), taken_over.closed"),),
        "A job that is started again writes its last message once more.",
    ),
)

MUTATIONS = {mutation.name: mutation for mutation in _ALL}
