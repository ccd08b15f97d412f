"""The ASGI application inside other applications, and the URLs that it gives out."""

from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.entry_points.exchange import Event, Exchange
from tests.entry_points.probed import ProbedServer
from tests.servers import HOST

TEXT = {"Content-Type": "text/plain"}
NAMES = ("with space", "grüße/日本語", "100%", "100%25", "a?b=c", "a#b", "semi;colon:at@plus+and&'~", "dots...")

MOUNTS = {"routed": "", "alone": "", "below_root": "/api"}


@pytest.fixture(scope="module", params=MOUNTS)
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the streams of a server that has them mounted in some way."""
    with ProbedServer(application=f"tests.entry_points.mounts:{request.param}") as server:
        yield f"{server.base_url}{MOUNTS[request.param]}/v1/stream"


def assert_location_leads_back(root: str, name: str) -> None:
    """A stream's Location is the URL that it was made with, percent-encoded, and can be read and forked."""
    made = httpx.put(f"{root}/{quote(name)}", content=name.encode(), headers=TEXT)
    assert made.status_code == 201
    location = made.headers["Location"]
    assert location == f"{root}/{quote(name)}"
    assert httpx.get(location).text == name
    source = urlsplit(location).path
    fork = httpx.put(f"{root}/fork-{quote(name)}", headers={**TEXT, "Stream-Forked-From": source})
    assert httpx.get(fork.headers["Location"]).text == name
    assert httpx.delete(fork.headers["Location"]).status_code == 204
    assert httpx.delete(location).status_code == 204


@pytest.mark.parametrize("name", NAMES)
def test_a_location_can_be_fetched_wherever_the_streams_are_mounted(root: str, name: str) -> None:
    assert_location_leads_back(root, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_location_can_be_fetched_from_every_server(served: ProbedServer, name: str) -> None:
    assert_location_leads_back(f"{served.base_url}/v1/stream", name)


def test_an_encoded_slash_is_a_slash(served: ProbedServer) -> None:
    path = served.create(b"x") + "/b"
    made = httpx.put(served.url(path.replace("/", "%2F")), content=b"same", headers=TEXT)
    assert made.headers["Location"] == served.url(path)
    assert httpx.get(served.url(path)).text == "same"


def test_live_reads_work_wherever_the_streams_are_mounted(root: str) -> None:
    httpx.put(f"{root}/live", content=b"hello", headers=TEXT)
    parts = urlsplit(f"{root}/live")
    assert parts.port is not None
    with Exchange(parts.port, "GET", f"{parts.path}?live=sse&offset=-1") as reader:
        events = reader.events()
        assert next(events) == Event("data", "hello")
        assert next(events).kind == "control"
        httpx.post(f"{root}/live", content=b"world", headers=TEXT)
        assert next(events) == Event("data", "world")
    httpx.delete(f"{root}/live")


def assert_other_hosts_are_refused(root: str) -> None:
    parts = urlsplit(root)
    assert parts.port is not None
    headers = {"Host": "evil.example", "Content-Length": "0"}
    with Exchange(parts.port, "PUT", f"{parts.path}/a", headers) as exchange:
        assert exchange.response.status == 400


def test_a_host_that_is_not_allowed_is_refused_wherever_the_streams_are_mounted(root: str) -> None:
    assert_other_hosts_are_refused(root)


def test_a_host_that_is_not_allowed_is_refused_by_every_server(served: ProbedServer) -> None:
    assert_other_hosts_are_refused(f"{served.base_url}/v1/stream")


def test_the_bare_application_says_what_is_wrong_with_a_host() -> None:
    with (
        ProbedServer(application="tests.entry_points.mounts:alone") as server,
        Exchange(server.port, "GET", "/v1/stream/a", {"Host": "evil.example"}) as exchange,
    ):
        assert exchange.response.headers["Content-Type"] == "application/problem+json"
        assert b"ALLOWED_HOSTS" in exchange.response.read()


def test_other_paths_go_to_django_through_channels_routing() -> None:
    with ProbedServer(application="tests.entry_points.mounts:routed") as server:
        assert httpx.get(f"{server.base_url}/admin/login/").status_code == 200


def test_other_paths_are_not_found_where_the_streams_stand_alone() -> None:
    with ProbedServer(application="tests.entry_points.mounts:alone") as server:
        response = httpx.get(f"{server.base_url}/admin/login/")
        assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")


def test_a_location_behind_a_proxy_that_strips_a_prefix_has_the_prefix() -> None:
    with ProbedServer(options=["--root-path", "/api"]) as server:
        made = httpx.put(server.url("a"), headers=TEXT)
        assert made.headers["Location"] == f"http://{HOST}:{server.port}/api/v1/stream/a"
        # What the proxy passes on for this source has lost its prefix, but the header has not.
        fork = httpx.put(server.url("b"), headers={**TEXT, "Stream-Forked-From": "/api/v1/stream/a"})
        assert fork.status_code == 201
