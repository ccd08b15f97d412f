"""The plans of PostgreSQL for the statements of a batch.

A batch switches scans of whole tables off. PostgreSQL still scans where it has no index, and takes that for so
expensive that it compiles the query first. That takes hundreds of milliseconds.
"""

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from django_durable_streams import clock
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.protocol.subscriptions import SubscriptionConfig
from django_durable_streams.store.operations import Append, Create, Delete, Fork, Operation, SetLifetime, Touch, Trim
from django_durable_streams.store.sql.pipeline import Rows, Transaction
from django_durable_streams.store.write import group_commit, linking
from django_durable_streams.subscriptions import registry
from tests.store.contexts import Caching, Staging, Unheard

TEXT = "text/plain"
COMPILED_FROM = 100_000
"""The estimated cost of a query from which PostgreSQL compiles it (`jit_above_cost`)."""

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="how PostgreSQL explains a query"),
]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Rows]]:
    """The statements of all batches, and their plans."""
    seen: list[tuple[str, Rows]] = []
    execute: Callable[..., Rows] = Transaction.execute

    def explain(self: Transaction, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        seen.append((sql, execute(self, f"EXPLAIN {sql}", parameters)))
        return execute(self, sql, parameters)

    monkeypatch.setattr(Transaction, "execute", explain)
    return seen


def test_no_statement_of_a_batch_is_so_expensive_that_it_is_compiled(plans: list[tuple[str, Rows]]) -> None:
    config = SubscriptionConfig("webhook", "events/*", ("events/x", "other"), "https://example.com/", "", 30_000, "")
    registry.create("s", config, "http://testserver/", "default")
    linking._cached.clear()
    claim = ProducerClaim("p", 0, 0)
    batches: list[list[Operation]] = [
        [Create("a", TEXT), Create("b", TEXT)],
        [Create("events/x", TEXT, data=b"x"), Create("events/y", TEXT)],
        [Append("a", TEXT, b"1"), Append("events/x", TEXT, b"1", producer=claim)],
        [Append("a", TEXT, b"1"), Append("b", TEXT, b"1")],
        [Create("fork", None, fork=Fork("a"))],
        [SetLifetime("b", 100, None), Touch("a", clock.now() + timedelta(seconds=1)), Trim("a", 1)],
        [Append("b", TEXT, b"", close=True), Delete("a")],
        [Create("c", TEXT), Create("d", TEXT)],
    ]
    for context in (Caching(), Staging(), Unheard()):
        for operations in batches:
            group_commit.apply(operations, "default", context, wait=False)
        group_commit.apply([Delete(path) for path in ("events/x", "events/y", "fork", "b", "c", "d")], "default")
    costs = {
        sql: max(float(cost) for (line,) in rows.fetchall() for cost in re.findall(r"\.\.([0-9.]+) rows", line))
        for sql, rows in plans
    }
    assert any("pattern" in sql for sql in costs), "the rules of links were not read"
    assert [sql for sql, cost in costs.items() if cost >= COMPILED_FROM] == []
