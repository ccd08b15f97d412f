"""docs/installation.md says what there is to install and to set."""

import inspect
import re
import tomllib

import pytest
from django.test import override_settings

from django_durable_streams.conf import SETTING
from tests.docs.pages import PAGES, ROOT, blocks, section

PAGE = ROOT / "docs" / "installation.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ON_PAGES = [
    (page.name, extras)
    for page in PAGES
    for extras in re.findall(r"django-durable-streams\[([\w,]+)\]", page.read_text())
]


@pytest.mark.parametrize(("page", "extras"), ON_PAGES)
def test_the_extras_are_there(page: str, extras: str) -> None:
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_page_installs_with_extras() -> None:
    assert [page for page, _ in ON_PAGES].count(PAGE.name) == 3


def test_the_example_for_redis_has_the_options_that_the_backend_takes() -> None:
    from django_durable_streams.engine.wakeup.redis import RedisWakeup

    text = section(PAGE, "Several processes")
    options = set(inspect.signature(RedisWakeup).parameters) - {"using"}
    assert {name for name in options if re.search(rf"[`\"]{name.upper()}[`\"]", text)} == options
    scope: dict[str, dict[str, dict[str, str]]] = {}
    (block,) = [block for block in blocks(PAGE, "python") if "RedisWakeup" in block.text]
    exec(block.text, scope)
    with override_settings(DURABLE_STREAMS=scope[SETTING]):
        from django_durable_streams.engine.wakeup import make_wakeup

        wakeup = make_wakeup("default")
    assert isinstance(wakeup, RedisWakeup)
    wakeup.stop()
