"""The example project for those who may, looking at live readers more often than it has to."""

from config.settings import *  # noqa: F403
from config.settings import DURABLE_STREAMS

DURABLE_STREAMS["PERMISSION"] = [
    "django_durable_streams.permissions.SignedURLs",
    "django_durable_streams.permissions.ModelPermissions",
]
DURABLE_STREAMS["REMEMBER_SECONDS"] = 0.5
DURABLE_STREAMS["LIVE_CHECK_INTERVAL"] = 1.0
