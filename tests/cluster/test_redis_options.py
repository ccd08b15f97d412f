"""Options that a project's Redis URL or cache has for its own connections do not break ours."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_durable_streams.engine.wakeup.redis import RedisWakeup
from tests.cluster.test_wakeups import cache, hears
from tests.servers import HOST
from tests.services import Redis

pytestmark = pytest.mark.django_db(transaction=True)

OPTIONS = [
    "decode_responses=true",
    "decode_responses=True&encoding=latin-1&encoding_errors=ignore",
    "protocol=2",
    "protocol=3",
    "protocol=3&decode_responses=true",
    "client_name=web",
    "db=3",
    "socket_timeout=0.0001",
    "socket_connect_timeout=30&socket_timeout=30&retry_on_timeout=true",
    "health_check_interval=1",
    "max_connections=1",
    "socket_keepalive=true",
]


@pytest.mark.parametrize("options", OPTIONS)
async def test_in_a_url(redis: Redis, options: str) -> None:
    url = f"redis://{HOST}:{redis.port}/0?{options}"
    assert await hears(RedisWakeup("default", url=url), RedisWakeup("default", url=url))


@pytest.mark.parametrize(
    "options",
    [
        {"decode_responses": True},
        {"protocol": 3},
        {"socket_timeout": 0.0001},
        {"client_name": "web", "health_check_interval": 1, "max_connections": 1},
    ],
    ids=str,
)
async def test_of_a_cache(redis: Redis, settings: Any, options: dict[str, Any]) -> None:
    named = cache(settings, f"redis://{HOST}:{redis.port}/1", CONNECTION_POOL_KWARGS=options)
    assert await hears(RedisWakeup("default", **named), RedisWakeup("default", **named))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://localhost/0?decode=true&wat=1", "decode, wat"),
        ("reddis://localhost/0", "redis://"),
        ("localhost:6379", "redis://"),
        ("", "redis://"),
        ("redis://localhost/0?protocol=new", "protocol"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_the_start(url: str, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        RedisWakeup("default", url=url)
