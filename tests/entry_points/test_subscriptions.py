"""Requests about subscriptions over real sockets."""

import json
import re
from uuid import uuid4

import httpx
import pytest

from tests.entry_points.exchange import Exchange
from tests.entry_points.probed import MIB, ProbedServer, wait_until
from tests.entry_points.test_bodies import reads_ahead

ROOT = "/v1/stream/__ds/subscriptions/"
JSON = {"Content-Type": "application/json"}
CONFIG = {"type": "pull-wake", "pattern": f"{uuid4().hex}/*", "wake_stream": "wake/pool", "lease_ttl_ms": 5000}


def new() -> str:
    return f"{ROOT}s-{uuid4().hex}"


def test_connections_go_on_after_every_request(served: ProbedServer) -> None:
    target = new()
    requests = [
        ("PUT", target, CONFIG, 201),
        ("PUT", target, CONFIG, 200),
        ("PUT", target, {**CONFIG, "lease_ttl_ms": 1}, 400),
        ("HEAD", target, None, 200),
        ("GET", target, None, 200),
        ("POST", f"{target}/streams", {"streams": ["a"]}, 204),
        ("DELETE", f"{target}/streams/a%2Fb", None, 204),
        ("POST", f"{target}/claim", {"worker": "w"}, 409),
        ("POST", f"{target}/ack", {}, 401),
        ("PATCH", f"{target}/ack", {}, 405),
        ("GET", "/v1/stream/__ds/nothing", None, 404),
        ("GET", "/v1/stream/__ds/jwks.json", None, 200),
        ("GET", "/v1/stream/nothing", None, 404),
        ("DELETE", target, None, 204),
        ("GET", target, None, 404),
    ]
    with httpx.Client(base_url=served.base_url, timeout=10, limits=httpx.Limits(max_connections=1)) as client:
        for method, url, body, status in requests:
            response = client.request(method, url, json=body) if body is not None else client.request(method, url)
            assert (method, url, response.status_code) == (method, url, status)
            if url.startswith(ROOT) and status >= 400 and status != 405:
                assert response.json()["error"]["message"]


def test_urls_begin_with_the_address_that_the_client_has_used(served: ProbedServer) -> None:
    target = new()
    body = {"type": "webhook", "streams": ["a"], "webhook": {"url": "http://127.0.0.1:9/hook"}}
    for host in ("127.0.0.1", "localhost"):
        response = httpx.put(f"http://{host}:{served.port}{target}-{host}", json=body, timeout=10)
        assert response.status_code == 201, response.text
        jwks_url = response.json()["webhook"]["signing"]["jwks_url"]
        assert jwks_url == f"http://{host}:{served.port}/v1/stream/__ds/jwks.json"
        keys = httpx.get(jwks_url, timeout=10)
        assert keys.headers["Content-Type"] == "application/jwk-set+json"
        assert keys.headers["Cache-Control"] == "public, max-age=300"
        assert [key["kid"] for key in keys.json()["keys"]] == [response.json()["webhook"]["signing"]["kid"]]
        assert httpx.delete(f"http://{host}:{served.port}{target}-{host}", timeout=10).status_code == 204


def test_a_body_may_come_in_pieces(served: ProbedServer) -> None:
    body = json.dumps(CONFIG).encode()
    pieces = (body[:10], body[10:50], body[50:])
    for headers in ({"Transfer-Encoding": "chunked"}, {"Content-Length": str(len(body))}):
        with Exchange(served.port, "PUT", new(), {**JSON, **headers}) as exchange:
            for piece in pieces:
                if "Content-Length" in headers:
                    exchange.socket.sendall(piece)
                else:
                    exchange.send_chunk(piece)
            if "Content-Length" not in headers:
                exchange.send_chunk(b"")
            assert exchange.response.status == 201


@pytest.mark.parametrize("length", [5000, MIB + 1, 64 * MIB])
def test_without_a_token_no_body_is_waited_for(served: ProbedServer, length: int) -> None:
    if reads_ahead(served):
        pytest.skip("This server reads a body before it asks anybody")
    headers = {**JSON, "Content-Length": str(length)}
    with Exchange(served.port, "POST", f"{new()}/ack", headers, timeout=3) as exchange:
        assert exchange.response.status == 401


def test_a_body_over_the_limit_is_refused_with_413(served: ProbedServer) -> None:
    target = new()
    response = httpx.put(f"{served.base_url}{target}", content=bytes(MIB + 1), timeout=10)
    assert response.status_code == 413
    with Exchange(served.port, "PUT", target, {**JSON, "Transfer-Encoding": "chunked"}) as exchange:
        exchange.send_chunk(bytes(MIB))
        exchange.send_chunk(b"x")
        exchange.send_chunk(b"")
        assert exchange.response.status == 413
    assert httpx.get(f"{served.base_url}{target}", timeout=10).status_code == 404


def test_a_client_that_leaves_within_its_body_changes_nothing(served: ProbedServer) -> None:
    before = served.probe()
    targets = []
    for leave in (Exchange.close, Exchange.reset):
        targets.append(new())
        with Exchange(served.port, "PUT", targets[-1], {**JSON, "Content-Length": "1000"}) as exchange:
            exchange.socket.sendall(json.dumps(CONFIG).encode())
            leave(exchange)
    wait_until(lambda: served.probe().tasks <= before.tasks, 3, "nothing waits for the rest")
    wait_until(lambda: served.probe().held == 0, 3, "no body is held")
    for target in targets:
        assert httpx.get(f"{served.base_url}{target}", timeout=10).status_code == 404


def test_requests_that_follow_each_other_at_once_are_answered_in_order(served: ProbedServer) -> None:
    target = new()
    body = json.dumps(CONFIG).encode()
    head = f"Host: 127.0.0.1:{served.port}\r\nContent-Type: application/json\r\n"
    pipeline = (
        f"PUT {target} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        + f"GET {target} HTTP/1.1\r\n{head}\r\n".encode()
        + f"GET /v1/stream/nothing HTTP/1.1\r\n{head}\r\n".encode()
        + f"DELETE {target} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode()
    )
    with Exchange(served.port, "GET", target) as exchange:
        exchange.response.read()
        exchange.socket.sendall(pipeline)
        received = b""
        while part := exchange.socket.recv(65536):
            received += part
    assert re.findall(rb"HTTP/1\.1 ([0-9]+)", received) == [b"201", b"200", b"404", b"204"]
