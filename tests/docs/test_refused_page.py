"""The causes that docs/howto/refused.md names refuse a reader, and others do not."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client, override_settings

from django_durable_streams.access import identities
from django_durable_streams.conf import SETTING
from django_durable_streams.models import Stream
from tests.docs.pages import ROOT, blocks, section

PAGE = ROOT / "docs" / "howto" / "refused.md"
OWNER = {
    "PERMISSION_CLASSES": {
        "CLASS": "django_durable_streams.permissions.Owner",
        "OWNER": {"users/{user.pk}/**": ["read"]},
    }
}
# An import of Django with these settings, and a line of the log.
LOG = """
import logging
from django.conf import settings
{settings}
settings.configure(LOGGING=LOGGING, DEBUG={debug})
import django
django.setup()
for name in ("django_durable_streams.access", "django.security.csrf", "django.request"):
    logging.getLogger(name).warning("Refused.")
"""
TUTORIAL = ROOT / "docs" / "tutorial" / "deploy.md"


@pytest.fixture
def reader(transactional_db: None) -> Client:
    """A client of a user with a login and a stream."""
    user = User.objects.create_user("ada", password="tea")
    Stream.objects.create(path=f"users/{user.pk}/news", content_type="application/json").append({"text": "hello"})
    client = Client()
    client.force_login(user)
    return client


def status(client: Client, **headers: str) -> int:
    with override_settings(**{SETTING: OWNER}):
        return client.get(f"/v1/stream/users/{User.objects.get().pk}/news", headers=headers).status_code


def change_password() -> None:
    user = User.objects.get()
    user.set_password("coffee")
    user.save()


CAUSES: dict[str, Callable[[], object]] = {
    "the session has expired": lambda: Session.objects.update(expire_date="2001-01-01T00:00:00Z"),
    "the password has changed": change_password,
    "the user is inactive": lambda: User.objects.update(is_active=False),
}


def of_sessions() -> str:
    return " ".join(section(PAGE, "The session cookie leads to no user").split())


@pytest.mark.parametrize("cause", CAUSES)
def test_a_session_that_leads_to_no_user_is_refused(
    reader: Client, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert cause in of_sessions()
    assert status(reader) == 200
    CAUSES[cause]()
    with caplog.at_level(logging.WARNING, "django_durable_streams.access"):
        assert status(reader) == 403
    assert "is refused to user anonymous" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "another one"),
        ("SESSION_COOKIE_NAME", "another_session"),
        ("SESSION_ENGINE", "django.contrib.sessions.backends.cache"),
    ],
)
def test_a_session_of_another_process_with_other_settings_is_refused(reader: Client, name: str, value: str) -> None:
    assert f"`{name}`" in of_sessions()
    assert status(reader) == 200
    with override_settings(**{name: value}):
        other_process = Client()  # has middleware of its own
        other_process.cookies = reader.cookies
        assert status(other_process) == 403


def test_only_what_runs_the_stream_as_code_is_refused(reader: Client) -> None:
    text = " ".join(section(PAGE, "A script, a stylesheet or a worker of a page").split())
    assert "`<script>`, a stylesheet or a worker are refused: the page wants to run a stream as code." in text
    assert "The address bar, a frame and an image may show it." in text
    for destination, expected in [
        *dict.fromkeys(("script", "style", "worker", "serviceworker"), 403).items(),
        *dict.fromkeys(("document", "iframe", "image", "empty"), 200).items(),
    ]:
        assert status(reader, sec_fetch_dest=destination) == expected, destination


def test_each_refusal_has_a_heading_of_its_own() -> None:
    titles = re.findall(r"^### (.+)$", PAGE.read_text(), re.MULTILINE)
    assert len(titles) == len(set(titles)) > 15
    assert "|" not in PAGE.read_text().partition("## Read the log")[2]
    statuses = re.findall(r"^## (\d+)", PAGE.read_text(), re.MULTILINE)
    assert set(statuses) == {"403", "401", "400", "404", "200"}


@pytest.mark.parametrize("reason", ["The request has no session cookie", "The session cookie leads to no user"])
def test_the_reasons_of_the_log_are_those_of_the_code(reason: str) -> None:
    assert section(PAGE, reason)
    said = [identities.session_failure(cookies) for cookies in (None, b"sessionid=0123456789")]
    assert any(re.sub(r" \(\w+\)", "", sentence).startswith(reason) for sentence in said)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("page", [PAGE, TUTORIAL], ids=lambda page: page.stem)
def test_each_line_of_the_log_comes_once_with_its_time_and_level(page: Path, debug: bool) -> None:
    (block,) = [block.text for block in blocks(page, "python") if "LOGGING" in block.text]
    block = block[block.index("LINES = ") : block.index("\n}\n", block.index("LOGGING = ")) + 3]
    script = LOG.format(settings=block, debug=debug)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", "TIME ", line) for line in lines] == [
        f"TIME WARNING {name}: Refused."
        for name in ("django_durable_streams.access", "django.security.csrf", "django.request")
    ]
