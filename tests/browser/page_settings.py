"""The example project with pages of tests, for people who have a login, a token, a signed URL, or nothing."""

import os
from pathlib import Path

from config.settings import DURABLE_STREAMS, TEMPLATES

from tests.browser.streams import KEY
from tests.serving_settings import *  # noqa: F403

ROOT_URLCONF = "tests.browser.page_urls"
ORIGINS = os.environ.get("PAGE_ORIGINS", "").split()

TEMPLATES = [{**TEMPLATES[0], "DIRS": [Path(__file__).resolve().parent / "templates"]}]
DURABLE_STREAMS["PERMISSION_CLASSES"] = [
    "tests.browser.permissions.Public",
    "django_durable_streams.permissions.SignedURLs",
    {"CLASS": "django_durable_streams.permissions.BearerTokens", "KEY": KEY, "ALGORITHMS": ["HS256"]},
    {"CLASS": "django_durable_streams.permissions.Owner", "OWNER": {"users/{user.username}/**": ["read"]}},
]
DURABLE_STREAMS["CORS_ORIGINS"] = ORIGINS
CSRF_TRUSTED_ORIGINS = ORIGINS
