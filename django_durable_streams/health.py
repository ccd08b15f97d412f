"""Health checks for load balancers and orchestrators: whether a process is alive, and whether it can serve streams.

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

from .engine.announcements import wakeup_for
from .engine.readiness import try_tables
from .models import Stream
from .runtime.configuration_errors import MIGRATIONS, find_problem
from .runtime.connection import DedicatedConnection

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
"""Limit for a check. A part that has not answered by then counts as not working."""


@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200 as long as the process answers at all."""
    return JsonResponse({"status": "ok"})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """Answer 200 if streams can be served: the database answers, migrations are applied, and wake-ups work or are off.

    Otherwise answer 503, within about two seconds. The body says which of these parts work, and names the configuration
    problem, if there is one.
    """
    using = router.db_for_write(Stream)
    connection = DedicatedConnection(using)
    works = {"database": False, "migrations": False, "wakeup": False}
    problems: list[str] = []
    threads = [_start(_check_database, connection, works, problems), _start(_check_wakeup, using, works, problems)]
    deadline = time.monotonic() + CHECK_SECONDS
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    connection.cut()
    parts = dict(works)  # a copy, which a late thread does not change
    if all(parts.values()):
        return JsonResponse({"status": "ok", **parts})
    problem = {"problem": problems[0]} if problems else {}
    return JsonResponse({"status": "not ready", **parts, **problem}, status=503)


def _start(check: Callable[..., None], *args: object) -> Thread:
    """Start a check in a thread of its own, because the database or Redis may never answer."""
    thread = Thread(target=check, args=args, name="durable-streams-health", daemon=True)
    thread.start()
    return thread


def _check_database(connection: DedicatedConnection, works: dict[str, bool], problems: list[str]) -> None:
    try:
        with connection:  # forks wait for it
            connection.open()
            if _migrations_applied(connection.using):
                works["migrations"] = True
                try_tables(connection.using)
            else:
                problems.append(MIGRATIONS.message)
        works["database"] = True
    except Error as error:
        problem = find_problem(error)
        if problem is not None:
            problems.append(problem.message)
        logger.warning("Not ready: %s%s", f"{problem.remedy} " if problem is not None else "", error)
    finally:
        connection.close()


def _migrations_applied(using: str) -> bool:
    executor = MigrationExecutor(connections[using])
    label = Stream._meta.app_label
    targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] == label]
    return not executor.migration_plan(targets)


def _check_wakeup(using: str, works: dict[str, bool], problems: list[str]) -> None:
    problem = wakeup_for(using).find_problem()
    works["wakeup"] = problem is None
    if problem is not None:
        logger.warning("Not ready: %s", f"{problem.text} {problem.remedy}".strip())
        if problem.remedy:
            problems.append(problem.remedy)
