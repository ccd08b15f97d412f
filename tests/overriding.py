"""Other settings of the streams for a test, on top of those of the tests."""

from typing import Any

from django.conf import settings
from django.test import override_settings


def override_streams(**keys: Any) -> override_settings:
    """Override keys of DURABLE_STREAMS and leave the others, such as who is allowed what. Use as override_settings."""
    return override_settings(DURABLE_STREAMS={**settings.DURABLE_STREAMS, **keys})
