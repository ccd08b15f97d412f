"""Permissions over real servers: users of the project's database, whom another process makes, grants and revokes."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests import preloaded
from tests.entry_points.exchange import Exchange
from tests.entry_points.probed import Configuration, ProbedServer
from tests.servers import EXAMPLE

SETTINGS = "tests.entry_points.access_settings"
TEXT = {"Content-Type": "text/plain"}

# Makes a user who may do everything, and prints what their browser would send.
ENTER = """
import json
from django.contrib.auth.models import Permission, User
from django.test import Client
user = User.objects.create_user("{name}")
user.user_permissions.set(Permission.objects.filter(content_type__app_label="durable_streams"))
client = Client(); client.force_login(user)
print(json.dumps({{"Cookie": "sessionid=" + client.cookies["sessionid"].value + "; csrftoken=" + "x" * 32,
    "X-CSRFToken": "x" * 32}}))
"""
REVOKE = """
from django.contrib.auth.models import User
User.objects.get(username="{name}").user_permissions.clear()
"""
# Prints two URLs: one that is good for longer than any test, and one that is not.
SIGN = """
import json
from django_durable_streams.permissions import signed_url
print(json.dumps([signed_url("{path}", "read", "append", expires=seconds) for seconds in (600, {seconds})]))
"""
LATE = 5.0
"""What a loaded machine may add, in seconds."""


@dataclass
class Site:
    """A server, and another process beside it."""

    server: ProbedServer

    def run(self, script: str, **values: object) -> str:
        """What a script prints that runs in the project."""
        command = [sys.executable, str(EXAMPLE / "manage.py"), "shell", "-v", "0", "-c", script.format(**values)]
        done = preloaded.run(command, cwd=EXAMPLE, env=self.server.env, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    def enter(self, name: str) -> dict[str, str]:
        credentials: dict[str, str] = json.loads(self.run(ENTER, name=name))
        return credentials


@pytest.fixture(scope="module", params=[Configuration("uvicorn", "asgi"), Configuration("uvicorn", "urls")], ids=str)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    env = {"DJANGO_SETTINGS_MODULE": SETTINGS}
    with ProbedServer(
        request.param.kind, entry_point=request.param.entry_point, env=env, long_poll_timeout=30
    ) as server:
        yield Site(server)


def test_a_session_may_what_its_user_may(site: Site) -> None:
    url = site.server.url("for-users")
    ann = site.enter("ann")
    assert httpx.put(url, headers=TEXT).status_code == 403
    assert httpx.put(url, headers={**TEXT, "Cookie": ann["Cookie"]}).status_code == 403  # from another site
    assert httpx.put(url, headers={**TEXT, **ann}).status_code == 201
    assert httpx.post(url, headers={**TEXT, **ann}, content=b"abc").status_code == 204
    assert httpx.get(url, headers={"Cookie": ann["Cookie"]}).content == b"abc"
    assert httpx.get(url).status_code == 403
    site.run(REVOKE, name="ann")
    time.sleep(0.6)  # as long as it is remembered
    assert httpx.get(url, headers=ann).status_code == 403


@pytest.mark.parametrize("mode", ["sse", "long-poll"])
def test_what_another_process_revokes_ends_a_live_read(site: Site, mode: str) -> None:
    name = f"reader-{mode}"
    headers = site.enter(name)
    assert httpx.put(site.server.url(name), headers={**TEXT, **headers}).status_code == 201
    began = time.monotonic()
    target = f"/v1/stream/{name}?offset=now&live={mode}"
    with Exchange(site.server.port, "GET", target, headers) as reader:
        if mode == "sse":
            events = reader.events()
            assert next(events).kind == "control"
        site.run(REVOKE, name=name)
        if mode == "sse":
            (last,) = events
            assert last.kind == "control"
        else:
            assert reader.response.status == 403
    assert time.monotonic() - began < 20
    assert httpx.get(f"{site.server.base_url}{target}", headers=headers).status_code == 403


def test_a_signed_url_is_good_for_what_it_says_and_as_long_as_it_says(site: Site) -> None:
    headers = site.enter("signer")
    assert httpx.put(site.server.url("signed"), headers={**TEXT, **headers}).status_code == 201
    lasting, ending = json.loads(site.run(SIGN, path="signed", seconds=6))
    until = int(ending.split(".")[1])
    url = f"{site.server.base_url}{lasting}"
    with Exchange(site.server.port, "GET", f"{ending}&offset=-1&live=sse", {}) as reader:
        events = reader.events()
        assert next(events).kind == "control"
        assert httpx.post(url, headers=TEXT, content=b"abc").status_code == 204
        assert httpx.get(url).content == b"abc"
        assert httpx.delete(url).status_code == 403
        assert next(events).kind == "data"
        assert {event.kind for event in events} == {"control"}
    assert until - 0.1 < time.time() < until + 1 + LATE
    assert httpx.get(f"{site.server.base_url}{ending}").status_code == 403
    assert httpx.get(url).status_code == 200
