"""What a project has set wrong is said when a process starts, and not by the first request."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from django_durable_streams.runtime import configuration_errors
from django_durable_streams.runtime.configuration_errors import ConfigurationProblem
from tests.projects.databases import KINDS, migrated_database, new_database
from tests.projects.project import Project, sqlite

LOGGING = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
"""

WRONG = {
    "a wrong type": (
        'DURABLE_STREAMS["MAX_APPEND_BYTES"] = "16MB"',
        "MAX_APPEND_BYTES must be a whole number.",
        "E003",
    ),
    "an unknown key": ('DURABLE_STREAMS["PAGE_BYTE"] = 1', "Did you mean PAGE_BYTES?", "E002"),
    "too much": ('DURABLE_STREAMS["WRITER_THREADS"] = 1000', "WRITER_THREADS must be from 1 to 64.", "E004"),
    "no dict": ('DURABLE_STREAMS = "streams"', "DURABLE_STREAMS must be a dict.", "E001"),
    "no rate": ('DURABLE_STREAMS["RATE_LIMITS"] = {"append": "often"}', "RATE_LIMITS", "E004"),
    "no backend": ('DURABLE_STREAMS["WAKEUP"] = {"BACKEND": "no.such.Backend"}', "WAKEUP", "E004"),
    "no permission": ('DURABLE_STREAMS["PERMISSION_CLASSES"] = "no.such.Permission"', "no.such", "E005"),
}


@pytest.mark.parametrize(("source", "words", "number"), WRONG.values(), ids=list(WRONG))
def test_a_process_that_would_serve_does_not_start(source: str, words: str, number: str, tmp_path: Path) -> None:
    project = Project(tmp_path, {"default": sqlite(tmp_path)}, source)
    served = project.start("tests.projects.tour", "asgi")
    assert served.returncode != 0
    assert "ImproperlyConfigured" in served.stderr
    assert words in served.stderr
    checked = project.start("django", "check")
    assert checked.returncode != 0
    assert f"durable_streams.{number}" in checked.stderr
    assert words in checked.stderr
    assert "Traceback" not in checked.stderr


class FailureKind(NamedTuple):
    """A database that is not ready: what is changed in its settings, and what is said of it."""

    name: str
    advice: ConfigurationProblem
    kinds: tuple[str, ...]
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    is_migrated: bool = True
    reads: bool = False
    """Whether reads work all the same."""


TROUBLES = [
    FailureKind("forgotten migrations", configuration_errors.MIGRATIONS, KINDS, is_migrated=False),
    FailureKind("a missing database", configuration_errors.NO_DATABASE, ("postgresql", "mariadb"), {"NAME": "nowhere"}),
    FailureKind("a user who is unknown", configuration_errors.LOGIN, ("postgresql", "mariadb"), {"USER": "nobody"}),
    FailureKind("a wrong password", configuration_errors.LOGIN, ("mariadb",), {"PASSWORD": "wrong"}),
    FailureKind(
        "a host that is not", configuration_errors.NO_HOST, ("postgresql", "mariadb"), {"HOST": "no.such.host.invalid"}
    ),
    FailureKind("no rights", configuration_errors.DENIED, ("postgresql",), options={"assume_role": "pg_monitor"}),
    FailureKind(
        "a session that may only read",
        configuration_errors.READ_ONLY,
        ("postgresql",),
        options={"options": "-c default_transaction_read_only=on"},
        reads=True,
    ),
    FailureKind(
        "a session that may only read",
        configuration_errors.READ_ONLY,
        ("mariadb",),
        options={"init_command": "SET SESSION TRANSACTION READ ONLY"},
        reads=True,
    ),
    FailureKind(
        "a file that may only be read",
        configuration_errors.READ_ONLY,
        ("sqlite",),
        options={"init_command": "PRAGMA query_only = 1"},
        reads=True,
    ),
    FailureKind("a missing folder", configuration_errors.NO_FILE, ("sqlite",), {"NAME": "/no/such/folder/db.sqlite3"}),
    FailureKind("another kind of file", configuration_errors.NO_DATABASE_FILE, ("sqlite",), {"NAME": __file__}),
    FailureKind(
        "a full disk",
        configuration_errors.DISK_FULL,
        ("sqlite",),
        options={"init_command": "PRAGMA max_page_count = 1"},
        reads=True,
    ),
]


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        pytest.param(trouble, kind, id=f"{trouble.name} on {kind}".replace(" ", "-"))
        for trouble in TROUBLES
        for kind in trouble.kinds
    ],
)
def test_what_has_to_be_set_right_is_said_once_at_the_start(trouble: FailureKind, kind: str, tmp_path: Path) -> None:
    database = (migrated_database if trouble.is_migrated else new_database)(kind, tmp_path)
    options = {**database.get("OPTIONS", {}), **trouble.options}
    (tmp_path / "troubled").mkdir()
    project = Project(tmp_path / "troubled", {"default": {**database, **trouble.settings, "OPTIONS": options}}, LOGGING)
    result = project.run("tests.projects.troubled")
    assert result["started"][0] == "lifespan.startup.complete"
    assert result["log"].count(trouble.advice.remedy) in (1, 2), result["log"]  # the health check says it too
    if trouble.advice is not configuration_errors.DISK_FULL:  # nothing is written at the start
        assert result["log"].index(trouble.advice.remedy) < result["log"].index("requests follow")
    for number, (status, body) in enumerate(result["answers"]):
        if trouble.reads and number % 2:
            assert status == 404, body
        else:
            assert (status, trouble.advice.message in body) == (503, True), f"{body}\n{result['log']}"
    assert result["seconds"] < 20
    assert result["health"]["status"] == "not ready" or trouble.advice in (
        configuration_errors.READ_ONLY,
        configuration_errors.DISK_FULL,
    )
    if result["health"]["status"] != "ok":
        assert result["health"]["problem"] == trouble.advice.message
