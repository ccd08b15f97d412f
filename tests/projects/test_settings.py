"""Streams work in every kind of project, through every entry point."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.projects.databases import KINDS, migrated_database, new_database
from tests.projects.project import Project

ENTRY_POINTS = ["asgi", "urls", "wsgi"]


class Kind(NamedTuple):
    """A kind of project: lines for its settings, and settings of its database."""

    name: str
    source: str = ""
    database: dict[str, Any] = {}
    options: dict[str, Any] = {}
    kinds: tuple[str, ...] = ("sqlite",)
    makes_tables: bool = False
    """Whether its tables may be others, so that it makes them itself. Otherwise it begins with those of another one."""


TIMES = [
    Kind(f"USE_TZ {use_tz} in {zone}", f"USE_TZ = {use_tz}\nTIME_ZONE = {zone!r}", kinds=kinds, makes_tables=True)
    for use_tz, zone, kinds in [
        (True, "America/New_York", ("sqlite",)),
        (False, "America/New_York", KINDS),
        (False, "Asia/Tokyo", ("sqlite",)),
        (False, "UTC", ("sqlite",)),
    ]
]
STREAMS_ELSEWHERE = """
DATABASES["streams"] = {**DATABASES["default"], "ATOMIC_REQUESTS": True}
DATABASES["streams"]["NAME"] += ".streams"
DATABASE_ROUTERS = ["routers.Router"]
"""
PEOPLE = """
INSTALLED_APPS.append("people")
AUTH_USER_MODEL = "people.Person"
"""
PROJECTS = [
    *TIMES,
    Kind("plain", kinds=KINDS, makes_tables=True),
    Kind("a script name", 'FORCE_SCRIPT_NAME = "/app"'),
    Kind("no appended slashes", "APPEND_SLASH = False"),
    Kind("appended slashes", "APPEND_SLASH = True\nDEBUG = True"),
    Kind("small uploads", "DATA_UPLOAD_MAX_MEMORY_SIZE = 100\nFILE_UPLOAD_MAX_MEMORY_SIZE = 100"),
    Kind("atomic requests", database={"ATOMIC_REQUESTS": True}, kinds=KINDS),
    Kind("users of its own", PEOPLE, makes_tables=True),
    Kind("primary keys of another type", 'DEFAULT_AUTO_FIELD = "people.fields.KeyField"', makes_tables=True),
    Kind("small primary keys", 'DEFAULT_AUTO_FIELD = "django.db.models.SmallAutoField"', makes_tables=True),
    Kind("a second database", STREAMS_ELSEWHERE, makes_tables=True),
    Kind("health checks", database={"CONN_HEALTH_CHECKS": True, "CONN_MAX_AGE": 60}, kinds=KINDS),
    Kind("kept connections", database={"CONN_MAX_AGE": None}, kinds=KINDS),
    Kind("a pool", options={"pool": {"min_size": 1, "max_size": 2}}, kinds=("postgresql",)),
    Kind("a time zone of the connection", database={"TIME_ZONE": "America/New_York"}, kinds=KINDS),
    Kind("another prefix", 'PREFIX = "deep/er/logs/"'),
    Kind("no prefix", 'PREFIX = "s/"'),
    Kind(
        "all at once",
        "\n".join([TIMES[1].source, 'FORCE_SCRIPT_NAME = "/app"', PEOPLE, 'PREFIX = "logs/"']),
        makes_tables=True,
    ),
]


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("kind", "database"),
    [
        pytest.param(kind, database, id=f"{kind.name} on {database}".replace(" ", "-").replace("/", "-"))
        for kind in PROJECTS
        for database in kind.kinds
    ],
)
def test_everything_works(kind: Kind, database: str, tmp_path: Path) -> None:
    base = (new_database if kind.makes_tables else migrated_database)(database, tmp_path)
    changed = {
        **base,
        **kind.database,
        "OPTIONS": {**base.get("OPTIONS", {}), **kind.options},
    }
    project = Project(tmp_path, {"default": changed}, kind.source)
    seen = project.run("tests.projects.tour", "--migrate", *ENTRY_POINTS)
    assert seen["wrong"] == [], seen["log"]
    assert seen["streams"] > 10
