"""The end of a worker does not wait for its lease keeper where that hangs."""

from threading import Event, Thread
from typing import cast

import pytest
from django.db import connections

from django_durable_streams.subscriptions.consumers import lease_keeper
from django_durable_streams.subscriptions.consumers.cursors import Claim
from django_durable_streams.subscriptions.consumers.lease_keeper import LeaseKeeper

SECONDS = 10.0


def test_the_end_of_a_worker_does_not_wait_for_a_renewal_that_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease_keeper, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(lease_keeper, "prepare_connection", lambda using: None)
    monkeypatch.setattr(connections["default"], "vendor", "postgresql")  # on SQLite nothing is renewed
    is_asked, thaws = Event(), Event()

    def renew(held: Claim, using: str) -> None:
        is_asked.set()
        assert thaws.wait(SECONDS)

    keeper = LeaseKeeper("default", 0.04, renew)
    keeper.start()
    stopping = Thread(target=keeper.stop, daemon=True)
    try:
        with keeper.hold(cast("Claim", "a claim")):
            assert is_asked.wait(SECONDS)
        stopping.start()
        stopping.join(SECONDS)
        assert not stopping.is_alive()
    finally:
        thaws.set()
        assert keeper._thread is not None
        keeper._thread.join(SECONDS)
    assert [record.message for record in caplog.records] == [
        "The thread durable-streams-leases does not end. The end of the worker does not wait."
    ]
