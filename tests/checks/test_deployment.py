from typing import Any

import pytest
from django.test import override_settings

from django_durable_streams.checks.deployment import check_deployment, check_keep_alive
from django_durable_streams.checks.urls import check_urls
from tests.overriding import override_streams

REDIS = {"BACKEND": "django_durable_streams.engine.wakeup.redis.RedisWakeup", "URL": "redis://127.0.0.1:6379/0"}
RATES = {"append": "100/s"}
LOCAL = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
DUMMY = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
FILES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": "/nowhere"}}


def ids(**keys: Any) -> list[str | None]:
    with override_streams(**keys):
        return [message.id for message in check_deployment(None)]


@pytest.mark.parametrize("variable", ["WEB_CONCURRENCY", "GRANIAN_WORKERS"])
def test_several_workers_should_wake_each_other(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    assert ids() == []
    for value, expected in (("1", []), ("4", ["durable_streams.W009"]), ("many", [])):
        monkeypatch.setenv(variable, value)
        assert ids() == expected
    monkeypatch.setenv(variable, "4")
    assert ids(WAKEUP=REDIS) == []


def test_rates_are_counted_in_a_cache_that_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    for caches, one, several in ((LOCAL, 0, 1), (DUMMY, 1, 1), (FILES, 0, 0)):
        with override_settings(CACHES=caches):
            monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
            assert ids(WAKEUP=REDIS, RATE_LIMITS=RATES) == ["durable_streams.W010"] * one
            monkeypatch.setenv("WEB_CONCURRENCY", "2")
            assert ids(WAKEUP=REDIS, RATE_LIMITS=RATES) == ["durable_streams.W010"] * several
            assert ids(WAKEUP=REDIS) == []


@pytest.mark.parametrize(("seconds", "expected"), [(1, []), (30, []), (30.5, ["W032"]), (3600, ["W032"])])
def test_pages_must_hear_of_a_quiet_server_in_time(seconds: float, expected: list[str]) -> None:
    assert check_keep_alive(None) == []
    with override_streams(SSE_KEEP_ALIVE=seconds):
        assert [message.id for message in check_keep_alive(None)] == [f"durable_streams.{name}" for name in expected]


@pytest.mark.parametrize(
    ("middleware", "check_id"),
    [
        ("django.middleware.gzip.GZipMiddleware", "durable_streams.I001"),
        ("django.middleware.http.ConditionalGetMiddleware", "durable_streams.I002"),
    ],
)
def test_what_some_middleware_does_in_front_of_the_urls(middleware: str, check_id: str) -> None:
    assert check_urls(None) == []
    with override_settings(MIDDLEWARE=[middleware]):
        assert [(message.id, message.is_serious()) for message in check_urls(None)] == [(check_id, False)]
        with override_settings(ROOT_URLCONF="tests.checks.no_streams"):
            assert check_urls(None) == []
