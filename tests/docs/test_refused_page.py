"""The causes that docs/howto/refused.md names refuse a reader, and others do not."""

import logging
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client, override_settings

from django_durable_streams.conf import SETTING
from django_durable_streams.models import Stream
from tests.docs.pages import ROOT, section, table

PAGE = ROOT / "docs" / "howto" / "refused.md"
OWNER = {
    "PERMISSION_CLASSES": {
        "CLASS": "django_durable_streams.permissions.Owner",
        "OWNER": {"users/{user.pk}/**": ["read"]},
    }
}
ROWS = table(section(PAGE, "Read the log"))


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


def row_of_sessions() -> str:
    (row,) = [row for row in ROWS if row[0].endswith("the session cookie leads to no user")]
    return row[1]


@pytest.mark.parametrize("cause", CAUSES)
def test_a_session_that_leads_to_no_user_is_refused(
    reader: Client, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert cause in row_of_sessions()
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
    assert f"`{name}`" in row_of_sessions()
    assert status(reader) == 200
    with override_settings(**{name: value}):
        other_process = Client()  # has middleware of its own
        other_process.cookies = reader.cookies
        assert status(other_process) == 403


def test_only_what_runs_the_stream_as_code_is_refused(reader: Client) -> None:
    (row,) = [row for row in ROWS if "run a stream as code" in row[1]]
    assert "`<script>`, a stylesheet or a worker" in row[0]
    assert "The address bar, a frame and an image may show it." in row[1]
    for destination, expected in [
        *dict.fromkeys(("script", "style", "worker", "serviceworker"), 403).items(),
        *dict.fromkeys(("document", "iframe", "image", "empty"), 200).items(),
    ]:
        assert status(reader, sec_fetch_dest=destination) == expected, destination
