"""The samples of docs/pages.md for rows that change work as they stand there."""

import re
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.template.loader import render_to_string
from django.test import override_settings

from django_durable_streams.models import Stream
from django_durable_streams.server.asgi import DurableStreams
from tests.docs.pages import ROOT, blocks
from tests.overriding import override_streams
from tests.server.pages.conftest import PageClient

PAGE = ROOT / "docs" / "pages.md"
JSON = "application/json"
TEMPLATES = {
    name: block.text
    for block in blocks(PAGE, "html+django")
    for name, mark in (("orders/rows.html", "orders/rows.html: all rows"), ("orders/board.html", '"board-events"'))
    if mark in block.text
}


@pytest.fixture
def orders(engines: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The rows of a model that the page's project has, with its templates and URLs."""
    rows: list[Any] = [SimpleNamespace(text="<Earl> Grey", state="new")]
    models = ModuleType("orders.models")
    models.Order = SimpleNamespace(objects=SimpleNamespace(order_by=lambda field: list(rows)))  # type: ignore[attr-defined]
    for module in (ModuleType("orders"), models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (block,) = [block for block in blocks(PAGE, "python") if "def as_board" in block.text]
    urls = ModuleType("orders.events")
    urls.__package__ = "orders"
    exec(compile(block.text, str(block), "exec"), urls.__dict__)
    loaders = [("django.template.loaders.locmem.Loader", TEMPLATES)]
    options = {"context_processors": [], "loaders": loaders}
    templates: list[dict[str, Any]] = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": options}]
    with (
        override_settings(ROOT_URLCONF=urls, TEMPLATES=templates),
        override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.AllowAll"),
    ):
        yield rows


def shown(html: str) -> list[str]:
    return re.findall(r"<li>(.*?)</li>", html)


async def test_each_change_has_all_rows(orders: list[Any]) -> None:
    client = PageClient(DurableStreams(fallback=get_asgi_application()))  # type: ignore[arg-type]
    await client.create("board", b"1", JSON)
    async with client.source("board/events/board") as page:
        assert shown((await page.until(1))[0]) == ["<b>&lt;Earl&gt; Grey</b> new"]
        orders[0].state = "served"
        orders.append(SimpleNamespace(text="Assam", state="new"))
        await client.append("board", b"2", JSON)
        assert shown((await page.until(2))[1]) == ["<b>&lt;Earl&gt; Grey</b> served", "<b>Assam</b> new"]
        del orders[0]
        await client.append("board", b"3", JSON)
        assert shown((await page.until(3))[2]) == ["<b>Assam</b> new"]


def test_the_page_shows_the_rows_and_follows_from_its_offset(orders: list[Any]) -> None:
    stream = Stream(path="board")
    html = render_to_string("orders/board.html", {"orders": orders, "stream": stream, "offset": "1_2"})
    assert shown(html) == ["<b>&lt;Earl&gt; Grey</b> new"]
    assert 'sse-connect="/board/events/board?offset=1_2&amp;refusals=event"' in html
    assert 'hx-swap="innerHTML"' in html
