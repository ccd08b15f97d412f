"""Imports the apps of the example project, for servers with these apps that are forked afterwards: see `preloading`.

Only modules are imported, which takes longer than all else that a server does before its first response. Then Django is
again as it was before its setup: a server reads the settings with its own environment, and calls the `ready` of its
apps. It may have more apps than these.
"""

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parent.parent / "example_project"
SETTINGS = "tests.serving_settings"
OTHER_SETTINGS = ("tests.settings", "tests.simulation.settings")
"""Settings of tests that do not begin with SETTINGS."""

MODULES = (
    "board.admin",
    "board.signals",
    "django.contrib.admin",
    "django.contrib.auth.admin",
    "django.contrib.auth.backends",
    "django.contrib.auth.middleware",
    "django.contrib.auth.views",
    "django.contrib.contenttypes.admin",
    "django_durable_streams.admin",
    "django_durable_streams.channels",
    "django_durable_streams.checks",
    "django_durable_streams.contrib.ai.service",
    "django_durable_streams.contrib.ai.views.base",
    "django_durable_streams.engine",
    "django_durable_streams.pages",
    "django_durable_streams.permissions",
    "django_durable_streams.server.asgi",
    "django_durable_streams.server.control",
    "django_durable_streams.server.listing",
    "django_durable_streams.server.uvicorn.fast_path",
    "django_durable_streams.server.wsgi_paths",
    "django_durable_streams.subscriptions.routes",
    "django_durable_streams.subscriptions.service",
    "django_durable_streams.urls",
)
"""Those that servers import after the models."""


def are_used(environment: dict[str, str]) -> bool:
    """Whether a program with this environment has these apps."""
    name = environment.get("DJANGO_SETTINGS_MODULE", "")
    return name.startswith("tests.") and name not in OTHER_SETTINGS


def import_apps() -> None:
    """Import the apps of SETTINGS."""
    from django.apps import apps
    from django.conf import settings
    from django.db import connections

    os.environ.clear()  # it may configure the run of the tests
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    sys.path.insert(0, str(EXAMPLE))
    populate, get_app_configs = apps.populate, apps.get_app_configs
    apps.get_app_configs = list  # type: ignore[method-assign]  # so that no `ready` is called
    populate(settings.INSTALLED_APPS)
    apps.get_app_configs = get_app_configs  # type: ignore[method-assign]
    for name in MODULES:
        importlib.import_module(name)
    configs = {config.name: config for config in apps.app_configs.values()}

    def populate_again(installed_apps: Iterable[Any]) -> None:
        if not apps.ready:
            populate([configs.get(name, name) for name in installed_apps])
            assert configs.keys() <= {config.name for config in apps.get_app_configs()}

    apps.populate = populate_again  # type: ignore[method-assign, assignment]
    apps.app_configs.clear()
    apps.apps_ready = apps.models_ready = apps.loading = apps.ready = False
    apps.ready_event.clear()
    _forget_settings(settings, connections)


def _forget_settings(settings: Any, connections: Any) -> None:
    """Let the settings, and the connections that they name, be read again."""
    from django.utils.functional import empty

    settings._wrapped = empty
    vars(connections).clear()
    connections.__init__()
    for name in [name for name in sys.modules if name in (SETTINGS, "config.settings")]:
        del sys.modules[name]
