"""The answers of `manage.py streams_worker`: with `AI_RUNS_IN` set to `worker`, it takes them from the queue."""

from __future__ import annotations

from django.apps import apps

from ...conf import config

APP = "django_durable_streams.contrib.ai"


def is_wanted() -> bool:
    """Return whether workers of this project write answers."""
    return apps.is_installed(APP) and config().ai_runs_in == "worker"


def start_taking() -> None:
    """Take answers from the queue in this process, until its engines stop."""
    from .models import database
    from .service import answers_of

    answers_of(database()).watch(takes_queue=True)
