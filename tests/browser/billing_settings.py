"""The example project with an app that has consumers."""

from config.settings import DURABLE_STREAMS

from tests.serving_settings import *  # noqa: F403
from tests.serving_settings import INSTALLED_APPS as SERVED_APPS  # type: ignore[attr-defined]

INSTALLED_APPS = [*SERVED_APPS, "tests.browser.billing"]
# What the pages show must not change while a test looks at it.
DURABLE_STREAMS["SUBSCRIPTION_DELIVERY"] = False
