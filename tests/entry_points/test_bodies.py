"""Bodies that are too large, or never end, over real sockets."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from tests.entry_points.exchange import Exchange
from tests.entry_points.probed import MIB, ProbedServer, memory_of, wait_until

BYTES = {"Content-Type": "application/octet-stream"}
LIMIT = 16 * MIB


def reads_ahead(server: ProbedServer) -> bool:
    """Whether a body is read as a whole before streams are asked: by Twisted, and by Django's ASGI handler."""
    return server.kind == "daphne" or server.env["EXAMPLE_DOOR"] == "urls"


def test_a_body_at_the_limit_is_taken(served: ProbedServer) -> None:
    path = served.create(kind=BYTES["Content-Type"])
    assert served.append(path, bytes(LIMIT), kind=BYTES["Content-Type"]).endswith(f"_{LIMIT:016d}")


def test_a_body_over_the_limit_is_refused_with_413_and_changes_nothing(served: ProbedServer) -> None:
    path = served.create(kind=BYTES["Content-Type"])
    # More than the buffers of both sockets hold: the refusal must come through to a client that is still sending.
    response = httpx.post(served.url(path), content=bytes(LIMIT + MIB), headers=BYTES, timeout=30)
    assert response.status_code == 413
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "16777216" in response.json()["detail"]
    assert tail(served, path) == 0


@pytest.mark.parametrize("expect", [{}, {"Expect": "100-continue"}], ids=["plain", "expect-continue"])
def test_a_length_over_the_limit_is_refused_before_the_body_is_sent(
    served: ProbedServer, expect: dict[str, str]
) -> None:
    path = served.create(kind=BYTES["Content-Type"])
    headers = {**BYTES, "Content-Length": str(LIMIT + 1), **expect}
    with Exchange(served.port, "POST", f"/v1/stream/{path}", headers, timeout=3) as exchange:
        if reads_ahead(served):
            exchange.socket.sendall(bytes(LIMIT + 1))
        assert exchange.response.status == 413


def test_a_chunked_body_over_the_limit_is_refused_and_not_read_on_for_ever(served: ProbedServer) -> None:
    path = served.create(kind=BYTES["Content-Type"])
    pid = served.probe().pid
    before = memory_of(pid, "VmRSS")
    headers = {**BYTES, "Transfer-Encoding": "chunked"}
    with (
        Exchange(served.port, "POST", f"/v1/stream/{path}", headers) as exchange,
        ThreadPoolExecutor(1) as pool,
    ):
        sent = pool.submit(send_chunks, exchange, 96)
        if not reads_ahead(served):
            assert exchange.response.status == 413
        megabytes = sent.result(timeout=30)
        assert exchange.response.status == 413
    print(f"{served.kind}: took {megabytes} MB")
    if reads_ahead(served):  # it is the server's own choice that a body is in memory, sometimes twice
        assert memory_of(pid, "VmRSS") - before < 3 * megabytes * MIB
    else:
        assert megabytes < 64
        assert memory_of(pid, "VmRSS") - before < 100 * MIB
    assert tail(served, path) == 0


@pytest.mark.parametrize(
    "framing", [{"Content-Length": str(2 * MIB)}, {"Transfer-Encoding": "chunked"}], ids=["length", "chunked"]
)
def test_an_upload_that_is_broken_off_changes_nothing(served: ProbedServer, framing: dict[str, str]) -> None:
    path = served.create(kind=BYTES["Content-Type"])
    before = served.probe()
    for leave in (Exchange.close, Exchange.reset):
        with Exchange(served.port, "POST", f"/v1/stream/{path}", {**BYTES, **framing}) as exchange:
            if "Content-Length" in framing:
                exchange.socket.sendall(bytes(MIB))
            else:
                exchange.send_chunk(bytes(MIB))
            leave(exchange)
    wait_until(lambda: served.probe().tasks <= before.tasks, 3, "nothing waits for the rest")
    assert tail(served, path) == 0


def send_chunks(exchange: Exchange, megabytes: int) -> int:
    """Send so many megabytes, or until the server has had enough; return how many it took."""
    for number in range(megabytes):
        try:
            exchange.send_chunk(bytes(MIB))
        except OSError:
            return number
    with suppress(OSError):
        exchange.send_chunk(b"")
    return megabytes


def tail(server: ProbedServer, path: str) -> int:
    """The position after a stream's last byte."""
    return int(httpx.head(server.url(path)).headers["Stream-Next-Offset"].partition("_")[2])
