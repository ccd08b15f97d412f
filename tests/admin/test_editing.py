"""What people change in the admin: by the store's rules, with its errors in the form, and noted in the history."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, override_settings
from django.utils import timezone

from django_durable_streams.models import Stream
from tests.admin.pages import client_of, staff, url
from tests.tokens import token

pytestmark = pytest.mark.django_db


@pytest.fixture
def chat() -> Stream:
    return Stream.objects.create(path="chat", content_type="application/json", data={"n": 1})


@pytest.fixture
def log() -> Stream:
    return Stream.objects.create(path="log", content_type="text/plain", data="one\n")


def append(client: Client, stream: Stream, **fields: Any) -> Any:
    return client.post(url("append", stream), fields, follow=True)


def create(client: Client, **fields: Any) -> Any:
    return client.post(url("add"), {"content_type": "text/plain", **fields}, follow=True)


def errors(response: Any, form: str = "form") -> dict[str, list[str]]:
    context_form = response.context[form]
    return dict(getattr(context_form, "form", context_form).errors)


def history() -> list[tuple[int, str, str]]:
    entries = LogEntry.objects.order_by("pk").values_list("action_flag", "object_repr", "change_message")
    return [(flag, name, message) for flag, name, message in entries]


def test_a_message_is_appended_and_noted(admin_client: Client, log: Stream) -> None:
    response = append(admin_client, log, text="two\r\nlines")
    assert "Appended." in response.content.decode()
    assert "".join(log.read()) == "one\ntwo\nlines"  # as typed: browsers send CRLF
    assert history() == [(CHANGE, "log", "Appended 9\xa0bytes.")]


def test_json_is_appended_as_it_was_written(admin_client: Client, chat: Stream) -> None:
    append(admin_client, chat, text='[{"big": 12345678901234567890}, 1.10]')
    page = admin_client.get(url("change", chat)).content.decode()
    assert "12345678901234567890" in page
    assert "1.10" in page
    assert len(list(chat.read())) == 3


def test_what_is_wrong_is_said_at_the_field_and_nothing_is_lost(admin_client: Client, chat: Stream) -> None:
    response = append(admin_client, chat, text='{"unfinished": ')
    (message,) = errors(response, "append_form")["text"]
    assert "not valid JSON" in message
    assert "{&quot;unfinished&quot;: " in response.content.decode()
    assert len(list(chat.read())) == 1
    assert history() == []


@pytest.mark.parametrize("fields", [{}, {"text": ""}, {"file": SimpleUploadedFile("x", b"")}, {"close": "on"}])
def test_nothing_is_no_message(admin_client: Client, log: Stream, fields: dict[str, Any]) -> None:
    response = append(admin_client, log, **fields)
    assert "There is nothing to append" in errors(response, "append_form")["text"][0]
    assert not Stream.objects.get(pk=log.pk).closed


def test_an_empty_array_is_no_message(admin_client: Client, chat: Stream) -> None:
    assert errors(append(admin_client, chat, text="[]"), "append_form")["text"]


def test_a_file_is_appended_byte_by_byte(admin_client: Client) -> None:
    stream = Stream.objects.create(path="binary", content_type="image/png")
    data = bytes(range(256)) + b"\r\n"
    append(admin_client, stream, file=SimpleUploadedFile("x.png", data))
    assert list(stream.read()) == [data]
    assert history() == [(CHANGE, "binary", "Appended 258\xa0bytes.")]


def test_text_and_file_together_are_refused(admin_client: Client, log: Stream) -> None:
    response = append(admin_client, log, text="x", file=SimpleUploadedFile("x", b"y"))
    assert errors(response, "append_form")["file"]


@override_settings(DURABLE_STREAMS={"MAX_APPEND_BYTES": 1000})
def test_more_than_the_largest_append_is_refused(admin_client: Client, log: Stream) -> None:
    response = append(admin_client, log, file=SimpleUploadedFile("x", b"y" * 1001))
    assert "At most 1000" in errors(response, "append_form")["file"][0]
    assert "At most" in errors(append(admin_client, log, text="é" * 501), "append_form")["text"][0]
    append(admin_client, log, file=SimpleUploadedFile("x", b"y" * 1000))
    assert Stream.objects.get(pk=log.pk).tail_position == 1004


def test_an_append_closes_in_the_same_step(admin_client: Client, log: Stream) -> None:
    response = append(admin_client, log, text="end", close="on")
    assert "Appended and closed." in response.content.decode()
    log.refresh_from_db()
    assert log.closed
    assert "".join(log.read()) == "one\nend"


def test_a_stream_that_was_closed_meanwhile_says_so(admin_client: Client, log: Stream) -> None:
    log.close()
    response = append(admin_client, log, text="too late")
    assert "The stream has ended" in response.content.decode()
    assert history() == []


def test_closing_asks_first(admin_client: Client, log: Stream) -> None:
    assert "Close this stream?" in admin_client.get(url("close", log)).content.decode()
    log.refresh_from_db()
    assert not log.closed
    response = admin_client.post(url("close", log), follow=True)
    assert "The stream log was closed." in response.content.decode()
    log.refresh_from_db()
    assert log.closed
    assert history() == [(CHANGE, "log", "Closed.")]


def test_a_stream_is_created_with_a_first_message(admin_client: Client) -> None:
    response = create(admin_client, path="new/one", content_type="application/json", ttl="60", text='{"a": 1}')
    assert "was added successfully" in response.content.decode()
    stream = Stream.objects.get(path="new/one")
    assert (stream.ttl, list(stream.read())) == (60, [{"a": 1}])
    assert history() == [(ADDITION, "new/one", "Created, with 9\xa0bytes.")]


def test_a_stream_is_created_empty_with_an_expiry(admin_client: Client) -> None:
    moment = timezone.localtime(timezone.now() + timedelta(days=2)).replace(microsecond=0)
    create(admin_client, path="new", expires_at_0=moment.date(), expires_at_1=moment.time())
    stream = Stream.objects.get(path="new")
    assert (stream.expires_at, stream.tail_position) == (moment, 0)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"path": "a//b"}, "path", "empty segments"),
        ({"path": "/a"}, "path", "no slash at its ends"),
        ({"path": "__ds/a"}, "path", "reserved"),
        ({"path": "a\\b"}, "path", "no backslash"),
        ({"path": ""}, "path", "required"),
        ({"path": "x" * 513}, "path", "at most 512"),
        ({"path": "log"}, "path", "already"),
        ({"path": "a", "content_type": "text"}, "content_type", "media type"),
        ({"path": "a", "content_type": ""}, "content_type", "required"),
        ({"path": "a", "ttl": "-1"}, "ttl", "whole number"),
        ({"path": "a", "ttl": "0"}, "ttl", "from 1"),
        ({"path": "a", "ttl": "9" * 30}, "ttl", "from 1"),
        ({"path": "a", "expires_at_0": "2001-01-01", "expires_at_1": "00:00"}, "expires_at", "in the past"),
        ({"path": "a", "expires_at_0": "2999-13-01", "expires_at_1": "00:00"}, "expires_at", "valid date"),
        ({"path": "a", "ttl": "60", "expires_at_0": "2999-01-01", "expires_at_1": "0:0"}, "expires_at", "not both"),
        ({"path": "a", "content_type": "application/json", "text": "{"}, "text", "not valid JSON"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_new_stream(
    admin_client: Client, log: Stream, fields: dict[str, str], field: str, words: str
) -> None:
    response = create(admin_client, **fields)
    assert response.status_code == 200
    assert words in errors(response)[field][0]
    assert Stream.objects.count() == 1
    assert history() == []


def test_the_path_of_a_deleted_stream_with_forks_is_taken(admin_client: Client, log: Stream) -> None:
    log.fork("fork")
    log.delete()
    assert "as long as it has forks" in errors(create(admin_client, path="log"))["path"][0]


def test_a_fork_is_made_at_an_offset(admin_client: Client, log: Stream) -> None:
    log.append("two\n")
    offset = log.offset_at(4)
    asked = admin_client.get(url("fork", log), {"offset": offset}).content.decode()
    assert f'value="{offset}"' in asked
    assert 'value="log-fork"' in asked
    response = admin_client.post(url("fork", log), {"path": "fork", "offset": offset}, follow=True)
    fork = Stream.objects.get(path="fork")
    assert response.redirect_chain == [(url("change", fork), 302)]
    assert list(fork.read()) == ["one\n"]
    assert history() == [
        (ADDITION, "fork", f"Forked from stream {log.pk} at {offset}."),
        (CHANGE, "log", f"Forked at {offset} as stream {fork.pk}."),
    ]


def test_a_fork_without_an_offset_has_everything_and_its_own_life(admin_client: Client, log: Stream) -> None:
    admin_client.post(url("fork", log), {"path": "fork", "ttl": "60"})
    fork = Stream.objects.get(path="fork")
    assert (fork.ttl, list(fork.read())) == (60, ["one\n"])


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"path": "fork", "offset": "x"}, "offset", "Copy an offset"),
        ({"path": "fork", "offset": token(999)}, "offset", "past the end"),
        ({"path": "fork", "offset": token(3)}, "offset", "inside a message"),
        ({"path": "chat"}, "path", "another"),
        ({"path": "a//b"}, "path", "empty segments"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_fork(
    counted_generations: None, admin_client: Client, chat: Stream, fields: dict[str, str], field: str, words: str
) -> None:
    response = admin_client.post(url("fork", chat), fields)
    assert words in errors(response)[field][0]
    assert Stream.objects.count() == 1


def test_a_closed_stream_can_be_forked_and_a_deleted_one_not(admin_client: Client, log: Stream) -> None:
    log.close()
    admin_client.post(url("fork", log), {"path": "fork"})
    log.delete()
    response = admin_client.post(url("fork", log), {"path": "another"})
    assert "cannot be forked any more" in errors(response)["__all__"][0]


def test_deleting_says_what_becomes_of_forks(admin_client: Client, log: Stream) -> None:
    fork = log.fork("fork")
    asked = admin_client.get(url("delete", log)).content.decode()
    assert "It has a fork. Its data is kept" in asked
    admin_client.post(url("delete", log), {"post": "yes"})
    log.refresh_from_db()
    assert log.deleted_at is not None
    assert list(fork.read()) == ["one\n"]
    assert history() == [(DELETION, "log", "")]


def test_deleting_what_was_deleted_is_no_error_of_the_server(admin_client: Client, log: Stream) -> None:
    log.fork("fork")
    log.delete()
    response = admin_client.post(url("delete", log), {"post": "yes"}, follow=True)
    assert "forks still read its data" in response.content.decode()
    assert history() == []


def test_a_new_stream_goes_back_to_the_popup_that_asked(admin_client: Client) -> None:
    response = admin_client.post(url("add"), {"path": "new", "content_type": "text/plain", "_popup": "1"})
    assert "popup_response" in response.content.decode()


LINKS = ["expires_at=2026-01-01", "expires_at_0=x", "file=x", "ttl=x", "path=%00", "text=%ED%A0%80", "nothing=x"]


@pytest.mark.parametrize("query", LINKS)
def test_a_link_to_a_form_may_give_whatever_it_likes(admin_client: Client, log: Stream, query: str) -> None:
    for form in (url("add"), url("fork", log)):
        assert admin_client.get(f"{form}?{query}").status_code == 200
        assert 'value="from/a/link"' in admin_client.get(f"{form}?{query}&path=from/a/link").content.decode()


@pytest.mark.parametrize("name", ["append", "close", "fork", "delete", "add"])
def test_nothing_is_changed_without_the_csrf_token(name: str, log: Stream) -> None:
    client = client_of(staff("view", "add", "change", "delete"), enforce_csrf_checks=True)
    target = url(name) if name == "add" else url(name, log)
    assert client.post(target, {"path": "new", "text": "x", "post": "yes"}).status_code == 403
    assert (Stream.objects.count(), Stream.objects.get().tail_position) == (1, 4)


def test_readers_are_told_of_what_the_admin_appends(
    admin_client: Client, log: Stream, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks() as told:
        append(admin_client, log, text="two")
    assert told
