"""Connections that are lost during a commit, as those to a server that is killed."""

from collections.abc import Sequence
from typing import Any

import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from django_durable_streams.store.sql import pipeline


def lose_commits(patch: pytest.MonkeyPatch) -> None:
    """Have the connection lost during each commit, until the patches are undone. Not on SQLite."""
    exchange = pipeline._exchange

    def lost(driver: Any, sent: Sequence[pipeline.Statement]) -> list[Any]:
        if sent[-1].sql == b"COMMIT":
            driver.close()
        return exchange(driver, sent)

    def refuse(wrapper: Any) -> None:
        raise OperationalError(2013, "Lost connection to server during query")

    patch.setattr(pipeline, "_exchange", lost)
    patch.setattr(BaseDatabaseWrapper, "_commit", refuse)
