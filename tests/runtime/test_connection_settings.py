"""A dedicated connection: the project's settings, but for those that would break the service."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
from django.db import Error, OperationalError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.test import override_settings

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.runtime.configuration_errors import find_problem
from django_durable_streams.runtime.connection import DedicatedConnection
from django_durable_streams.runtime.connection_settings import service_settings
from django_durable_streams.store.upkeep import removal

T = TypeVar("T")


def made(vendor: str, settings: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What is made of a project's settings, which stay as they are."""
    project = {"NAME": "x", "AUTOCOMMIT": True, **settings, "OPTIONS": options}
    before = deepcopy(project)
    own = service_settings(cast(BaseDatabaseWrapper, SimpleNamespace(vendor=vendor, settings_dict=project)))
    assert project == before
    return own


@pytest.mark.parametrize("vendor", ["sqlite", "postgresql", "mysql", "oracle"])
@pytest.mark.parametrize("value", [False, True, 0, 60, None])
def test_what_decides_on_commits_is_the_same_for_all(vendor: str, value: Any) -> None:
    keys = ("AUTOCOMMIT", "ATOMIC_REQUESTS", "CONN_MAX_AGE", "CONN_HEALTH_CHECKS")
    own = made(vendor, dict.fromkeys(keys, value), {})
    assert [own[key] for key in keys] == [True, False, None, False]
    assert own["NAME"] == "x"


def test_postgresql() -> None:
    psycopg = pytest.importorskip("psycopg")
    options = {
        "pool": {"max_size": 1},
        "isolation_level": psycopg.IsolationLevel.SERIALIZABLE,
        "server_side_binding": True,
        "connect_timeout": 30,
        "assume_role": "app",
        "sslmode": "verify-full",
        "options": "-c search_path=app -c statement_timeout=5ms -c DEFAULT_transaction_isolation=serializable",
    }
    own = made("postgresql", {}, options)["OPTIONS"]
    assert own.pop("options") == (
        f"{options['options']} -c statement_timeout=0 -c default_transaction_isolation=read\\ committed"
    )
    assert own == {
        "isolation_level": psycopg.IsolationLevel.READ_COMMITTED,
        "server_side_binding": False,
        "connect_timeout": 2,
        "assume_role": "app",
        "sslmode": "verify-full",
    }
    # A pooler may not take parameters: none is sent that the project does not send.
    assert "options" not in made("postgresql", {}, {})["OPTIONS"]
    assert made("postgresql", {}, {"options": "-c search_path=app"})["OPTIONS"]["options"] == "-c search_path=app"


@pytest.mark.parametrize(("seconds", "expected"), [(None, 2), ("1", 1), (1, 1), (30, 2), ("soon", 2), (0, 2)])
def test_connecting_is_bounded(seconds: Any, expected: int) -> None:
    assert made("mysql", {}, {"connect_timeout": seconds})["OPTIONS"]["connect_timeout"] == expected


def test_mysql_and_sqlite() -> None:
    options = {
        "isolation_level": None,
        "read_timeout": 1,
        "write_timeout": 1,
        "charset": "utf8mb4",
        "init_command": "x",
    }
    assert made("mysql", {}, options)["OPTIONS"] == {
        "isolation_level": "read committed",
        "connect_timeout": 2,
        "charset": "utf8mb4",
        "init_command": "x",
    }
    for mode in (None, "DEFERRED", "EXCLUSIVE"):
        own = made("sqlite", {}, {"transaction_mode": mode, "timeout": 20})["OPTIONS"]
        assert own == {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA secure_delete = FAST",
        }


def with_line(work: Callable[[BaseDatabaseWrapper], T], lock_seconds: int | None = None) -> T:
    """Do something with a dedicated connection, in its thread."""
    line = DedicatedConnection("default", lock_seconds)

    def run() -> T:
        try:
            line.open()
            return work(connections["default"])
        finally:
            line.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


@pytest.fixture
def autocommit_off(transactional_db: None) -> Iterator[None]:
    connection.settings_dict["AUTOCOMMIT"] = False
    yield
    connection.settings_dict["AUTOCOMMIT"] = True


def test_it_commits_by_itself(autocommit_off: None) -> None:
    assert with_line(lambda own: own.get_autocommit())
    assert with_line(lambda own: own.settings_dict["AUTOCOMMIT"])
    assert connection.settings_dict["AUTOCOMMIT"] is False


def secure_deletion(own: BaseDatabaseWrapper) -> int:
    with own.cursor() as cursor:
        mode: int = cursor.execute("PRAGMA secure_delete").fetchone()[0]
    return mode


OFF, ON, FAST = 0, 1, 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite fills deleted data with zeros")
@pytest.mark.parametrize(
    ("init_command", "expected"),
    [
        (None, FAST),
        ("", FAST),
        ("PRAGMA synchronous=FULL;", FAST),
        ("PRAGMA synchronous=FULL; PRAGMA secure_delete=ON", ON),
        ("pragma SECURE_DELETE = 0;", OFF),
    ],
)
def test_deletions_write_no_zeros_unless_the_project_asks_for_them(
    monkeypatch: pytest.MonkeyPatch, init_command: str | None, expected: int
) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "init_command", init_command)
    if init_command is None:
        monkeypatch.delitem(connection.settings_dict["OPTIONS"], "init_command")
    assert with_line(secure_deletion) == expected


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite fills deleted data with zeros")
def test_a_project_can_ask_for_zeros_when_it_is_connected() -> None:
    def ask(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA secure_delete = ON")

    connection_created.connect(ask)
    try:
        assert with_line(secure_deletion) == ON
    finally:
        connection_created.disconnect(ask)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="the others have logs of their own")
@pytest.mark.parametrize("asks_for_zeros", [False, True])
def test_a_purge_writes_less_than_its_data(monkeypatch: pytest.MonkeyPatch, asks_for_zeros: bool) -> None:
    if asks_for_zeros:
        command = "PRAGMA journal_mode=WAL; PRAGMA secure_delete=ON"
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "init_command", command)
    size = 2 * 1024 * 1024

    def work(own: BaseDatabaseWrapper) -> int:
        stream = Stream.objects.create(path="a", content_type="application/octet-stream")
        stream.append(bytes(size))
        stream.delete()
        with own.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            removal.purge_data(own.alias, removal.removed(own.alias))
            ((_, pages, _),) = cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        assert not Chunk.objects.exists()
        return int(pages) * PAGE_BYTES

    assert (with_line(work) > size) == asks_for_zeros


PAGE_BYTES = 4096


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="the others have logs of their own")
@pytest.mark.parametrize("spills", [False, True])
def test_a_large_append_writes_each_page_once_and_at_its_commit(spills: bool) -> None:
    size = 14 * 1024 * 1024

    def work(own: BaseDatabaseWrapper) -> int:
        log = Path(f"{own.settings_dict['NAME']}-wal")
        stream = Stream.objects.create(path="a", content_type="application/octet-stream")
        with own.cursor() as cursor:
            if spills:  # as SQLite does by itself
                cursor.execute("PRAGMA cache_spill = 1")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            with transaction.atomic(own.alias):
                stream.append(bytes(size))
                return log.stat().st_size

    assert (with_line(work) > 0) == spills


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the others have caches of their own")
def test_the_changed_pages_that_stay_in_memory_are_limited(transactional_db: None) -> None:
    """SQLite takes some numbers of pages for "never", and says 0 then."""
    mib = 1024 * 1024

    def work(own: BaseDatabaseWrapper) -> int:
        with own.cursor() as cursor:
            cursor.execute("SELECT cache_spill * page_size FROM pragma_cache_spill, pragma_page_size")
            return int(cursor.fetchone()[0])

    assert 32 * mib <= with_line(work) < 33 * mib


def test_it_is_none_of_the_projects(transactional_db: None) -> None:
    assert with_line(lambda own: own is not connection and type(own) is type(connections["default"]))


@pytest.mark.django_db(transaction=True)
def test_with_debug_it_does_not_keep_what_was_said() -> None:
    def work(own: BaseDatabaseWrapper) -> int:
        with own.cursor() as cursor:
            for _ in range(10):
                cursor.execute("SELECT 1")
        return len(own.queries_log)

    with override_settings(DEBUG=True):
        assert with_line(work) == 0


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_fails_is_an_error_of_the_connection() -> None:
    def fail(**kwargs: Any) -> None:
        raise LookupError("There is no tenant in this thread.")

    connection_created.connect(fail)
    try:
        with pytest.raises(OperationalError, match=r"LookupError: There is no tenant") as raised:
            with_line(lambda own: None)
    finally:
        connection_created.disconnect(fail)
    assert find_problem(raised.value) is None


ENDING = {"postgresql": "SELECT pg_terminate_backend(pg_backend_pid())", "mysql": "KILL CONNECTION_ID()"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor not in ENDING, reason="needs a server that ends connections")
@pytest.mark.parametrize("lock_seconds", [None, 1])
def test_a_connection_that_is_lost_while_it_is_set_up_is_an_error_of_the_database(lock_seconds: int | None) -> None:
    def end(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute(ENDING[connection.vendor])

    def work(own: BaseDatabaseWrapper) -> None:
        with own.cursor() as cursor:
            cursor.execute("SELECT 1")

    connection_created.connect(end)
    try:
        with pytest.raises(Error):
            with_line(work, lock_seconds)
    finally:
        connection_created.disconnect(end)
    with_line(work, lock_seconds)


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_cannot_be_closed_ends_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> list[object]:
        line = DedicatedConnection("default")
        line.open()
        own = connections["default"]
        lost = own.connection
        monkeypatch.setattr(own, "_close", fail)
        line.close()
        monkeypatch.undo()
        lost.close()
        return [own.connection, line.open(), line.close()]

    def fail() -> None:
        raise OperationalError("it is lost")

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(work).result(20) == [None, True, None]
