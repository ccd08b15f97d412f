"""Django's settings in a simulation. The database is put in its place for each run."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES

from .sqlite import SimulatedConnection

if not os.environ.get("DATABASE_URL"):
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "simulation.sqlite3",
        "OPTIONS": {
            "factory": SimulatedConnection,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
        },
    }
DURABLE_STREAMS: dict[str, object] = {}  # type: ignore[no-redef]
LOGGING_CONFIG = None
