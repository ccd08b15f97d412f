"""The example project for those who may, with pages of another origin that the environment names."""

import os

from config.settings import DURABLE_STREAMS

from tests.serving_settings import *  # noqa: F403

ORIGINS = os.environ["PAGE_ORIGINS"].split(",")

DURABLE_STREAMS["PERMISSION_CLASSES"] = "django_durable_streams.permissions.ModelPermissions"
DURABLE_STREAMS["CORS_ORIGINS"] = ORIGINS
DURABLE_STREAMS["CORS_ALLOW_HEADERS"] = ["X-Own"]
CSRF_TRUSTED_ORIGINS = ORIGINS
