"""The numbers in the configurations of docs/deployment/ fit those of the code."""

import re
from pathlib import Path

import pytest
from uvicorn import Config as UvicornConfig

from django_durable_streams.conf import Config
from tests.docs.pages import ROOT, blocks

PAGES = ROOT / "docs" / "deployment"
TUTORIAL = ROOT / "docs" / "tutorial" / "deploy.md"
MIB = 1 << 20
WAITS = Config().long_poll_timeout + Config().sse_keep_alive
PROXIES = [PAGES / f"{name}.md" for name in ("nginx", "haproxy", "traefik", "wsgi-site", "cdn")]


@pytest.mark.parametrize("page", PROXIES, ids=lambda page: page.stem)
def test_proxies_wait_for_longer_than_a_long_poll(page: Path) -> None:
    waits = re.findall(
        r"(?:proxy_read_timeout|timeout server|timeout client|responseHeaderTimeout:) (\d+)s", page.read_text()
    )
    assert waits
    assert all(int(seconds) > WAITS for seconds in waits)


def test_proxies_pass_appends_on_that_are_as_large_as_may_be() -> None:
    assert Config().max_append_bytes == 16 * MIB
    text = "".join(page.read_text() for page in PAGES.glob("*.md"))
    assert set(re.findall(r"client_max_body_size (\w+);", text)) == {"16m"}
    assert set(re.findall(r"max_size (\w+)\n", text)) == {"16MiB"}
    assert set(re.findall(r"body_size gt (\d+)", text)) == {str(16 * MIB)}


def test_proxies_close_idle_connections_before_uvicorn_does() -> None:
    seconds = UvicornConfig("").timeout_keep_alive
    (caddy,) = re.findall(r"keepalive (\d+)s", (PAGES / "caddy.md").read_text())
    (traefik,) = re.findall(r"idleConnTimeout: (\d+)s", (PAGES / "traefik.md").read_text())
    assert int(caddy) == int(traefik) < seconds == 5


@pytest.mark.parametrize(
    "page",
    [*(PAGES / f"{name}.md" for name in ("wsgi-site", "servers", "systemd")), TUTORIAL],
    ids=lambda page: page.stem,
)
def test_workers_of_uvicorn_have_time_to_start(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    commands = re.findall(r"^.*uvicorn mysite\.asgi:application .*--workers \d.*$", text, re.MULTILINE)
    assert commands
    assert [re.findall(r"--timeout-worker-healthcheck (\d+)", command) for command in commands] == [["30"]]


def test_no_command_of_uvicorn_for_production_keeps_tokens_in_an_access_log() -> None:
    commands = [
        block.text
        for page in (*sorted(PAGES.glob("*.md")), TUTORIAL)
        for block in blocks(page, "sh", "ini", "yaml", "dockerfile")
        if re.search(r"uvicorn\W+mysite\.asgi:application", block.text)
    ]
    assert len(commands) >= 6
    assert [text for text in commands if "--no-access-log" not in text] == []


def test_the_site_under_wsgi_serves_its_static_files_as_the_tutorial_does() -> None:
    pages = [page.read_text() for page in (PAGES / "wsgi-site.md", TUTORIAL)]
    for part in (
        r"    location /static/ \{\n.+\n    \}\n",
        r"\n.*collectstatic.*\n",
        r"\n    # From nginx 1\.25\.1.*\n",
    ):
        wsgi, tutorial = (re.findall(part, text) for text in pages)
        assert wsgi == tutorial != []


def test_readers_at_one_offset_wait_for_one_request_in_the_cache() -> None:
    waits = re.findall(r"proxy_cache_lock_\w+ (\d+)s", (PAGES / "cdn.md").read_text())
    assert len(waits) == 2
    assert all(int(seconds) > Config().long_poll_timeout for seconds in waits)
