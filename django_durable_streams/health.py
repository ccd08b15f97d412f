"""Views that tell a load balancer or an orchestrator whether a process is alive, and whether to send it requests.

path("healthz", healthz), path("readyz", readyz)
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import Error, connections, router
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from .engine.engine import wakeup_for
from .models import Stream

logger = logging.getLogger(__name__)


@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """200 for as long as the process answers at all."""
    return JsonResponse({"status": "ok"})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when streams can be served: the database answers, migrations are applied, and wake-ups work or are absent.

    Otherwise 503. The body says which of these hold.
    """
    using = router.db_for_write(Stream)
    found = {
        "database": _holds(_database_answers, using),
        "migrations": _holds(_migrations_applied, using),
        "wakeup": _holds(_wakeup_answers, using),
    }
    ready = all(found.values())
    return JsonResponse({"status": "ok" if ready else "not ready", **found}, status=200 if ready else 503)


def _holds(check: Callable[[str], bool], using: str) -> bool:
    try:
        return check(using)
    except Error as error:
        logger.warning("Not ready: %s", error)
        return False


def _database_answers(using: str) -> bool:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT 1")
        return bool(cursor.fetchone())


def _migrations_applied(using: str) -> bool:
    executor = MigrationExecutor(connections[using])
    label = Stream._meta.app_label
    targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] == label]
    return not executor.migration_plan(targets)


def _wakeup_answers(using: str) -> bool:
    return wakeup_for(using).check()
