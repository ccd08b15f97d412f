"""Views that tell a load balancer or an orchestrator whether a process is alive, and whether to send it requests.

path("healthz", healthz), path("readyz", readyz)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Thread

from django.db import Error, connections, router
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from .engine.engine import wakeup_for
from .engine.readiness import try_tables
from .models import Stream
from .runtime.configuration_errors import MIGRATIONS, find_problem
from .runtime.connection import DedicatedConnection

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
"""How long the answer may take. What has not answered by then counts as not working."""


@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """200 for as long as the process answers at all."""
    return JsonResponse({"status": "ok"})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when streams can be served: the database answers, migrations are applied, and wake-ups work or are absent.

    Otherwise 503, within two seconds or so. The body says which of these hold, and what has to be set right, if that is
    why.
    """
    using = router.db_for_write(Stream)
    connection = DedicatedConnection(using)
    found = {"database": False, "migrations": False, "wakeup": False}
    problems: list[str] = []
    threads = [_started(_check_database, connection, found, problems), _started(_check_wakeup, using, found)]
    deadline = time.monotonic() + CHECK_SECONDS
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    connection.cut()
    answer = dict(found)  # of which nothing changes any more
    if all(answer.values()):
        return JsonResponse({"status": "ok", **answer})
    named = {"problem": problems[0]} if problems else {}
    return JsonResponse({"status": "not ready", **answer, **named}, status=503)


def _started(check: Callable[..., None], *args: object) -> Thread:
    """Begin a check in a thread of its own: what it asks may never answer."""
    thread = Thread(target=check, args=args, name="durable-streams-health", daemon=True)
    thread.start()
    return thread


def _check_database(connection: DedicatedConnection, found: dict[str, bool], problems: list[str]) -> None:
    try:
        connection.open()
        if _migrations_applied(connection.using):
            found["migrations"] = True
            try_tables(connection.using)
        else:
            problems.append(MIGRATIONS.answer)
        found["database"] = True
    except Error as error:
        advice = find_problem(error)
        if advice is not None:
            problems.append(advice.answer)
        logger.warning("Not ready: %s%s", f"{advice.action} " if advice is not None else "", error)
    finally:
        connection.close()


def _migrations_applied(using: str) -> bool:
    executor = MigrationExecutor(connections[using])
    label = Stream._meta.app_label
    targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] == label]
    return not executor.migration_plan(targets)


def _check_wakeup(using: str, found: dict[str, bool]) -> None:
    found["wakeup"] = wakeup_for(using).check()
