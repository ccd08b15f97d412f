"""Responses that are encoded before the commit: on a busy connection the bytes are those of a lone request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.uvicorn.fast_path import FastPathConnection
from tests.overriding import override_streams
from tests.server.uvicorn_pair import Answer, Pair

pytestmark = pytest.mark.usefixtures("engines", "counted_generations")

ORIGINS: list[list[bytes]] = [
    [],
    [b"Origin: https://one.example"],
    [b"Origin: https://two.example"],
    [b"Origin: https://other.example"],
]

KINDS: list[list[bytes]] = [
    [],
    [b"Producer-Id: a", b"Producer-Epoch: 0", b"Producer-Seq: 0"],
    [b"Stream-Closed: true"],
    [b"Stream-Seq: 1"],
]


def post(path: str, lines: list[bytes]) -> bytes:
    head = [b"POST /v1/stream/%b HTTP/1.1" % path.encode(), b"Host: testserver", b"Content-Type: text/plain", *lines]
    return b"\r\n".join([*head, b"Content-Length: 2", b"", b"ab"])


def put(path: str) -> bytes:
    return b"PUT /v1/stream/%b HTTP/1.1\r\nHost: testserver\r\nContent-Type: text/plain\r\n\r\n" % path.encode()


def without_generation(answer: Answer) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    shown = [(name, value[16:] if name == b"stream-next-offset" else value) for name, value in answer.headers]
    return answer.status, shown, answer.body


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"CORS_ORIGINS": ["*"]},
        {"CORS_ORIGINS": ["https://one.example", "https://two.example"]},
        {"REGISTRY_PATH": "registry"},
    ],
)
async def test_they_are_those_of_lone_requests(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []
    real = FastPathConnection.send_prepared

    def send_prepared(self: Any, *arguments: Any) -> bool:
        prepared.append(arguments)
        return real(self, *arguments)

    pair = Pair(DurableStreams())
    pair.state.default_headers = [(b"date", b"Tue, 01 Dec 2026 00:00:00 GMT"), (b"server", b"uvicorn")]
    with override_streams(**settings):
        monkeypatch.setattr(FastPathConnection, "send_prepared", send_prepared)
        cases = [(origin, kind) for origin in ORIGINS for kind in KINDS]
        # Twice, because the second turn has the bytes that the first one keeps.
        for turn in ("first", "second"):
            await asyncio.gather(*(pair.fast(put(f"{turn}-{number}")) for number in range(len(cases))))
            prepared.clear()
            busy = await asyncio.gather(
                *(pair.fast(post(f"{turn}-{number}", [*origin, *kind])) for number, (origin, kind) in enumerate(cases))
            )
            assert len(prepared) == len(cases)
            for (origin, kind), answer in zip(cases, busy, strict=True):
                await pair.plain(put("alone"))
                alone = await pair.plain(post("alone", [*origin, *kind]))
                await pair.plain(put("alone").replace(b"PUT", b"DELETE"))
                assert without_generation(answer) == without_generation(alone), (origin, kind)
                assert alone.status < 300


async def test_each_second_has_its_own_date() -> None:
    pair = Pair(DurableStreams())
    await pair.fast(put("a"))
    for second in range(3):
        date = b"Tue, 01 Dec 2026 00:00:0%d GMT" % second
        pair.state.default_headers = [(b"date", date)]
        answers = await asyncio.gather(*(pair.fast(post("a", [])) for _ in range(20)))
        assert {answer.header("date") for answer in answers} == {date}
        offsets = [answer.header("stream-next-offset") for answer in answers]
        assert sorted(set(offsets)) == offsets  # type: ignore[type-var]
