"""The next ids of a sweep are those that Django finds, and it writes their statement once. On every database."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models.sql.compiler import SQLCompiler

from django_durable_streams.models import Retention, Stream
from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.store.operations import Create, Delete, Fork, Operation
from django_durable_streams.store.upkeep import next_ids as kept
from django_durable_streams.store.upkeep import removal, retention, trimming
from django_durable_streams.store.write import group_commit

TEXT = "text/plain"
USING = "default"
COUNT = 4

pytestmark = pytest.mark.django_db

Find = Callable[[str, int, int], list[int]]
FINDERS: dict[Find, Callable[[], list[int]]] = {
    removal.unneeded: lambda: ids(removal.unneeded_streams(USING), "id"),
    removal.removed: lambda: ids(Stream.objects.filter(path__isnull=True), "id"),
    trimming.trimmed: lambda: ids(Retention.objects.filter(trim_position__isnull=False), "stream_id"),
}


def ids(query: Any, column: str) -> list[int]:
    return list(query.order_by(column).values_list(column, flat=True))


def apply(*operations: Operation) -> None:
    outcomes, _ = group_commit.apply(list(operations), USING)
    assert not [outcome for outcome in outcomes if isinstance(outcome, DurableStreamsError)]


@pytest.fixture(autouse=True)
def _no_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_statements", {})


@pytest.fixture
def _streams() -> None:
    """Some streams in each state."""
    for number in range(COUNT):
        for name in ("alive", "forked", "removed", "trimmed"):
            apply(Create(f"{name}{number}", TEXT, data=b"data"))
        apply(Create(f"fork{number}", None, fork=Fork(f"forked{number}")))
        apply(Delete(f"removed{number}"), Delete(f"forked{number}"))
        apply(Delete(f"fork{number}"))
        row = Retention(stream_id=Stream.objects.get(path=f"trimmed{number}").pk, trim_position=2)
        retention.upsert(USING, [row], ["trim_position"])


@pytest.mark.parametrize("find", FINDERS, ids=lambda find: find.__name__)
@pytest.mark.usefixtures("_streams")
def test_each_page_has_the_first_ids_past_the_last_page(find: Find) -> None:
    whole = FINDERS[find]()
    assert len(whole) >= COUNT
    for after in (0, *whole):
        rest = [number for number in whole if number > after]
        for limit in (1, 2, COUNT, 500):
            assert find(USING, after, limit) == rest[:limit]


@pytest.mark.parametrize("find", FINDERS, ids=lambda find: find.__name__)
def test_django_writes_the_statement_for_the_first_call_only(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[SQLCompiler] = []
    write = SQLCompiler.as_sql

    def counted(self: SQLCompiler, *args: Any, **options: Any) -> Any:
        written.append(self)
        return write(self, *args, **options)

    monkeypatch.setattr(SQLCompiler, "as_sql", counted)
    assert find(USING, 0, 500) == []
    first = len(written)
    assert first >= 1
    for after, limit in ((0, 500), (7, 500), (7, 3)):
        assert find(USING, after, limit) == []
    assert len(written) == first


def test_another_database_has_a_statement_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    removal.removed(USING, 0, 1)
    monkeypatch.setattr(connection, "vendor", "another")
    removal.removed(USING, 0, 1)
    assert len(kept._statements) == 2
