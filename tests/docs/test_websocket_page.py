"""The script of the page follows streams over a real server, and after a restart. The tables name all frames."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread

import httpx

from django_durable_streams.protocol import websocket
from django_durable_streams.server.response_memory import PIECE_BYTES
from django_durable_streams.server.websocket import closing, session
from django_durable_streams.server.websocket.window import WINDOW_BYTES
from tests.docs.pages import ROOT, blocks, code, section, table
from tests.servers import HOST, Server

PAGE = ROOT / "docs" / "websocket.md"
SECONDS = 20
TEXT = {"Content-Type": "text/plain"}

Shown = Queue[list[str]]


@contextmanager
def running(port: int) -> Iterator[Shown]:
    """Run the page's script, and yield the data that it shows."""
    script = next(block.text for block in blocks(PAGE, "js") if "function connect" in block.text)
    browser = f"""
        globalThis.location = {{ protocol: "http:", host: "{HOST}:{port}" }};
        globalThis.show = (id, data) => console.log(JSON.stringify([id, data]));
        // Where nobody listens, a browser's socket has both events. That of Node 20 has the first one only.
        globalThis.WebSocket = class extends WebSocket {{
            set onclose(listen) {{
                const once = () => {{ listen(); listen = () => {{}}; }};
                this.addEventListener("error", once);
                this.addEventListener("close", once);
            }}
        }};
    """
    process = subprocess.Popen(
        ["node", "--no-warnings", "--experimental-websocket", "-e", browser + script],
        stdout=subprocess.PIPE,
        text=True,
    )
    shown: Shown = Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                shown.put(json.loads(line))

    reader = Thread(target=read)
    reader.start()
    try:
        yield shown
    finally:
        process.kill()
        process.wait()
        reader.join()


def test_the_script_follows_its_streams_and_goes_on_after_a_restart() -> None:
    with Server() as server:

        def append(path: str, data: str) -> None:
            httpx.post(f"{server.base_url}/v1/stream/{path}", content=data, headers=TEXT).raise_for_status()

        for path in ("chat/42", "chat/43"):
            url = f"{server.base_url}/v1/stream/{path}"
            httpx.put(url, content=path, headers=TEXT, timeout=SECONDS).raise_for_status()
        with running(server.port) as shown:
            first = [shown.get(timeout=SECONDS) for _ in range(2)]
            assert sorted(first) == [["chat/42", "chat/42"], ["chat/43", "chat/43"]]
            append("chat/43", "live")
            assert shown.get(timeout=SECONDS) == ["chat/43", "live"]
            server.stop()
            server.start()
            append("chat/42", "later")
            assert shown.get(timeout=SECONDS) == ["chat/42", "later"]
            assert shown.empty()


def test_the_tables_of_frames_are_complete() -> None:
    rows = table(section(PAGE, "Frames of the client"))
    frames = {kind.__struct_config__.tag: set(kind.__struct_fields__) for kind in websocket.ClientFrame.__args__}
    assert {code(kind) for kind, _, _ in rows} == set(frames)
    for kind, fields, _ in rows:
        assert {name for name in frames[code(kind)] if f"`{name}`" in fields} == frames[code(kind)], kind
    server = {code(kind): fields for kind, fields, _ in table(section(PAGE, "Frames of the server"))}
    names = set(websocket._HEADER_FIELDS.values())
    assert {name for name in names if f"`{name}`" in server["error"] + server["appended"]} == names


def test_the_numbers_are_those_of_the_code() -> None:
    text = " ".join(PAGE.read_text().split())
    assert (PIECE_BYTES, WINDOW_BYTES, session.MAX_REQUESTS) == (64 * 1024, 256 * 1024, 1000)
    assert (session.MAX_INVALID_FRAMES, closing.PRIVATE_CODES) == (3, 3000)
    assert "After each 64 KiB" in text
    assert "While 256 KiB are not confirmed" in text
    assert "a thousand requests" in text
    assert "so 3000 are added to them" in text
    codes = [int(row[0]) for row in table(section(PAGE, "Limits")) if row[0].isdigit()]
    assert codes == [
        closing.POLICY_VIOLATION,
        closing.TOO_LARGE,
        closing.INTERNAL_ERROR,
        closing.SERVICE_RESTART,
        closing.TRY_AGAIN_LATER,
    ]
