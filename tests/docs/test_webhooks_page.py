"""What docs/webhooks.md shows to authors of receivers works, and its numbers are those of the code."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.test import RequestFactory

from django_durable_streams import clock
from django_durable_streams.conf import Config, config
from django_durable_streams.subscriptions import addresses, http_client, signing_keys
from tests.docs.pages import ROOT, blocks, section, table
from tests.overriding import override_streams

PAGE = ROOT / "docs" / "webhooks.md"
RUNNER = Path(__file__).with_name("verify.mjs")
SHOWN_URL = "https://streams.example.com/v1/stream/__ds/jwks.json"

BODY = json.dumps({"streams": [{"path": "a", "acked_offset": "1", "tail_offset": "2"}], "text": "é"}).encode()
KEY = signing_keys._new_key(1, clock.now())
STRANGER = signing_keys._new_key(1, clock.now())


class Published:
    """A server of the published keys."""

    def __init__(self) -> None:
        self.fetches = 0
        published = self
        content = json.dumps({"keys": [signing_keys._jwk(KEY)]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                published.fetches += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def published() -> Iterator[Published]:
    server = Published()
    yield server
    server.stop()


class Case(NamedTuple):
    """A request, and whether its signature counts."""

    body: bytes
    header: str
    expected: bool


def cases() -> list[Case]:
    """Requests as servers and strangers send them."""
    now = clock.now()
    good = signing_keys.sign(BODY, now, KEY)
    time, kid, signature = good.split(",")
    padded = f"{good}=="
    return [
        Case(BODY, good, True),
        Case(b"", signing_keys.sign(b"", now, KEY), True),
        Case(bytes(range(256)), signing_keys.sign(bytes(range(256)), now, KEY), True),
        Case(BODY, signing_keys.sign(BODY, now - timedelta(seconds=290), KEY), True),
        Case(BODY, signing_keys.sign(BODY, now - timedelta(seconds=310), KEY), False),
        Case(BODY, signing_keys.sign(BODY, now + timedelta(seconds=310), KEY), False),
        Case(BODY + b" ", good, False),
        Case(BODY, signing_keys.sign(BODY, now, STRANGER), False),
        Case(BODY, signing_keys.sign(BODY, now, STRANGER).replace(STRANGER.kid, KEY.kid), False),
        Case(BODY, f"t={int(now.timestamp()) + 1},{kid},{signature}", False),
        Case(BODY, f"{time},{signature},{kid}", False),
        *(Case(BODY, header, False) for header in ("", good[:-1], padded, f"{good},{good}", good + "\n", f" {good}")),
        Case(BODY, good.replace("t=", "t=-"), False),
        Case(BODY, f"{time},kid=../../x,{signature}", False),
        Case(BODY, good, True),
    ]


def receiver(published: Published) -> dict[str, Any]:
    """The names of the Python that the page shows."""
    scope: dict[str, Any] = {"process": lambda *args: scope.setdefault("processed", []).append(args)}
    for block in blocks(PAGE, "python"):
        if "is_signed" in block.text:
            exec(compile(block.text.replace(SHOWN_URL, published.url), str(block), "exec"), scope)
    return scope


def test_the_python_that_is_shown_accepts_what_the_server_signs_and_nothing_else(published: Published) -> None:
    is_signed = receiver(published)["is_signed"]
    for case in cases():
        assert is_signed(case.body, case.header) is case.expected, case
    assert published.fetches == 1


def test_the_javascript_that_is_shown_says_the_same(published: Published) -> None:
    (block,) = blocks(PAGE, "js")
    asked = cases()
    received = {
        "source": block.text.replace(SHOWN_URL, published.url),
        "cases": [{"body": base64.b64encode(case.body).decode(), "header": case.header} for case in asked],
    }
    done = subprocess.run(
        ["node", str(RUNNER)], input=json.dumps(received), capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(done.stdout) == [case.expected for case in asked]
    assert published.fetches == 1


def test_the_view_that_is_shown_refuses_strangers_and_finishes_the_work(published: Published) -> None:
    scope = receiver(published)
    requests = RequestFactory(enforce_csrf_checks=True)

    def post(header: str) -> Any:
        headers = {"Webhook-Signature": header}
        return scope["hook"](requests.post("/hooks", BODY, content_type="application/json", headers=headers))

    assert post("").status_code == 401
    assert "processed" not in scope
    response = post(signing_keys.sign(BODY, clock.now(), KEY))
    assert (response.status_code, json.loads(response.content)) == (200, {"done": True})
    assert scope["processed"] == [("a", "1", "2")]


def test_the_settings_that_are_shown_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBHOOK_KEY_SECRET", raising=False)
    shown = [block for block in blocks(PAGE, "python") if "DURABLE_STREAMS" in block.text]
    assert len(shown) == 2
    for block in shown:
        scope: dict[str, Any] = {}
        exec(block.text, scope)
        with override_streams(**scope["DURABLE_STREAMS"]):
            assert config()
    with override_streams(WEBHOOK_ALLOWED_HOSTS=["hooks.internal", ".workers.internal", "10.20.0.0/16"]):
        for url in ("http://hooks.internal/", "http://a.workers.internal:81/", "http://10.20.3.4/"):
            addresses.check_url(url)


def test_the_numbers_are_those_of_the_code() -> None:
    text = " ".join(PAGE.read_text().split())
    assert f"a response above {http_client.MAX_RESPONSE_BYTES // 1024} KiB" in text
    assert f"`WEBHOOK_TIMEOUT` ({Config().webhook_timeout:.0f} s)" in text
    assert f"signs in {signing_keys.HEAD_START_SECONDS // 60} minutes" in text
    assert f"published for {signing_keys.PUBLISHED_SECONDS // 60} minutes more" in text
    assert signing_keys.CACHE_SECONDS == signing_keys.REPLAY_SECONDS == 300
    assert f"The port is 443, or {addresses.FIRST_UNPRIVILEGED_PORT} and above" in text


def test_every_reply_is_explained() -> None:
    assert all(len(row) == 3 and row[2].endswith(".") for row in table(section(PAGE, "Replies")))
