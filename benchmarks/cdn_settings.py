"""Settings of the example project for `cdn`: caches may keep its streams, which have many small pages."""

from config.settings import *  # noqa: F403
from config.settings import DURABLE_STREAMS

DURABLE_STREAMS = {**DURABLE_STREAMS, "CACHE_SCOPE": "public", "PAGE_BYTES": 16 * 1024}
