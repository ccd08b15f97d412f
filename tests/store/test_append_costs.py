"""The statements that an append takes, with and without a subscription that follows its stream."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.db import connection

from django_durable_streams.models import Stream
from django_durable_streams.models.stream import LinkState
from django_durable_streams.store.operations import Append, Create
from django_durable_streams.store.sql import pipeline
from django_durable_streams.store.write import linking
from django_durable_streams.subscriptions.pending import look_at_unseen
from tests.store.test_row_cache import CommitterConnection, elsewhere
from tests.subscriptions.steps import USING, subscribe

TEXT = "text/plain"
OTHER, LINKED = "others/a", "events/a"

pytestmark = pytest.mark.django_db(transaction=True)

COMMITTER = {
    # The row cache has the row. PRAGMA asks whether another connection has committed.
    "sqlite": ["BEGIN", "PRAGMA", "UPDATE", "INSERT", "COMMIT"],
    "postgresql": ["BEGIN", "SET", "SET", "UPDATE", "INSERT", "COMMIT"],
    "mysql": ["SELECT", "UPDATE", "INSERT"],
}
PLAIN = {
    **COMMITTER,
    # Of a stream without a link. The UPDATE and the INSERT are one statement.
    "postgresql": ["BEGIN", "SET", "SET", "WITH", "COMMIT"],
}
CALLER = {
    "sqlite": ["BEGIN", "SELECT", "UPDATE", "INSERT", "COMMIT"],
    "postgresql": ["BEGIN", "SET", "SELECT", "UPDATE", "INSERT", "COMMIT"],
    "mysql": ["SELECT", "UPDATE", "INSERT"],
}


AFTER_A_LOOK = {
    # The look has changed the row of the stream, so the row cache does not have it any more.
    **COMMITTER,
    "sqlite": ["BEGIN", "PRAGMA", "SELECT", "UPDATE", "INSERT", "COMMIT"],
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Get the first word of each statement, also of those that go past Django's cursors."""
    words: list[str] = []
    real: Callable[..., Any] = pipeline._exchange

    def exchange(driver: Any, statements: Sequence[pipeline.Statement]) -> Any:
        words.extend(statement.sql.split()[0].decode() for statement in statements)
        return real(driver, statements)

    def note(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        words.append(sql.split()[0])
        return execute(sql, parameters, many, context)

    monkeypatch.setattr(pipeline, "_exchange", exchange)
    with connection.execute_wrapper(note):
        yield words


@pytest.fixture
def committer() -> CommitterConnection:
    """A committer that has both streams in its row cache, if the database has one."""
    linking._cached.clear()
    subscribe(pattern="events/*")
    committer = CommitterConnection()
    for path in (OTHER, LINKED):
        committer.apply(Create(path, TEXT))
        committer.apply(Append(path, TEXT, b"x"))
    assert Stream.objects.get(path=OTHER).link_state is None
    assert Stream.objects.get(path=LINKED).link_state == LinkState.UNSEEN
    return committer


def take(sent: list[str]) -> list[str]:
    words = [*sent]
    sent.clear()
    return words


@pytest.mark.parametrize(("path", "costs"), [(OTHER, PLAIN), (LINKED, COMMITTER)])
def test_of_a_committer(
    committer: CommitterConnection, sent: list[str], path: str, costs: dict[str, list[str]]
) -> None:
    committer.apply(Append(path, TEXT, b"x"))
    assert take(sent) == costs[connection.vendor]


@pytest.mark.parametrize("path", [OTHER, LINKED])
def test_of_a_python_caller(committer: CommitterConnection, sent: list[str], path: str) -> None:
    stream = Stream.objects.get(path=path)
    take(sent)
    stream.append(b"x")
    assert take(sent) == CALLER[connection.vendor]


def test_of_a_committer_after_a_look_at_the_stream(committer: CommitterConnection, sent: list[str]) -> None:
    elsewhere(lambda: look_at_unseen(USING))
    assert Stream.objects.get(path=LINKED).link_state == LinkState.SEEN
    take(sent)
    committer.apply(Append(LINKED, TEXT, b"x"))
    assert take(sent) == AFTER_A_LOOK[connection.vendor]
    assert Stream.objects.get(path=LINKED).link_state == LinkState.UNSEEN


def test_of_a_committer_after_looks_at_some_of_several_streams(committer: CommitterConnection, sent: list[str]) -> None:
    paths = ["events/b", "events/c", LINKED, OTHER]
    committer.apply(*(Create(path, TEXT) for path in paths))
    committer.apply(*(Append(path, TEXT, b"x") for path in paths))
    for _ in range(3):
        elsewhere(lambda: look_at_unseen(USING))
        take(sent)
        committer.apply(*(Append(path, TEXT, b"x") for path in paths))
        assert take(sent) == AFTER_A_LOOK[connection.vendor]
    assert {stream.tail_position for stream in Stream.objects.filter(path__in=paths)} == {4, 5}
    committer.apply(Append(LINKED, TEXT, b"x"))  # and the next batch needs no read either
    assert take(sent)[-len(COMMITTER[connection.vendor]) :] == COMMITTER[connection.vendor]
