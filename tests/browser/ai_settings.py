"""The settings of docs/ai.md for its page without a bundler, with its template."""

from typing import Any

from config.settings import DURABLE_STREAMS, TEMPLATES

from tests.browser.page_settings import *  # noqa: F403
from tests.browser.recipe_pages import AI_PAGE
from tests.docs.pages import blocks

ROOT_URLCONF = "tests.browser.ai_urls"

_templates = {
    block.text.split()[1].removeprefix("shop/templates/"): block.text for block in blocks(AI_PAGE, "html+django")
}
(_permissions,) = [block for block in blocks(AI_PAGE, "python") if "\nDURABLE_STREAMS = {" in block.text]
_shown: dict[str, Any] = {"INSTALLED_APPS": [], "DATABASES": {"default": {}}}
exec(_permissions.text, _shown)

_loaders = [("django.template.loaders.locmem.Loader", _templates)]
TEMPLATES = [{**TEMPLATES[0], "APP_DIRS": False, "OPTIONS": {**TEMPLATES[0].get("OPTIONS", {}), "loaders": _loaders}}]
DURABLE_STREAMS = {**DURABLE_STREAMS, **_shown["DURABLE_STREAMS"], "AI_LEASE": 2}
DURABLE_STREAMS["AI_PERMISSION_CLASS"] = "django_durable_streams.contrib.ai.permissions.OwnChats"
