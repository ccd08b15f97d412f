"""Permissions that return an awaitable from a synchronous method: a lost connection, and the thread of each call."""

import threading
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError

from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, AllowAll
from django_durable_streams.testing import StreamClient
from tests.overriding import override_streams

threads: list[str] = []


class Mixed(AllowAll):
    """It queries the database before it returns a coroutine, whose first query fails."""

    in_memory = False

    def can_read(self, user: Any, path: str, request: AccessRequest) -> Any:
        threads.append(threading.current_thread().name)
        return self._ask(get_user_model().objects.exists(), len(threads))

    async def _ask(self, has_users: bool, call: int) -> bool:
        if call == 1:
            raise OperationalError("the connection is closed")
        return not has_users


class Undecided(Mixed):
    """Its second call does not return a coroutine."""

    def can_read(self, user: Any, path: str, request: AccessRequest) -> Any:
        answer = super().can_read(user, path, request)
        if len(threads) == 1:
            return answer
        answer.close()
        return True


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("permission", ["Mixed", "Undecided"])
async def test_it_is_called_again_in_a_thread_for_permissions(permission: str) -> None:
    threads.clear()
    with override_streams(PERMISSION_CLASSES=f"{__name__}.{permission}"):
        await Stream.objects.acreate(path="a")
        assert (await StreamClient().read("a")).status == 200
    assert len(threads) == 2
    assert all(name.startswith("durable-streams-access-permission") for name in threads)
