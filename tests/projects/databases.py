"""New databases for projects, on every kind of database."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import dj_database_url

from tests.projects.project import Project, sqlite
from tests.services import Database, MariaDB, PostgreSQL, shared

KINDS = ("sqlite", "postgresql", "mariadb")


def new_database(kind: str, folder: Path) -> dict[str, Any]:
    """Return the settings of a new and empty database."""
    return sqlite(folder) if kind == "sqlite" else dict(dj_database_url.parse(_server(kind).new_database()))


def migrated_database(kind: str, folder: Path) -> dict[str, Any]:
    """Return the settings of a database with the tables of a plain project, a copy of one that is migrated once."""
    template = _template(kind)
    if kind == "sqlite":
        result = sqlite(folder)
        shutil.copyfile(template, result["NAME"])
        return result
    return dict(dj_database_url.parse(_server(kind).new_copy(template)))


@functools.cache
def _template(kind: str) -> str:
    """Return the URL of a migrated database, or the name of its file."""
    folder = tempfile.TemporaryDirectory(prefix="durable-streams-project-")
    atexit.register(folder.cleanup)
    path = Path(folder.name)
    if kind == "sqlite":
        settings = sqlite(path)
        Project(path, {"default": settings}).migrate()
        return str(settings["NAME"])
    url = _server(kind).new_database()
    Project(path, {"default": dict(dj_database_url.parse(url))}).migrate()
    return url


def _server(kind: str) -> Database:
    return shared(PostgreSQL) if kind == "postgresql" else shared(MariaDB)
