"""Whatever a project sets for its connections, what is acknowledged is committed, and nothing waits for ever."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.projects.databases import KINDS, migrated_database, new_database
from tests.projects.project import Project

ENTRY_POINTS = ["asgi", "urls", "wsgi"]


class Case(NamedTuple):
    """A project's settings of its database, on top of where that is."""

    name: str
    kinds: tuple[str, ...] = KINDS
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    source: str = ""
    makes_tables: bool = False
    """Whether the tables are made with these settings too."""


RECEIVER = """
from django.db.backends.signals import connection_created
def receive(connection, **kwargs):
    connection.set_autocommit(False)
connection_created.connect(receive, weak=False)
"""
WRAPPER = """
from django.db.backends.signals import connection_created
def wrap(execute, sql, params, many, context):
    return execute(sql, params, many, context)
def receive(connection, **kwargs):
    connection.execute_wrappers.append(wrap)
connection_created.connect(receive, weak=False)
"""
REPEATABLE = """
from psycopg import IsolationLevel
DATABASES["default"]["OPTIONS"]["isolation_level"] = IsolationLevel.SERIALIZABLE
"""

CASES = [
    Case("autocommit off", settings={"AUTOCOMMIT": False}),
    Case("autocommit off and atomic requests", settings={"AUTOCOMMIT": False, "ATOMIC_REQUESTS": True}),
    Case("atomic requests", settings={"ATOMIC_REQUESTS": True}),
    Case("kept connections", settings={"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}),
    Case("short-lived connections", settings={"CONN_MAX_AGE": 1, "CONN_HEALTH_CHECKS": True}),
    Case("a receiver that ends autocommit", source=RECEIVER),
    Case("a wrapper of statements", source=WRAPPER),
    Case("debugging", source="DEBUG = True"),
    Case("deferred transactions", ("sqlite",), options={"transaction_mode": "DEFERRED"}),
    Case("no transaction mode", ("sqlite",), {"AUTOCOMMIT": False}, {"transaction_mode": None}),
    Case("a pool of one", ("postgresql",), options={"pool": {"min_size": 1, "max_size": 1, "timeout": 5}}),
    Case("serializable", ("postgresql",), source=REPEATABLE),
    Case("bound by the server", ("postgresql",), options={"server_side_binding": True}),
    Case(
        "impatient sessions",
        ("postgresql",),
        options={
            "options": "-c statement_timeout=60s -c idle_in_transaction_session_timeout=20s "
            "-c default_transaction_isolation=serializable -c default_transaction_deferrable=on"
        },
    ),
    Case("a role", ("postgresql",), options={"assume_role": "pg_database_owner"}, makes_tables=True),
    Case("another time zone", ("postgresql",), {"TIME_ZONE": "America/New_York"}),
    Case("the server's isolation level", ("mariadb",), options={"isolation_level": None}),
    Case("serializable for all", ("mariadb",), options={"isolation_level": "serializable"}),
    Case("a command that ends autocommit", ("mariadb",), options={"init_command": "SET autocommit=0"}),
    Case("short reads", ("mariadb",), options={"read_timeout": 30, "write_timeout": 30}),
]


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("case", "kind"),
    [pytest.param(case, kind, id=f"{case.name} on {kind}".replace(" ", "-")) for case in CASES for kind in case.kinds],
)
def test_what_is_acknowledged_is_there_for_others(case: Case, kind: str, tmp_path: Path) -> None:
    database = (new_database if case.makes_tables else migrated_database)(kind, tmp_path)
    options = {**database.get("OPTIONS", {}), **case.options}
    project = Project(
        _folder(tmp_path / "project"), {"default": {**database, **case.settings, "OPTIONS": options}}, case.source
    )
    if case.makes_tables:
        project.migrate()
    result = project.run("tests.projects.durable", *ENTRY_POINTS)
    assert set(result["statuses"]) == set(ENTRY_POINTS)
    for statuses in result["statuses"].values():
        assert statuses == [201, 204, 200, 201, 204, 201, 204], result["log"]
    assert result["there"] == {
        "python": "in Python and on",
        **dict.fromkeys(ENTRY_POINTS, "first second third"),
        **{f"{name}-fork": "first second third own" for name in ENTRY_POINTS},
    }, result["log"]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
