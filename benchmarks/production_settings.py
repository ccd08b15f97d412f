"""The example project with a permission that verifies JWTs, as `benchmarks.production` measures it."""

import os

from config.settings import *  # noqa: F403
from config.settings import DURABLE_STREAMS

DURABLE_STREAMS["PERMISSION_CLASSES"] = {
    "CLASS": "django_durable_streams.permissions.BearerTokens",
    "KEY": os.environ["BENCHMARK_JWT_KEY"],
    "ALGORITHMS": ["HS256"],
}
DURABLE_STREAMS["TRUSTED_PROXIES"] = ["127.0.0.1"]
