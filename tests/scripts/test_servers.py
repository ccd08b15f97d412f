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


def test_follow_notices_a_silent_network_after_45_seconds_without_a_byte() -> None:
    """Comments are bytes: while they come, no request is made anew."""
    head = {"headers": {"content-type": "application/json", "stream-next-offset": "0"}, "chunks": []}
    control = 'event: control\ndata:{"streamNextOffset":"0"}\n\n'
    result = run("follow", [head, answer(control, beats=8)], seconds=640)
    assert result["requests"] == [0, 0, 165_000, 330_000, 495_000]  # 120 seconds of comments, and 45 of silence
    assert (result["statuses"], result["timers"]) == ([], 0)


def test_follow_gives_up_a_request_without_an_answer() -> None:
    result = run("follow", [{"hang": True}], seconds=200)
    assert len(result["requests"]) in (4, 5)
    assert all(30_000 <= later - earlier <= 46_000 for earlier, later in pairwise(result["requests"]))
    assert result["timers"] == 0


def test_an_answer_goes_on_45_seconds_after_the_network_went_silent() -> None:
    silent = answer("data: a\n\n", beats=4)
    whole = answer("data: a\n\n", "data: b\n\n", DONE)
    for again in ([whole], [{"hang": True}, whole]):
        result = run("resuming", [silent, *again], seconds=300)
        assert result["text"] == f"data: a\n\ndata: b\n\n{DONE}"
        assert 105_000 <= result["requests"][1] <= 106_000
        assert (result["over"], result["error"], result["timers"]) == (True, None, 0)
        assert len(result["requests"]) == 1 + len(again)


@pytest.mark.parametrize("type_of_event", ["keep-alive", "message", "mine"])
def test_a_source_is_made_anew_45_seconds_after_its_last_event(type_of_event: str) -> None:
    events = [[20_000, type_of_event], [30_000, type_of_event], [40_000, type_of_event]]
    result = run("source", [], seconds=230, events=events)
    (_, first), (at, second) = result["made"]
    assert (at, first, second) == (135_000, "http://test/events", "http://test/events?offset=id-40000")
    assert result["timers"] == 0


def test_a_source_that_does_not_open_is_made_anew() -> None:
    result = run("source", [], seconds=200, events=[])
    assert [at for at, _ in result["made"]] == [0, 45_000, 90_000, 135_000, 180_000]
    assert (result["readyState"], result["timers"]) == (2, 0)


@pytest.mark.parametrize(
    ("data", "waits"), [("100", 145_000), ("", 45_000), ("0", 45_000), ("words", 45_000), ("99999999", 945_000)]
)
def test_a_source_waits_as_long_as_the_browser_before_it_comes_back(data: str, waits: int) -> None:
    """A server that refuses for a while names the time, and a new source would ask before it is over."""
    result = run("source", [], seconds=1000, events=[[0, "keep-alive", data], [1000, "ended"]])
    assert result["made"][1][0] == 1000 + waits
