"""Settings of a server with metrics."""

from tests.serving_settings import *  # noqa: F403
from tests.serving_settings import INSTALLED_APPS as OTHER_APPS  # type: ignore[attr-defined]

INSTALLED_APPS = [*OTHER_APPS, "django_durable_streams.contrib.prometheus"]
ROOT_URLCONF = "tests.metrics.server_urls"
