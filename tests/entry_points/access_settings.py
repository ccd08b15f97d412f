"""The example project for those who may, looking at live readers more often than it has to."""

from config.settings import DURABLE_STREAMS

from tests.serving_settings import *  # noqa: F403

DURABLE_STREAMS["PERMISSION_CLASSES"] = [
    "django_durable_streams.permissions.SignedURLs",
    "django_durable_streams.permissions.ModelPermissions",
]
DURABLE_STREAMS["AUTH_CACHE_SECONDS"] = 0.5
DURABLE_STREAMS["REAUTHORIZE_INTERVAL"] = 1.0
