"""LiteLLM as a source: the real package, and a local server that speaks OpenAI's HTTP.

LiteLLM brings forty packages, and needs a newer `certifi` than the other tests. So it has a virtual environment of its
own, which `make` creates from `tests/ai/litellm.txt`, inside that of the tests. The variable LITELLM_PYTHON may name
the Python of another one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ai.provider import provider
from tests.ai.test_sources import USAGE, call, completion

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = os.environ.get("LITELLM_PYTHON") or str(Path(sys.prefix, "litellm", "bin", "python"))
RUN_SECONDS = 120

PROGRAM = """
import asyncio, json, sys, traceback
import litellm, msgspec
from django_durable_streams.contrib.ai.sources.openai import chat_completions

async def events_of(url):
    messages = [{"role": "user", "content": "Hi"}]
    options = {"api_base": url, "api_key": "test", "stream_options": {"include_usage": True}}
    request = litellm.acompletion(model="openai/m", messages=messages, stream=True, num_retries=0, **options)
    try:
        return [msgspec.to_builtins(event) async for event in chat_completions(request)]
    except Exception as error:
        return traceback.format_exception_only(error)[-1]

async def main():
    return [await events_of(url) for url in sys.argv[1:]]

print(json.dumps(asyncio.run(main())))
"""

SCRIPT = [
    completion({"role": "assistant", "content": ""}),
    completion({"reasoning_content": "Hm."}),
    completion({"content": "Good day"}),
    completion(call(0, "", id="a", name="add", type="function")),
    completion(call(0, '{"x":1}')),
    completion({}, "tool_calls"),
    USAGE,
    "[DONE]",
]

pytestmark = pytest.mark.skipif(not Path(PYTHON).exists(), reason="LiteLLM is not installed: run `make unit`")


@pytest.fixture(scope="module")
def outcomes() -> list[Any]:
    """The events of an answer by LiteLLM, and the error of a refused one. One process: it imports for seconds."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with provider() as answering, provider() as refusing:
        answering.script, refusing.status = SCRIPT, 401
        command = [PYTHON, "-c", PROGRAM, f"{answering.url}/v1", f"{refusing.url}/v1"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_answer_of_litellm_is_reasoning_text_a_call_and_an_end(outcomes: list[Any]) -> None:
    assert outcomes[0] == [
        {"type": "reasoning", "text": "Hm."},
        {"type": "text", "text": "Good day"},
        {"type": "tool-input", "id": "a", "name": "add"},
        {"type": "tool-input", "id": "a", "name": "add", "text": '{"x":1}'},
        {"type": "usage", "input_tokens": 5, "output_tokens": 7},
        {"type": "tool-call", "id": "a", "name": "add", "input": {"x": 1}},
        {"type": "finish", "reason": "tool-calls"},
    ]


def test_a_provider_that_refuses_litellm_is_an_error(outcomes: list[Any]) -> None:
    assert "AuthenticationError" in outcomes[1]
