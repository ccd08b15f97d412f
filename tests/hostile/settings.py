"""The example project, with the settings of streams that the environment variable STREAMS has as JSON."""

import json
import os

from config.settings import DURABLE_STREAMS

from tests.serving_settings import *  # noqa: F403

DURABLE_STREAMS.update(json.loads(os.environ.get("STREAMS", "{}")))
