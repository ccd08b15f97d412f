"""The real clients against a real server: what they read after a lost connection is what they would have read."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server

pytestmark = pytest.mark.conformance

HERE = Path(__file__).resolve().parent
RUN_SECONDS = 60
COUNT = 30

SERVING = {"DJANGO_SETTINGS_MODULE": "tests.ai.serving"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    url = f"sqlite:///{tmp_path_factory.mktemp('ai') / 'db.sqlite3'}"
    with Server(database_url=url, env=SERVING) as server:
        yield server


def run_client(script: str, *arguments: str) -> Any:
    """Run a script of the clients, and return what it prints."""
    node = shutil.which("node")
    assert node, "node is missing"
    assert (HERE / "node_modules").exists(), "The clients are not installed. Run `make tests`, or `npm ci` in tests/ai."
    command = [node, script, *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")


def without_ids(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in chunk.items() if key != "messageId"} for chunk in chunks]


WORDS = "".join(f" word{number}" for number in range(COUNT))


@pytest.mark.parametrize("package", ["ai5", "ai6", "ai7"])
def test_the_ai_sdk_reads_resumes_and_stops(server: Server, package: str) -> None:
    results = run_client("vercel.mjs", package, f"{server.base_url}/api/chat")
    assert results["before"] is None
    undisturbed = results["undisturbed"]
    assert text_of(undisturbed["chunks"]) == f"I look it up.{WORDS}"
    assert undisturbed["chunks"][-1] == {"type": "finish", "finishReason": "stop"}
    parts = undisturbed["message"]["parts"]
    kinds = [part["type"] for part in parts]
    assert kinds == ["step-start", "reasoning", "text", "tool-look_up", "data-progress", "step-start", "text"]
    assert (parts[3]["state"], parts[3]["output"]) == ("output-available", {"meaning": ["a small river"]})

    disturbed = results["disturbed"]
    assert without_ids(disturbed["chunks"]) == without_ids(undisturbed["chunks"])
    assert disturbed["message"]["parts"] == parts
    assert disturbed["after"] is None

    stopped = results["stopped"]
    assert stopped["status"] == 204
    assert stopped["chunks"][-1] == {"type": "abort"}
    assert len(stopped["chunks"]) < 1000
    assert stopped["after"] is None

    assert results["failed"][-1] == {"type": "error", "errorText": "The model is not available."}
    assert "An answer is being written" in results["refused"]
    assert results["repeated"]["first"] == results["repeated"]["second"]

    stored = results["regenerated"]["stored"]
    assert [(message["role"], message["status"]) for message in stored] == [("user", "done"), ("assistant", "done")]
    assert stored[1]["id"] == results["regenerated"]["again"]["message"]["id"]


def test_the_durable_transport_of_the_ai_sdk_reads_and_resumes(server: Server) -> None:
    results = run_client("transport.mjs", f"{server.base_url}/api/pointer")
    assert text_of(results["undisturbed"]) == f"I look it up.{WORDS}"
    assert without_ids(results["disturbed"]["chunks"]) == without_ids(results["undisturbed"])
    assert results["disturbed"]["after"] is None


def test_the_durable_transport_of_tanstack_follows_the_whole_chat(server: Server) -> None:
    results = run_client("tanstack.mjs", f"{server.base_url}/api/tanstack")
    assert results["empty"] == {"type": "MESSAGES_SNAPSHOT", "messages": []}
    live = results["live"]
    assert [chunk["type"] for chunk in live[:3]] == ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]
    assert (live[0]["role"], live[1]["delta"]) == ("user", "What is a stream?")
    assert "".join(chunk["delta"] for chunk in live if "model" not in chunk and is_text(chunk)) == ANSWER
    # A later connection begins with the messages so far. With what follows, it has the same text.
    (snapshot, *rest) = results["late"]
    assert snapshot["messages"][0]["id"] == "u1"
    texts = [text_of_parts(message) for message in snapshot["messages"]]
    texts.append("".join(chunk["delta"] for chunk in rest if is_text(chunk)))
    assert "".join(texts).count(WORDS) == 2
    assert [text_of_parts(message) for message in results["messages"] if message["role"] == "user"] == [
        "What is a stream?",
        "Again?",
    ]
    assert results["again"][0]["type"] == "MESSAGES_SNAPSHOT"
    renewed = [text_of_parts(message) for message in results["renewed"]]
    assert renewed[:3] == ["What is a stream?", ANSWER, "Again, please?"]
    assert "".join(renewed[3:]) == "I look it up. word0 word1"
    assert "parts" in results["refusal"] or "role" in results["refusal"]


ANSWER = f"I look it up.{WORDS}"


def is_text(chunk: dict[str, Any]) -> bool:
    return bool(chunk["type"] == "TEXT_MESSAGE_CONTENT")


def text_of_parts(message: dict[str, Any]) -> str:
    return "".join(part.get("content", "") for part in message["parts"] if part["type"] == "text")
