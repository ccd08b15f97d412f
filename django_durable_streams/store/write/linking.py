"""Links new streams to the subscriptions whose patterns they match, in the transaction that creates them.

The rules are the patterns of all subscriptions, and whether there are explicit links. Each process caches them.

Invariant: a stream that is committed is linked by all rules that were committed before its transaction, and a rule that
is committed later finds the stream when it links the existing ones. A transaction that creates streams therefore holds
a shared lock on the version of the rules, and a transaction that changes the rules an exclusive one. A version is a
random number, so that a version that was rolled back never comes back with other rules.

Knows no cursor of a subscription: what happens to a link later is decided in `subscriptions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ...models.stream import LinkState
from ...protocol.globs import GlobSet, glob
from ..sql import Statements, statements
from .stream_state import StreamState


class LinkRules(NamedTuple):
    """The rules by which new streams are linked."""

    version: int
    globs: GlobSet[int] = GlobSet(())
    """The compiled patterns, each with the id of its subscription."""
    patterns: Mapping[int, str] = MappingProxyType({})
    """The same patterns as text, by the id of the subscription."""
    has_explicit: bool = False
    """Whether there are explicit links, which may wait for a stream at their path."""
    deleted: frozenset[int] = frozenset()
    """Ids of deleted subscriptions, some of whose links are still there."""

    def subscriptions_of(self, path: str) -> list[int]:
        """Return the ids of the subscriptions whose pattern matches a path."""
        return self.globs.matching(path)

    def concern(self, paths: Iterable[str]) -> bool:
        """Return whether one of the paths may have a link."""
        return self.has_explicit or bool(self.patterns and any(map(self.globs.matching, paths)))


_cached: dict[str, LinkRules] = {}
"""The rules as this process has last read them, by the alias of the database."""


def cached_rules(using: str) -> LinkRules | None:
    """Return the rules as this process has last read them. They may be old: compare the version."""
    return _cached.get(using)


class Linker:
    """Links the new streams of one batch, in its transaction.

    Args:
        using: alias of the database.
        cursor: the transaction's cursor.
    """

    def __init__(self, using: str, cursor: Any) -> None:
        self._using = using
        self._cursor = cursor
        self._sql: Statements = statements(using)
        self._version: Iterable[Sequence[Any]] | None = None

    def lock_rules(self) -> None:
        """Lock the version of the rules until the end of the transaction. Called before rows of streams are locked."""
        if self._version is None:
            self._version = self._sql.lock_link_rules(self._cursor)

    def match(self, created: Sequence[StreamState]) -> list[tuple[StreamState, int, bool, bool]]:
        """Mark those of the new streams that have links, and return the links.

        Returns the stream, the id of the subscription, whether the link is explicit, and whether a pattern matches.
        """
        rules = self._rules()
        links = {
            (state.path, subscription_id): (state, subscription_id, False, True)
            for state in created
            for subscription_id in rules.subscriptions_of(state.path)
        }
        if rules.has_explicit:
            by_path = {state.path: state for state in created}
            for subscription_id, path in self._sql.select_explicit_links(self._cursor, [*by_path], rules.version):
                if subscription_id in rules.deleted:
                    continue
                is_glob = (path, subscription_id) in links
                links[path, subscription_id] = (by_path[path], subscription_id, True, is_glob)
        for state, *_ in links.values():
            state.link_state = (LinkState.UNSEEN if state.tail else LinkState.SEEN).value
        return list(links.values())

    def insert(self, links: Iterable[tuple[StreamState, int, bool, bool]]) -> None:
        """Insert links of streams that have ids now. A link of an earlier stream at the path becomes the new one's."""
        rows = [
            (subscription_id, state.path, state.id, is_explicit, is_glob, None, False)
            for state, subscription_id, is_explicit, is_glob in links
        ]
        self._sql.insert_links(self._cursor, rows)

    def _rules(self) -> LinkRules:
        self.lock_rules()
        assert self._version is not None
        version = next((int(version) for (version,) in self._version), 0)
        rules = _cached.get(self._using)
        if rules is None or rules.version != version:
            rows, deleted, has_explicit = self._sql.select_link_rules(self._cursor, version)
            patterns = dict(rows)
            globs = _compiled(patterns, rules or LinkRules(version))
            rules = _cached[self._using] = LinkRules(version, globs, patterns, has_explicit, frozenset(deleted))
        return rules


def _compiled(patterns: Mapping[int, str], earlier: LinkRules) -> GlobSet[int]:
    """Compile patterns, by the id of the subscription: only those that are not among earlier ones."""
    changed = patterns.items() ^ earlier.patterns.items()
    return earlier.globs.changed(
        [(subscription_id, glob(text)) for subscription_id, text in changed & patterns.items()],
        [(subscription_id, glob(text)) for subscription_id, text in changed & earlier.patterns.items()],
    )
