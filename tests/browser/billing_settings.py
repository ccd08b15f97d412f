"""The example project with an app that has consumers."""

from config.settings import *  # noqa: F403
from config.settings import DURABLE_STREAMS, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.browser.billing"]
# What the pages show must not change while a test looks at it.
DURABLE_STREAMS["SUBSCRIPTION_DELIVERY"] = False
