"""A small blocking HTTP client: prepares the streams of a measurement and checks single answers.

It is never on the clock; what is measured is driven by wrk or by the raw sockets of `delivery` and `replay`.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from benchmarks.outcome import MeasurementError

TIMEOUT = 60.0
# Servers close idle connections after some seconds, and a request may cross that on the way.
IDLE_SECONDS = 1.0
NEXT_OFFSET = "stream-next-offset"
UP_TO_DATE = "stream-up-to-date"


@dataclass(frozen=True)
class Address:
    """Where the streams of a server are: host, port and the path that stream names are appended to.

    `headers` go with every request, such as those that a proxy adds.
    """

    host: str
    port: int
    prefix: str
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> Address:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r}: expected http://host:port/path")
        return cls(parts.hostname, parts.port or 80, parts.path.rstrip("/"))

    @property
    def netloc(self) -> str:
        return f"{self.host}:{self.port}"

    def path(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def url(self, name: str) -> str:
        return f"http://{self.netloc}{self.path(name)}"


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def header(self, name: str) -> str:
        try:
            return self.headers[name]
        except KeyError:
            raise MeasurementError(f"no {name} header in a {self.status} response") from None


class Client:
    """One keep-alive connection to one server."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._used = time.monotonic()
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def request(
        self,
        method: str,
        name: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        expect: Iterable[int] = (),
    ) -> Response:
        """Sends one request; a status outside `expect` (if given) raises MeasurementError."""
        target = self.address.path(name)
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._connection.close()
        try:
            self._connection.request(
                method, target, body=body, headers={**dict(self.address.headers), **(headers or {})}
            )
            raw = self._connection.getresponse()
            payload = raw.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise MeasurementError(f"{method}: {error!r}") from error
        self._used = time.monotonic()
        headers_received = {key.lower(): value for key, value in raw.getheaders()}
        expected = tuple(expect)
        if expected and raw.status not in expected:
            excerpt = payload[:120].decode("utf-8", "replace")
            raise MeasurementError(f"{method} gave {raw.status}, not {expected}: {excerpt!r}")
        return Response(raw.status, headers_received, payload)

    def create(self, name: str, content_type: str) -> Response:
        return self.request("PUT", name, headers={"Content-Type": content_type}, expect=(200, 201))

    def append(self, name: str, body: bytes, content_type: str) -> Response:
        return self.request("POST", name, body, {"Content-Type": content_type}, expect=(200, 204))

    def delete(self, name: str) -> None:
        self.request("DELETE", name)

    def tail(self, name: str) -> str:
        return self.request("HEAD", name, expect=(200,)).header(NEXT_OFFSET)

    def count_bytes(self, name: str) -> int:
        """Reads a stream from its start to its tail and counts."""
        total, offset = 0, "-1"
        while True:
            response = self.request("GET", f"{name}?offset={offset}", expect=(200,))
            total += len(response.body)
            offset = response.header(NEXT_OFFSET)
            if response.headers.get(UP_TO_DATE, "").lower() == "true":
                return total
            if not response.body:
                raise MeasurementError("an empty read that is not up to date")
