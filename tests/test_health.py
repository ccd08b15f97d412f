"""What load balancers and orchestrators are told. With the database away: tests/cluster/test_database_away.py."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, JsonResponse

from django_durable_streams import health
from django_durable_streams.engine import announcements
from django_durable_streams.engine.wakeup import WakeupProblem
from django_durable_streams.engine.wakeup.base import InProcessWakeup
from django_durable_streams.models import Stream

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh_wakeups() -> Iterator[None]:
    announcements._lone_wakeups.stop()
    yield
    announcements._lone_wakeups.stop()


def ready() -> tuple[int, dict[str, Any]]:
    response = health.readyz(HttpRequest())
    assert isinstance(response, JsonResponse)
    assert "no-cache" in response["Cache-Control"]
    return response.status_code, json.loads(response.content)


def test_a_process_that_answers_is_alive() -> None:
    assert health.healthz(HttpRequest()).status_code == 200


def test_a_process_that_can_serve_is_ready() -> None:
    assert ready() == (200, {"status": "ok", "database": True, "migrations": True, "wakeup": True})


def test_one_whose_migrations_are_not_applied_is_not_ready() -> None:
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied(Stream._meta.app_label, "0001_initial")
    try:
        status, result = ready()
        assert "manage.py migrate" in result.pop("problem")
        assert (status, result) == (
            503,
            {"status": "not ready", "database": True, "migrations": False, "wakeup": True},
        )
    finally:
        recorder.record_applied(Stream._meta.app_label, "0001_initial")


def test_one_whose_redis_does_not_answer_is_not_ready(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and says nothing
        settings.DURABLE_STREAMS = {
            "WAKEUP": {
                "BACKEND": "django_durable_streams.engine.wakeup.redis.RedisWakeup",
                "URL": f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
            }
        }
        began = time.monotonic()
        assert ready() == (503, {"status": "not ready", "database": True, "migrations": True, "wakeup": False})
        assert time.monotonic() - began < health.CHECK_SECONDS + 1


def test_one_whom_redis_refuses_is_not_ready_and_says_what_to_allow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    problem = WakeupProblem("Redis refuses wake-up messages (NOPERM).", "Allow the channels.")
    monkeypatch.setattr(InProcessWakeup, "find_problem", lambda self: problem)
    status, result = ready()
    assert status == 503
    assert result["wakeup"] is False
    assert result["problem"] == "Allow the channels."
    assert "Not ready: Redis refuses wake-up messages (NOPERM). Allow the channels." in caplog.text
