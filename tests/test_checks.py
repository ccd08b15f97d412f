import pytest
from django.core.checks import run_checks
from django.test import override_settings

from django_durable_streams.checks import check_settings
from django_durable_streams.conf import names


@pytest.mark.django_db
def test_the_project_of_these_tests_has_no_complaints() -> None:
    assert [message for message in run_checks() if message.id and message.id.startswith("durable_streams.")] == []


def test_every_known_key_is_fine() -> None:
    with override_settings(DURABLE_STREAMS=dict.fromkeys(names())):
        assert [message for message in check_settings(None) if message.id == "durable_streams.E002"] == []


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [("PAGE_BYTE", "PAGE_BYTES"), ("page_bytes", "PAGE_BYTES"), ("LONGPOLL_TIMEOUT", "LONG_POLL_TIMEOUT")],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(key: str, suggestion: str) -> None:
    with override_settings(DURABLE_STREAMS={key: 1}):
        (message,) = check_settings(None)
    assert message.id == "durable_streams.E002"
    assert message.is_serious()
    assert key in message.msg
    assert message.hint == f"Did you mean {suggestion}?"


def test_a_key_like_no_other_gets_the_list_of_all() -> None:
    with override_settings(DURABLE_STREAMS={"ZZZ": 1}):
        (message,) = check_settings(None)
    assert all(name in (message.hint or "") for name in names())


@pytest.mark.parametrize("value", [None, [], "PAGE_BYTES", 5])
def test_a_setting_that_is_no_dict_is_an_error(value: object) -> None:
    with override_settings(DURABLE_STREAMS=value):
        (message,) = check_settings(None)
    assert message.id == "durable_streams.E001"


@pytest.mark.django_db
def test_the_checks_run_with_all_others() -> None:
    with override_settings(DURABLE_STREAMS={"ZZZ": 1}):
        assert "durable_streams.E002" in {message.id for message in run_checks()}


@override_settings(DURABLE_STREAMS={"CORS_ORIGINS": "https://app.example.com"})
def test_origins_that_are_no_list_are_an_error():
    assert [message.id for message in check_settings(None)] == ["durable_streams.E003"]
