"""The page of the quick start follows a stream as long as there is reason to, and no longer."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.template import engines

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "quickstart.md"
BROWSER = Path(__file__).with_name("page.mjs")

DATA = ["data", [{"id": 1, "text": "hello"}]]
CONTROL = ["control", {"streamNextOffset": "1_1", "upToDate": True}]
CLOSED = ["control", {"streamNextOffset": "2_2", "streamClosed": True}]
ERROR = ["error"]


def follow(events: list[Any], statuses: list[int]) -> dict[str, Any]:
    """Run the page's script where its sources send some events, and return what it has done."""
    (block,) = blocks(PAGE, "html+django")
    html = engines["django"].from_string(block.text).render({})
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    received = json.dumps({"script": script, "events": events, "statuses": statuses})
    done = subprocess.run(
        ["node", str(BROWSER)], input=received, capture_output=True, text=True, timeout=30, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_closed_stream_is_read_once() -> None:
    result = follow([[DATA, CLOSED, ERROR]], [])
    assert result["sources"] == ["/v1/stream/notes?offset=-1&live=sse"]
    assert (result["notes"], result["asked"], result["shown"]) == (["hello"], [], [])


def test_a_response_that_ends_is_gone_on_with_at_the_last_offset() -> None:
    result = follow([[DATA, CONTROL, ERROR], [CLOSED]], [200])
    assert result["sources"] == ["/v1/stream/notes?offset=-1&live=sse", "/v1/stream/notes?offset=1_1&live=sse"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_it_does_not_ask_again_for_what_it_is_refused(status: int) -> None:
    result = follow([[ERROR]], [status])
    assert (len(result["sources"]), result["asked"], result["reloads"]) == (1, ["/v1/stream/notes?offset=-1"], 0)
    assert str(status) in result["shown"][0]


@pytest.mark.parametrize("status", [0, 429, 500, 502, 503])
def test_it_asks_again_after_what_passes(status: int) -> None:
    result = follow([[ERROR], [ERROR], [DATA, CLOSED]], [status, status])
    assert (len(result["sources"]), len(result["asked"]), result["notes"]) == (3, 2, ["hello"])


def test_a_page_that_has_lost_its_place_is_loaded_again() -> None:
    result = follow([[DATA, CONTROL, ERROR]], [410])
    assert result["asked"] == ["/v1/stream/notes?offset=1_1"]
    assert (len(result["sources"]), result["reloads"], result["shown"]) == (1, 1, [])
