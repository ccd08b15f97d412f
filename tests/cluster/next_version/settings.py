"""The servers' settings, with an optional app more and the migrations of a next version."""

from tests.serving_settings import *  # noqa: F403
from tests.serving_settings import INSTALLED_APPS  # type: ignore[attr-defined]

INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.sites"]
MIGRATION_MODULES = {"durable_streams": "tests.cluster.next_version.migrations"}
