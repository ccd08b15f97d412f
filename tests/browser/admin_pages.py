"""What tests of the admin in a browser share: the people there, streams to look at, and how to find them."""

import sys
import urllib.request
from collections.abc import Callable

from playwright.sync_api import Page, Route

from tests import preloaded
from tests.browser.visitor import Visitor
from tests.servers import EXAMPLE, Server

Visit = Callable[..., Visitor]

PAGES = "/admin/durable_streams/"
LIST = PAGES + "stream/"
PASSWORD = "as good as any"

USERS = f"""
from django.contrib.auth.models import Permission, User
User.objects.create_superuser("ada", password={PASSWORD!r})
User.objects.create_user("nobody", password={PASSWORD!r}, is_staff=True)
viewer = User.objects.create_user("viewer", password={PASSWORD!r}, is_staff=True)
viewer.user_permissions.add(Permission.objects.get(codename="view_stream"))
"""


def prepare(server: Server, script: str) -> None:
    """Run a script in the server's project."""
    command = [sys.executable, str(EXAMPLE / "manage.py"), "shell", "--verbosity", "0", "-c", script]
    done = preloaded.run(command, cwd=EXAMPLE, env=server.env, timeout=60)
    assert done.returncode == 0, done.stderr


def strictly(route: Route) -> None:
    """Lets a page have only what comes from its own server, and nothing inline: Chromium complains of the rest."""
    if route.request.resource_type != "document" or route.request.method != "GET":
        route.continue_()
        return
    answer = route.fetch(max_redirects=0)
    route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": "default-src 'self'"})


def create(server: Server, path: str, content_type: str, *messages: str, **headers: str) -> Callable[..., None]:
    """Creates a stream over HTTP, and returns what sends requests to it."""

    def send(method: str, body: str = "", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{server.base_url}/v1/stream/{path}"
        request = urllib.request.Request(url, body.encode(), {"Content-Type": content_type, **named}, method=method)
        urllib.request.urlopen(request, timeout=10).close()

    send("PUT", **headers)
    for message in messages:
        send("POST", message)
    return send


def open_stream(page: Page, path: str) -> None:
    page.goto(f"{LIST}?q={path}")
    page.locator("#result_list .field-path").get_by_role("link", name=path, exact=True).click()
