"""A Redis Sentinel for tests."""

import shutil
from collections.abc import Sequence

from tests.servers import HOST
from tests.service import Service
from tests.services import CONNECT_SECONDS, Redis


class Sentinel(Service):
    """A Redis Sentinel that makes a replica the master when the master has not answered for half a second."""

    requirement = "redis-server"
    service_name = "streams"

    def __init__(self, master: Redis, password: str) -> None:
        super().__init__()
        self._master = master
        self._password = password

    @property
    def url(self) -> str:
        return f"redis://{self.service_name}/0"

    def _set_up(self) -> None:
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"sentinel monitor {self.service_name} {HOST} {self._master.port} 1",
            f"sentinel auth-pass {self.service_name} {self._password}",
            f"sentinel down-after-milliseconds {self.service_name} 500",
            f"sentinel failover-timeout {self.service_name} 2000",
        ]
        path = self.directory / "sentinel.conf"
        path.write_text("\n".join([*lines, ""]))
        if self.user is not None:  # it writes what it learns into this file
            shutil.chown(path, self.user)

    def _command(self) -> Sequence[str]:
        return [str(self.program), str(self.directory / "sentinel.conf"), "--sentinel"]

    def _ping(self) -> None:
        import redis

        with redis.Redis(host=HOST, port=self.port, socket_timeout=CONNECT_SECONDS) as client:
            client.ping()

    def replicas(self) -> int:
        """How many replicas of the master it knows that it could make the master."""
        import redis

        with redis.Redis(host=HOST, port=self.port, decode_responses=True) as client:
            return sum(
                "disconnected" not in str(replica["flags"]) for replica in client.sentinel_slaves(self.service_name)
            )
