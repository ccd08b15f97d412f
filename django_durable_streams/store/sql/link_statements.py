"""The statements on links of subscriptions that the write path needs, for all databases."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.db import connections
from django.db.models import Expression

from ...models import DatabaseIdentity, Subscription, SubscriptionLink
from .base import SHARED_LOCK, BaseStatements
from .columns import LINK_COLUMNS
from .rows import Row, slices


class LinkStatements(BaseStatements):
    """Reads the rules by which new streams are linked, and inserts links."""

    def __init__(self, using: str) -> None:
        super().__init__(using)
        name = self._quote
        subscription, link = self._table(Subscription), self._table(SubscriptionLink)
        lock = {"mysql": SHARED_LOCK, "postgresql": " FOR SHARE"}.get(connections[using].vendor, "")
        self._select_link_rules_version = (
            f"SELECT {name('link_rules_version')} FROM {self._table(DatabaseIdentity)} WHERE {name('id')} = "
            f"{DatabaseIdentity.THE_ONE}"
        )
        self._lock_link_rules = self._select_link_rules_version + lock
        # By all ids, which is a search of an index. A scan of the table costs so much in the committer's transactions
        # (`pipeline.Transaction`) that PostgreSQL would compile the query, for hundreds of milliseconds.
        self._select_rules = (
            f"SELECT {name('id')}, {name('pattern')}, {name('name')} IS NULL FROM {subscription} "
            f"WHERE {name('id')} > 0 AND ({name('pattern')} <> '' OR {name('name')} IS NULL)"
        )
        self._select_explicit_links = (
            f"SELECT {name('subscription_id')}, {name('path')} FROM {link} WHERE {name('is_explicit')} = %s"
        )
        self._insert_link = self._insert(link, LINK_COLUMNS)
        stream_id, path, tail = name("id"), name("path"), name("tail")
        matched = f"{self._insert_link.head} SELECT %s, {path}, {stream_id}, FALSE, TRUE"
        self._link_matching = {
            False: f"{matched}, {tail}, FALSE FROM {self._stream} WHERE {path} IS NOT NULL AND ",
            True: f"{matched}, NULL, {tail} > 0 FROM {self._stream} WHERE {path} IS NOT NULL AND ",
        }
        updated = ("stream_id", "is_glob", "acked_position", "is_pending")
        if self._is_mysql:
            changes = ", ".join(f"{name(column)} = VALUES({name(column)})" for column in updated)
            self._or_update_link = f" ON DUPLICATE KEY UPDATE {changes}, {self._reset_link()}"
        else:
            changes = ", ".join(f"{name(column)} = excluded.{name(column)}" for column in updated)
            conflict = f"{name('subscription_id')}, {name('path')}"
            self._or_update_link = f" ON CONFLICT ({conflict}) DO UPDATE SET {changes}, {self._reset_link()}"

    def _reset_link(self) -> str:
        """Return the assignments that end the work of a consumer on an earlier stream at the path."""
        values = {
            "holder": "''",
            "lease_expires_at": "NULL",
            "failures": "0",
            "next_attempt_at": "NULL",
            "last_error": "''",
            "is_stopped": "FALSE",
        }
        return ", ".join(f"{self._quote(column)} = {value}" for column, value in values.items())

    def lock_link_rules(self, cursor: Any) -> Iterable[Sequence[Any]]:
        """Return one row with the version of the link rules. No other transaction changes them before this one ends."""
        rows: list[Sequence[Any]] = self._execute(cursor, self._lock_link_rules, ()).fetchall()
        return rows

    def select_link_rules(self, cursor: Any, version: int) -> tuple[list[tuple[int, str]], list[int], bool]:
        """Return the rules. Called with their version locked.

        Returns:
            (subscription id, pattern) of the subscriptions with patterns, the ids of deleted subscriptions, and whether
            there are explicit links of others.
        """
        newest = self._newest(cursor, version)
        rows = self._execute_values(cursor, self._select_rules + newest, []).fetchall()
        deleted = [subscription_id for subscription_id, _, is_deleted in rows if is_deleted]
        patterns = [(subscription_id, pattern) for subscription_id, pattern, is_deleted in rows if not is_deleted]
        sql, values = self._select_explicit_links, [("boolean", True)]
        if deleted:
            sql += f" AND {self._quote('subscription_id')} NOT IN ({', '.join(map(str, deleted))})"
        return patterns, deleted, bool(self._execute_values(cursor, f"{sql} LIMIT 1{newest}", values).fetchall())

    def select_explicit_links(self, cursor: Any, paths: Sequence[str], version: int) -> list[tuple[int, str]]:
        """Return (subscription id, path) of the explicit links at some paths. `version` is the one that is locked."""
        links: list[tuple[int, str]] = []
        newest = self._newest(cursor, version)
        for slice_paths in slices(paths):
            among = f"{self._quote('path')} IN ({', '.join(['%s'] * len(slice_paths))})"
            values = [("boolean", True), *(("text", path) for path in slice_paths)]
            links += self._execute_values(
                cursor, f"{self._select_explicit_links} AND {among}{newest}", values
            ).fetchall()
        return links

    def _newest(self, cursor: Any, version: int) -> str:
        """Return the clause with which a query finds what belongs to a version of the rules.

        In a snapshot from before that version a query finds other rows. So it has to lock the rows that it reads, but
        the delivery waits for the locks of subscriptions. A snapshot that shows the version needs none.
        """
        if not self.reads_old_snapshot():
            return ""
        rows = self._execute(cursor, self._select_link_rules_version, ()).fetchall()
        return "" if [tuple(row) for row in rows] == [(version,)] else SHARED_LOCK

    def look_values(self) -> Mapping[str, Expression]:
        """Return the columns that a look at streams sets besides `link_state`. Called before its transaction.

        Where rows have versions, they say that nothing else has changed. So `update_if_unchanged` accepts the row. In a
        transaction of the caller there are none: its other changes may get the same version.
        """
        return {}

    def insert_links(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Insert links, with values in the order of `LINK_COLUMNS`. An existing link of the path is reset."""
        for slice_rows in slices(rows):
            self._insert_rows(cursor, self._insert_link, slice_rows, self._or_update_link)

    def link_matching(
        self, cursor: Any, subscription_id: int, stream_ids: Collection[int], *, from_beginning: bool
    ) -> None:
        """Link streams that a pattern matches, without links yet, at their tails. Called with their rows locked.

        Args:
            subscription_id: key of the subscription.
            stream_ids: keys of the streams, at most `ROWS_PER_STATEMENT`.
            from_beginning: whether their present data is pending.
        """
        values = [("bigint", subscription_id), *(("bigint", stream_id) for stream_id in stream_ids)]
        among, _ = self._among("id", stream_ids)
        self._execute_values(cursor, self._link_matching[from_beginning] + among, values)
