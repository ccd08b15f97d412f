"""New databases for projects, on every kind of database."""

from pathlib import Path
from typing import Any

import dj_database_url

from tests.projects.project import sqlite
from tests.services import MariaDB, PostgreSQL, shared

KINDS = ("sqlite", "postgresql", "mariadb")


def new_database(kind: str, folder: Path) -> dict[str, Any]:
    """Return the settings of a new and empty database."""
    if kind == "sqlite":
        return sqlite(folder)
    url = (shared(PostgreSQL) if kind == "postgresql" else shared(MariaDB)).new_database()
    return dict(dj_database_url.parse(url))
