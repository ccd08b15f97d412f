"""A merge that is interrupted at each of its statements: each acknowledged byte exists exactly once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from threading import Thread
from typing import Any

import pytest
from django.db import Error, connection, connections

from django_durable_streams.api import transactions
from django_durable_streams.models import Chunk, Stream
from django_durable_streams.store.operations import Append, Create, Delete, Fork
from django_durable_streams.store.sql import CommitUncertain, statements
from django_durable_streams.store.sql.pipeline import Transaction
from django_durable_streams.store.upkeep import compaction, removal
from tests.store.contents import read
from tests.store.test_isolation import LONG_AGO, elsewhere, isolated
from tests.tokens import offset_in

TEXT = "text/plain"
PARTS = 12

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time"),
]

PLACES = ["lock_chunks", "delete_rows", "insert_chunks", "commit"]
"""Before what of a merge something happens."""

LEVELS = ["READ COMMITTED", "REPEATABLE READ"]


def make(path: str) -> int:
    """Make a stream of small chunks, and return its id."""
    transactions.apply(Create(path, TEXT), "default")
    for number in range(PARTS):
        append(path, b"<%d>" % number)
    return Stream.objects.get(path=path).pk


def append(path: str, data: bytes) -> None:
    transactions.apply(Append(path, TEXT, data), "default")


def content(path: str) -> bytes:
    """Return what is in a stream, whose chunks have to lie side by side from its beginning to its end."""
    stream = Stream.objects.get(path=path)
    chunks = [*Chunk.objects.filter(stream=stream).order_by("end")]
    if stream.source_id is None:
        assert [chunk.start for chunk in chunks[:1]] == [0]
    assert all(first.end == second.start for first, second in pairwise(chunks))
    assert all(len(chunk.data) == chunk.end - chunk.start for chunk in chunks)
    assert not chunks or chunks[-1].end == stream.tail_position
    return read(path)[0]


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Have something happen once, before a statement of a merge."""
    kind = type(statements("default"))

    def arrange(place: str, act: Callable[[], object]) -> None:
        name = "insert_chunks" if place == "commit" else place
        real = getattr(kind, name)
        waiting = [act]

        def statement(self: Any, cursor: Any, *args: Any) -> Any:
            if place == "commit":
                real(self, cursor, *args)
            if waiting:
                self.flush(cursor)
                waiting.pop()()
            return None if place == "commit" else real(self, cursor, *args)

        monkeypatch.setattr(kind, name, statement)

    return arrange


def impatiently(work: Callable[[], object]) -> bool:
    """Do something over another connection that waits a second at most, and return whether it was acknowledged."""
    done: list[bool] = []

    def run() -> None:
        with connection.cursor() as cursor:
            seconds = "lock_timeout = 1000" if connection.vendor == "postgresql" else "innodb_lock_wait_timeout = 1"
            cursor.execute(f"SET {seconds}")
        with suppress(Error):
            work()
            done.append(True)

    elsewhere(run)
    return bool(done)


def merge_all(*ids: int) -> None:
    compaction.compact("default", ids)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("place", PLACES)
def test_another_merge_of_the_same_chunks(place: str, level: str, before: Any) -> None:
    stream_id = make("a")
    expected = content("a")
    before(place, lambda: impatiently(lambda: merge_all(stream_id)))
    with isolated(level):
        merge_all(stream_id)
    assert content("a") == expected
    merge_all(stream_id)
    assert content("a") == expected
    assert Chunk.objects.count() < PARTS


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("place", PLACES)
def test_an_append_and_a_fork(place: str, level: str, before: Any) -> None:
    stream_id = make("a")
    expected = content("a")
    cut = offset_in("a", 6)
    done: dict[str, bool] = {}

    def act() -> None:
        done["append"] = impatiently(lambda: append("a", b"<new>"))
        done["fork"] = impatiently(lambda: transactions.apply(Create("fork", None, fork=Fork("a", cut)), "default"))

    before(place, act)
    with isolated(level):
        merge_all(stream_id)
    if level == "READ COMMITTED":  # housekeeping's
        assert done["append"] or connection.vendor == "mysql"  # whose foreign key holds the stream's row
    assert content("a") == expected + b"<new>" * done["append"]
    if done["fork"]:
        assert content("fork") == expected[:6]


def delete(path: str) -> None:
    transactions.apply(Delete(path), "default")


def expire(path: str) -> None:
    Stream.objects.filter(path=path).unguarded().update(deadline=LONG_AGO)
    removal.expire("default")


@pytest.mark.parametrize("end", [delete, expire])
@pytest.mark.parametrize("place", PLACES)
def test_the_end_of_one_of_the_streams(place: str, end: Callable[[str], None], before: Any) -> None:
    ids = [make("a"), make("b")]
    expected = content("a")
    ended: list[bool] = []

    def act() -> None:
        ended.append(impatiently(lambda: end("b")))
        impatiently(lambda: removal.purge("default"))

    before(place, act)
    with isolated("READ COMMITTED"):
        merge_all(*ids)
    assert content("a") == expected
    if not ended[0]:
        assert content("b") == expected
    else:
        while removal.purge("default"):
            pass
        assert not Chunk.objects.filter(stream_id=ids[1]).exists()


def kill() -> None:
    """Have the server end this thread's connection."""
    with connection.cursor() as cursor:
        own = "SELECT CONNECTION_ID()" if connection.vendor == "mysql" else "SELECT pg_backend_pid()"
        cursor.execute(own)
        (number,) = cursor.fetchone()
    command = "KILL CONNECTION %s" if connection.vendor == "mysql" else "SELECT pg_terminate_backend(%s)"

    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(command, [number])

    elsewhere(run)


@pytest.mark.parametrize("place", PLACES)
def test_a_connection_that_the_server_ends(place: str, before: Any) -> None:
    stream_id = make("a")
    expected = content("a")
    before(place, kill)
    with pytest.raises((Error, CommitUncertain)):
        merge_all(stream_id)
    connection.close()
    assert content("a") == expected
    merge_all(stream_id)
    assert content("a") == expected


class Interrupted(BaseException):
    """What a signal raises in the main thread, such as KeyboardInterrupt and SystemExit."""


def interrupt() -> None:
    raise Interrupted


def interrupt_rollback(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(connections["default"], "rollback", interrupt)
    travel = Transaction._round_trip

    def interrupted(self: Any, before: Any = (), after: Any = ()) -> Any:
        if any(statement.sql == b"ROLLBACK" for statement in after):
            raise Interrupted
        return travel(self, before, after)

    patched.setattr(Transaction, "_round_trip", interrupted)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_and_another_one_while_all_is_undone(
    place: str, again: bool, before: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_id = make("a")
    expected = content("a")
    before(place, interrupt)
    with monkeypatch.context() as patched:
        if again:
            interrupt_rollback(patched)
        with pytest.raises(Interrupted):
            merge_all(stream_id)
    assert content("a") == expected
    append("a", b"<next>")  # which has to be committed
    connection.close()
    assert content("a") == expected + b"<next>"


@contextmanager
def holding(statements: Sequence[str]) -> Iterator[Any]:
    """Yield a cursor of another connection, in a transaction that has executed statements."""
    other = connections.create_connection("default")
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            yield cursor
    finally:
        other.close()


@pytest.mark.skipif(connection.vendor != "mysql", reason="its merges wait for the stream's row")
def test_a_lock_that_is_not_to_be_had() -> None:
    stream_id = make("a")
    expected = content("a")
    with connection.cursor() as cursor:
        cursor.execute("SET innodb_lock_wait_timeout = 1")
    lock = f"SELECT id FROM {Stream._meta.db_table} WHERE id = {stream_id} FOR UPDATE"
    with holding([lock]), pytest.raises(Error, match="1205"):
        merge_all(stream_id)
    connection.close()
    assert content("a") == expected


@pytest.mark.skipif(connection.vendor != "mysql", reason="its merges wait for the stream's row")
def test_a_deadlock_of_which_the_merge_is_the_victim(before: Any) -> None:
    """The server rolls back all of the transaction, and not only the statement."""
    stream_id = make("a")
    other_id = make("b")
    expected = content("a")
    chunk = Chunk.objects.filter(stream_id=stream_id).earliest("end").pk
    lock = f"SELECT id FROM {Stream._meta.db_table} WHERE id = {stream_id} FOR UPDATE"
    # The one that has changed less is rolled back.
    weight = [
        f"INSERT INTO {Chunk._meta.db_table} (stream_id, start, end, data, ends, created_at) "
        f"VALUES ({other_id}, {number}, {number + 1}, '', '', NOW())"
        for number in range(1000, 1100)
    ]
    with holding([lock, *weight]) as cursor:

        def wait() -> None:
            with suppress(Error):
                cursor.execute(f"SELECT id FROM {Chunk._meta.db_table} WHERE id = {chunk} FOR UPDATE")

        waiting = Thread(target=wait)

        def act() -> None:
            waiting.start()
            sees_waiting()

        before("insert_chunks", act)
        with pytest.raises(Error, match="1213"):
            merge_all(stream_id)
        waiting.join(20)
    assert content("a") == content("b") == expected


def sees_waiting() -> None:
    """Wait until another transaction waits for a lock."""
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            waiting_count = 0
            while not waiting_count:
                cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
                (waiting_count,) = cursor.fetchone()
    finally:
        other.close()
