"""The way from a client to the servers: a stream is read through the public URL while this process appends to it.

What lies between is judged by what arrives and when. An event that arrives only when its response has ended was
buffered on the way.
"""

from __future__ import annotations

import http.client
import json
import queue
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from threading import Thread
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from ...conf import config
from ...models import Stream
from .findings import Finding, error, ok, warning

EVENT_SECONDS = 7.0
"""How long an event may take. A server that gets messages, but not those of this process, polls every five seconds."""

TRIES = 3
"""Events that may be as slow as those of a poll before wake-ups count as lost. The way or a server may be slow once."""

WAITING_SECONDS = 0.5
"""For how long a long-poll waits before its data is appended, unless LONG_POLL_TIMEOUT is shorter."""

MAX_BODY = 4096
"""Bytes of a response that are read where the stream is expected."""

CONNECT_SECONDS = 10.0
END_SECONDS = 10.0
"""Time for a connection, and for the rest of a response after its stream was closed."""

CLOCK_SECONDS = 5.0
"""A header has whole seconds, and travels for some time."""

_CERTIFICATE = (
    "The certificate must be for the host of the URL, not expired, and signed by an authority that clients trust. For "
    "one that signs itself, name its file for this command: SSL_CERT_FILE=/path/of/certificate.pem."
)

_NOT_SERVED = (
    "Name the root of the streams. If it is right, the server does not run asgi.py: start it by uvicorn. Django's own "
    "runserver does not load asgi.py, unless its output has the line 'Starting ASGI/Daphne'."
)

_SEE_LOG = "The log of the server has more."

_HOW = {
    "nginx": "In nginx, set `proxy_buffering off` and remove `proxy_ignore_headers X-Accel-Buffering`.",
    "apache": "In Apache, set `flushpackets=on` in ProxyPass, and leave mod_deflate off for text/event-stream.",
    "cloudflare": "In Cloudflare, switch off response buffering and compression for this path.",
    "varnish": "In Varnish, set `beresp.do_stream = true`, or pipe this path.",
    "haproxy": "In HAProxy, remove `option http-buffer-response` and the compression of text/event-stream.",
}
_LOST_WAKE_UPS = warning(
    "SSE",
    "Events arrive only by polling: the wake-up messages of this process do not reach the server.",
    "Compare DURABLE_STREAMS['WAKEUP'] of this shell and of the servers: the Redis server, the number of its database, "
    "PREFIX, and the cache's KEY_PREFIX. Compare SECRET_KEY, too, and read the log of the server.",
)

_HOW_GENERALLY = "Switch off buffering and compression for this path in every proxy on the way."


class PublicURL(NamedTuple):
    """The root of the streams as clients see it, with the headers to send, and the name of the user whom they mean."""

    parts: SplitResult
    headers: Mapping[str, str]
    user: str = ""

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str], user: str = "") -> PublicURL:
        """Return the parsed URL.

        Raises:
            ValueError: it is no URL of HTTP.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url} is not the URL of the root of the streams. Write https://example.org/v1/stream/")
        return cls(parts._replace(path=parts.path.rstrip("/")), headers, user)

    def get(self, path: str, query: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Return the response to a GET whose body has not been read, with its connection.

        Raises:
            OSError, http.client.HTTPException: there is no response.
        """
        kind = http.client.HTTPSConnection if self.parts.scheme == "https" else http.client.HTTPConnection
        host = self.parts.hostname or ""
        connection = kind(host, self.parts.port, timeout=CONNECT_SECONDS)
        try:
            connection.request("GET", f"{self.parts.path}/{quote(path)}?{query}", headers=dict(self.headers))
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise


def examine_url(
    url: PublicURL, using: str, *, wakes: bool = False, may_read: Callable[[str], bool] = lambda path: False
) -> Iterator[Finding]:
    """Read a new stream through the URL, at once, by SSE and by long-poll.

    Args:
        url: the root of the streams.
        using: alias of the database.
        wakes: whether messages of this process wake readers of other processes.
        may_read: whether the settings of this process let the user of the URL read a path.
    """
    path = f"doctor/{secrets.token_hex(8)}"
    stream: Stream = Stream.objects.using(using).create(path=path, content_type="text/plain", ttl=600)
    stream.append("first\n")
    try:
        plain = _plain_read(url, path, may_read)
        yield from plain
        if not any(finding.level.value == "error" for finding in plain):
            yield from _long_poll(url, stream)
            yield from _event_stream(url, stream, wakes=wakes)
    except ssl.SSLCertVerificationError as problem:
        yield error("URL", f"This machine does not trust the certificate: {problem.verify_message}.", _CERTIFICATE)
    except (OSError, http.client.HTTPException) as problem:
        text = f"The URL does not answer: {str(problem).rstrip('.')}."
        yield error("URL", text, "Check the URL, its certificate, and the proxy.")
    finally:
        stream.delete()


def _plain_read(url: PublicURL, path: str, may_read: Callable[[str], bool]) -> list[Finding]:
    began = time.time()
    connection, response = url.get(path, "offset=-1")
    body = response.read(MAX_BODY)
    connection.close()
    if response.status != 200 or body != b"first\n":
        if response.status in (401, 403) and url.user and may_read(path):
            return [_unknown_session(url, response.status)]
        return [_refused(url, response, body)]
    findings = [ok("URL", "A stream of this database is read through the URL.")]
    lost = [name for name in ("Stream-Next-Offset", "Cache-Control") if response.getheader(name) is None]
    if lost:
        text = f"Something on the way removes {' and '.join(lost)}."
        findings.append(error("URL", text, "Let the proxy pass all headers of responses on."))
    date = response.getheader("Date")
    if date is not None:
        difference = parsedate_to_datetime(date).timestamp() - began
        if abs(difference) > CLOCK_SECONDS:
            text = f"The clock of the server behind the URL is {difference:+.0f} s from the clock of this machine."
            findings.append(warning("clocks", text, "Synchronise all clocks by NTP."))
    return findings


def _unknown_session(url: PublicURL, status: int) -> Finding:
    """Return the finding about a server that refuses a user whom the settings of this process allow to read."""
    return error(
        "URL",
        f"The server refuses {url.user} ({status}), whom the settings of this shell let read doctor/**.",
        "It may not know the session that this shell has made. Then its log says 'user anonymous', and it has another "
        "database, SECRET_KEY or session settings: give the servers and this shell the same. If its log names the "
        "user, it has other PERMISSION_CLASSES: restart it.",
    )


def _refused(url: PublicURL, response: http.client.HTTPResponse, body: bytes) -> Finding:
    """Return the finding about another response than the stream, with the words of the server."""
    status, detail = response.status, _detail(body)
    if status in (401, 403) and url.user:
        remedy = 'Allow it in PERMISSION_CLASSES (OWNER: "doctor/**": ["read"]), and restart the servers.'
        return error("URL", f"{url.user} may not read doctor/** ({status}).{detail}", remedy)
    if status in (401, 403):
        remedy = "Send credentials of a user who may read doctor/**: --user NAME, or --header 'Authorization: ...'"
        return error("URL", f"The server refuses to read the stream ({status}).{detail}", remedy)
    if status == 400:
        host = url.headers.get("Host", url.parts.netloc)
        remedy = f"If {host} is the right host, add it to ALLOWED_HOSTS, and let the proxy pass the header Host on."
        return error("URL", f"The server refuses the request ({status}).{detail}", remedy)
    if status >= 500:
        remedy = _SEE_LOG if detail else "See the log of the server and of the proxy."
        return error("URL", f"The server cannot answer ({status}).{detail}", remedy)
    if 300 <= status < 400:
        place = response.getheader("Location") or "another place"
        return error("URL", f"The URL redirects to {place} ({status}).", "Name the URL to which it redirects.")
    if status == 404 and not detail:  # Django's page, or that of a proxy
        return error("URL", f"The URL does not serve streams ({status}).", _NOT_SERVED)
    remedy = "Name the root of the streams. Its servers must use the database of this process."
    return error("URL", f"The URL does not show a stream of this database (status {status}).{detail}", remedy)


def _detail(body: bytes) -> str:
    """Return the detail of a problem (RFC 9457) as a sentence for a finding. Empty: the body has none."""
    try:
        problem = json.loads(body)
    except ValueError:
        return ""
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return f" It says: {detail}" if isinstance(detail, str) and detail else ""


def _long_poll(url: PublicURL, stream: Stream) -> Iterator[Finding]:
    reading = _Reading(url, stream.path or "", f"offset={stream.next_offset}&live=long-poll")
    waiting_seconds = min(WAITING_SECONDS, config().long_poll_timeout / 4)
    early = reading.wait_for(b"second", waiting_seconds)  # it cannot come yet: the request has to wait
    stream.append("second\n")
    seconds = reading.wait_for(b"second", CONNECT_SECONDS) if early is None else None
    if seconds is None:
        text = "A long-poll was not answered with the data that was appended"
        yield _unanswered(
            "long-poll", text, reading, "Let the proxy wait for longer than LONG_POLL_TIMEOUT, and cache nothing."
        )
    else:
        yield ok("long-poll", f"A long-poll was answered {seconds:.2f} s after the append.")


def _unanswered(subject: str, text: str, reading: _Reading, remedy: str) -> Finding:
    """Return the finding about a live read without its data. The remedy is for a proxy or server without own words."""
    if reading.response is None:
        return error(subject, f"{text} (no response).", remedy)
    status, detail = reading.response.status, _detail(reading.received)
    is_own = bool(detail) and status >= 400 and status != 501  # which a server without event streams says
    return error(subject, f"{text} (status {status}).{detail}", _SEE_LOG if is_own else remedy)


class _Reading:
    """Reads a response in a thread, and notes when each part arrives."""

    def __init__(self, url: PublicURL, path: str, query: str) -> None:
        self._url, self._path, self._query = url, path, query
        self._parts: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
        self.response: http.client.HTTPResponse | None = None
        self.received = b""
        self.is_over = False
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            connection, self.response = self._url.get(self._path, self._query)
            if connection.sock is not None:
                connection.sock.settimeout(EVENT_SECONDS + END_SECONDS + CONNECT_SECONDS)
            while part := self.response.read1(65536):
                self._parts.put(part)
            self._parts.put(None)
        except Exception as problem:  # for the thread that waits
            self._parts.put(problem)

    def wait_for(self, text: bytes, seconds: float) -> float | None:
        """Return after how many seconds a text has arrived. None: it has not.

        Raises:
            OSError, http.client.HTTPException: the connection was lost.
        """
        began = time.monotonic()
        while text not in self.received:
            left = began + seconds - time.monotonic()
            if left <= 0 or self.is_over:
                return None
            try:
                part = self._parts.get(timeout=left)
            except queue.Empty:
                return None
            if isinstance(part, Exception):
                raise part
            self.is_over = part is None
            self.received += part or b""
        return time.monotonic() - began


def _event_stream(url: PublicURL, stream: Stream, *, wakes: bool) -> Iterator[Finding]:
    reading = _Reading(url, stream.path or "", "offset=-1&live=sse")
    first = reading.wait_for(b"first", EVENT_SECONDS)
    seconds = None
    is_polled = False
    if first is not None:
        stream.append("third\n")
        seconds = reading.wait_for(b"third", EVENT_SECONDS)
        is_polled = wakes and seconds is not None and _arrives_by_polling(reading, stream)
    stream.close()
    if seconds is not None:
        yield ok("SSE", f"An event arrived {seconds:.2f} s after the append.")
        if is_polled:
            yield _LOST_WAKE_UPS
        yield from _coding(url, stream)
        return
    arrived_late = reading.wait_for(b"first", END_SECONDS)
    who = _proxy(reading.response)
    if arrived_late is not None:
        which = f" The response names {who}." if who else ""
        yield error(
            "SSE",
            f"Something on the way buffers event streams: events arrive only when the response ends.{which}",
            _HOW.get(who, _HOW_GENERALLY),
        )
        yield from _coding(url, stream)
    else:
        yield _unanswered("SSE", "No event arrived", reading, "Serve the URL by ASGI, and see the log of the server.")


def _arrives_by_polling(reading: _Reading, stream: Stream) -> bool:
    """Return whether events arrive when a server polls. Each is appended right after one has arrived.

    A poll that has shown an event is followed by a whole interval without a poll.
    """
    for number in range(TRIES):
        text = f"event {number}\n"
        stream.append(text)
        seconds = reading.wait_for(text.encode(), EVENT_SECONDS)
        if seconds is None or seconds < config().poll_interval / 2:
            return False
    return True


def _coding(url: PublicURL, stream: Stream) -> Iterator[Finding]:
    """Ask for the event stream as browsers do, which take compressed responses. The stream is closed by now."""
    as_browsers = url._replace(headers={"Accept-Encoding": "gzip, deflate, br, zstd", **url.headers})
    connection, response = as_browsers.get(stream.path or "", "offset=-1&live=sse")
    coding = response.getheader("Content-Encoding")
    connection.close()
    if coding:
        yield warning("SSE", f"Something on the way compresses event streams ({coding}).", _HOW_GENERALLY)


def _proxy(response: http.client.HTTPResponse | None) -> str:
    """Return the name of a known proxy that a response tells of."""
    if response is None:
        return ""
    names = " ".join(response.getheader(name) or "" for name in ("Server", "Via", "X-Powered-By")).lower()
    return next((proxy for proxy in _HOW if proxy in names), "")
