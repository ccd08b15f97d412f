"""The scripts of the static files with servers that refuse, cut, and bring nothing new: no fast loop, nothing left."""

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("servers.mjs")
EVENTS = {"content-type": "text/event-stream", "content-location": "/api/chat/c1/stream"}
DONE = "data: [DONE]\n\n"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")


def run(name: str, answers: list[dict[str, Any]], *, seconds: float = 60, **options: Any) -> Any:
    text = json.dumps({"answers": answers, "seconds": seconds, **options})
    done = subprocess.run(["node", str(SCRIPT), name], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answer(*texts: str | bytes, **options: Any) -> dict[str, Any]:
    chunks = [list(text.encode() if isinstance(text, str) else text) for text in texts]
    return {"headers": EVENTS, "chunks": chunks, **options}


def refusal(status: int, retry_after: str | None = None) -> dict[str, Any]:
    return {"status": status, "headers": {} if retry_after is None else {"retry-after": retry_after}}


def test_an_answer_is_whole_however_its_bytes_are_cut() -> None:
    events = ["data: ä€😀\n\n", "data: b\n\n", ": comment\n\ndata: c\n\n", DONE]
    data = "".join(events).encode()
    first = answer(*(data[n : n + 1] for n in range(20)), cut=True)
    second = answer(*(data[n : n + 1] for n in range(len(data) - 5)))
    result = run("resuming", [first, second, answer(data)])
    assert result["text"] == "".join(events).replace(": comment\n\n", "")
    assert (result["error"], result["over"], result["listeners"], result["timers"]) == (None, True, 0, 0)
    assert len(result["requests"]) == 3


@pytest.mark.parametrize("again", [answer(), answer("data: a\n\n"), answer("data: a\n\n", cut=True), {"status": 0}])
def test_an_answer_that_never_goes_on_is_asked_for_less_and_less_often(again: dict[str, Any]) -> None:
    result = run("resuming", [answer("data: a\n\n"), again], seconds=300)
    assert result["text"] == "data: a\n\n"
    assert len(result["requests"]) < 30


@pytest.mark.parametrize("status", [401, 403, 404, 410, 204, 501])
def test_a_refusal_ends_an_answer_and_leaves_nothing_behind(status: int) -> None:
    result = run("resuming", [answer("data: a\n\n"), refusal(status, "1")])
    assert result["error"] == f"The rest of the answer cannot be read ({status})."
    assert (len(result["requests"]), result["listeners"], result["timers"]) == (2, 0, 0)


def test_a_caller_that_cancels_leaves_nothing_behind() -> None:
    result = run("resuming", [answer("data: a\n\n", "data: b\n\n", cut=True)], stop=9)
    assert (result["over"], result["listeners"], result["timers"]) == (True, 0, 0)
    assert len(result["requests"]) == 1


def test_a_request_that_fails_leaves_nothing_behind() -> None:
    result = run("resuming", [{"status": 0}])
    assert (result["error"], result["listeners"]) == ("Failed to fetch", 0)


FIRST = {"resuming": [answer("data: a\n\n")], "source": [], "follow": []}
SENSIBLE = ["20", "20.5"]
ODD = ["99999999", "1e400", "-99999", "soon", "", "Wed, 21 Oct 2099 07:28:00 GMT"]


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", SENSIBLE)
def test_a_time_that_the_server_names_is_waited_for(name: str, status: int, retry_after: str) -> None:
    first = FIRST[name]
    requests = run(name, [*first, refusal(status, retry_after)])["requests"][len(first) :]
    assert 2 <= len(requests) <= 4
    assert all(later - earlier >= 20_000 for earlier, later in pairwise(requests))


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("retry_after", ODD)
def test_an_odd_time_is_no_fast_loop(name: str, retry_after: str) -> None:
    result = run(name, [*FIRST[name], refusal(503, retry_after)], seconds=300)
    assert len(result["requests"]) < 45
    assert result["statuses"] == []


@pytest.mark.parametrize("name", ["source", "follow"])
@pytest.mark.parametrize("status", [401, 403, 404, 410, 501])
def test_a_refusal_is_told_once_and_ends_the_requests(name: str, status: int) -> None:
    result = run(name, [refusal(status)])
    assert (len(result["requests"]), result["statuses"], result["timers"]) == (1, [status], 0)


def test_a_server_that_never_answers_is_asked_again_and_a_closed_source_asks_no_more() -> None:
    result = run("source", [{"hang": True}], seconds=100)
    assert len(result["requests"]) in (2, 3, 4)
    assert (result["readyState"], result["timers"]) == (2, 0)
