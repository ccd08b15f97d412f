"""The example project with event sources, behind everything that Django has between a server and a view."""

from config.settings import DURABLE_STREAMS

from tests.entry_points.middleware_settings import *  # noqa: F403

ROOT_URLCONF = "tests.entry_points.pages_urls"
DURABLE_STREAMS["SEND_TIMEOUT"] = 1.0
DURABLE_STREAMS["POLL_INTERVAL"] = 0.1
