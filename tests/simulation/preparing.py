"""What a run begins with: an empty database, settings, and somebody who listens to the log."""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path as File

from django.conf import settings
from django.db import Error, connections

from django_durable_streams import models
from django_durable_streams.conf import config

from .history import History
from .program import Program
from .readers import LONG_POLL_SECONDS, SSE_SECONDS
from .scheduler import Killed


class Log(logging.Handler):
    """Hears of what the package itself takes for a fault: exceptions that it did not expect."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.INFO)
        self._history = history
        self._logger = logging.getLogger("django_durable_streams")
        self._logger.setLevel(logging.WARNING)
        self._logger.propagate = False
        self._logger.addHandler(self)

    def remove(self) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._history.note("log", f"{record.levelname}: {record.getMessage()}")
        if error is not None and not isinstance(error, Error | SystemExit) and not isinstance(error.__cause__, Killed):
            self._history.fault(f"logged: {record.getMessage()} {logging.Formatter().formatException(record.exc_info)}")  # type: ignore[arg-type]


def prepare(program: Program, database: File | None) -> None:
    """Put the database and the settings of a run in their places."""
    if database is not None:
        file = database.with_name("run.sqlite3")
        for suffix in ("", "-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(database, file)
        settings.DATABASES["default"]["NAME"] = str(file)
    else:
        with connections["default"].cursor() as cursor:
            name = connections["default"].ops.quote_name
            # Forks refer to their sources, and MariaDB checks that for each row.
            cursor.execute(f"UPDATE {name(models.Stream._meta.db_table)} SET {name('source_id')} = NULL")
            for model in (models.Chunk, models.StagedChunk, models.Producer, models.Stream):
                cursor.execute(f"DELETE FROM {name(model._meta.db_table)}")
        connections.close_all()
    rng = random.Random(f"{program.seed}/settings")
    settings.DURABLE_STREAMS = {
        "PERMISSION_CLASSES": "django_durable_streams.permissions.AllowAll",
        "LONG_POLL_TIMEOUT": LONG_POLL_SECONDS,
        "SSE_DURATION": SSE_SECONDS,
        "GC_THRESHOLD": 0,
        "PAGE_BYTES": rng.choice((64, 1024)) if program.small else 1024 * 1024,
        "CACHE_BYTES": rng.choice((0, 2048)) if program.small else 1024 * 1024,
        "QUEUE_SIZE": rng.choice((10_000, 10_000, 4)),
        "WAKEUP": rng.choice(
            (
                {"BACKEND": "django_durable_streams.engine.wakeup.redis.RedisWakeup", "URL": "redis://nowhere"},
                {"BACKEND": "django_durable_streams.engine.wakeup.base.InProcessWakeup"},
            )
        ),
    }
    models.StagedChunk.BLOCK_BITS = 3 if program.small else 12
    config.cache_clear()
