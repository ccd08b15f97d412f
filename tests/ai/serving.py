"""Settings of the servers for the tests of AI answers: chats for everybody, in every dialect."""

import os

from config.settings import DURABLE_STREAMS, MIDDLEWARE

from tests.serving_settings import *  # noqa: F403

ROOT_URLCONF = "tests.ai.urls"
# The clients of these tests are programs: they send no CSRF token.
MIDDLEWARE = [name for name in MIDDLEWARE if not name.endswith("CsrfViewMiddleware")]
DURABLE_STREAMS = {
    **DURABLE_STREAMS,
    "AI_PERMISSION_CLASS": "django_durable_streams.contrib.ai.permissions.AnonymousChats",
    "AI_LEASE": float(os.environ.get("AI_LEASE", "2")),
    "AI_RUNS_IN": os.environ.get("AI_RUNS_IN", "process"),
}
