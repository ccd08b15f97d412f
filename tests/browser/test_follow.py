"""`follow()` of the static files in a browser: its callbacks, its waits, and the tabs that share its connection."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, Request, Route

from tests.browser.network import Network
from tests.browser.recipe_pages import numbers, wait_for
from tests.browser.streams import EVERYTHING, Streams, token
from tests.browser.visitor import Visitor
from tests.servers import Server

pytestmark = pytest.mark.browser

TEN = [{"text": str(n)} for n in range(10)]

FOLLOW = """
async ([url, options]) => {
    const {follow} = await import("/static/durable_streams/follow.js");
    const calls = window.calls = [];
    const controller = new AbortController();
    await follow(url, {
        ...options,
        signal: controller.signal,
        onmessage(message, offset) {
            calls.push([message, offset]);
            if (message === options.abort) controller.abort();
            if (message === options.fail) throw new Error("a handler has failed");
        },
        onend: () => calls.push(["end"]),
        ...(options.resets && {onreset: () => calls.push(["reset"])}),
        onerror: (status) => calls.push(["error", status]),
    });
    await new Promise(done => setTimeout(done));
    return calls;
}
"""
SET_HIDDEN = """
hidden => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange", {bubbles: true}));
}
"""
SHORTER_SILENCE = """
const later = window.setTimeout;
window.setTimeout = (call, wait) => later(call, wait === 9e4 ? 500 : wait);
"""


@pytest.fixture(scope="module")
def server(page_server: Server) -> Server:
    return page_server


@pytest.fixture(scope="module")
def network(server: Server) -> Iterator[Network]:
    with Network(server.port) as network:
        yield network


@pytest.fixture(scope="module")
def streams(server: Server) -> Streams:
    return Streams(server.base_url)


@pytest.fixture
def visitor(chromium: Browser, network: Network) -> Iterator[Visitor]:
    visitor = Visitor(chromium, network.base_url)
    yield visitor
    visitor.context.close()


def call(visitor: Visitor, path: str, **options: Any) -> Any:
    """Follow a stream to its end, and return the calls of the handlers."""
    visitor.page.goto("/healthz")
    return visitor.page.evaluate(FOLLOW, [f"/v1/stream/{path}", options])


def test_each_message_has_the_place_at_which_reading_goes_on(visitor: Visitor, streams: Streams) -> None:
    streams.create("public/places")
    streams.append("public/places", *range(5))
    streams.append("public/places", [5], None)
    streams.close("public/places")
    calls = call(visitor, "public/places")
    assert [message for message, *_ in calls] == [0, 1, 2, 3, 4, [5], None, "end"]
    offsets = [offset for _, offset in calls[:-1]]
    assert len(set(offsets)) == 7
    for n, offset in enumerate(offsets):
        assert call(visitor, "public/places", offset=offset) == calls[n + 1 :]


def test_text_arrives_whole_and_bytes_in_base64(visitor: Visitor, streams: Streams) -> None:
    text = "naïve \u2028data: x\n\n event: control\r\n data:"
    streams.create("public/text", "text/plain")
    body = text.encode()
    for piece in (body[:3], body[3:]):
        streams.append_body("public/text", piece, "text/plain")
    streams.close("public/text")
    *calls, end = call(visitor, "public/text")
    assert "".join(piece for piece, _ in calls) == text.replace("\r\n", "\n")
    assert end == ["end"]

    streams.create("public/bytes", "application/octet-stream")
    streams.append_body("public/bytes", b"\x00\xff", "application/octet-stream")
    streams.close("public/bytes")
    assert [message for message, *_ in call(visitor, "public/bytes")] == ["AP8=", "end"]


def test_a_fragment_of_the_url_is_not_sent(visitor: Visitor, streams: Streams) -> None:
    streams.create("public/fragment")
    streams.append("public/fragment", 1)
    streams.close("public/fragment")
    calls = call(visitor, "public/fragment")
    for url in ("public/fragment#", "public/fragment#a?b=c", "public/fragment?x=1#a&offset=now"):
        assert call(visitor, url) == calls


def test_now_is_the_end(visitor: Visitor, streams: Streams) -> None:
    streams.create("public/now")
    streams.append("public/now", 1)
    streams.close("public/now")
    assert call(visitor, "public/now", offset="now") == [["end"]]


def test_nothing_is_called_after_an_abort(visitor: Visitor, streams: Streams) -> None:
    streams.create("public/abort")
    streams.append("public/abort", *range(5))
    streams.close("public/abort")
    assert [message for message, *_ in call(visitor, "public/abort", abort=2)] == [0, 1, 2]


def test_the_error_of_a_handler_is_reported_and_the_next_message_follows(visitor: Visitor, streams: Streams) -> None:
    streams.create("public/fail")
    streams.append("public/fail", *range(3))
    streams.close("public/fail")
    assert [message for message, *_ in call(visitor, "public/fail", fail=1)] == [0, 1, 2, "end"]
    assert visitor.complaints == ["a handler has failed"]


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/stream/public/none", 404), ("/v1/stream/secret", 401), ("/healthz", 200), ("/admin/", 0)]
)
def test_a_refusal_is_reported_once(visitor: Visitor, network: Network, path: str, status: int) -> None:
    visitor.page.goto("/readyz")
    before = len(network.requests(path))
    assert visitor.page.evaluate(FOLLOW, [path, {}]) == [["error", status]]
    assert len(network.requests(path)) == before + 1


def test_it_waits_as_long_as_the_server_says(visitor: Visitor, streams: Streams) -> None:
    streams.create("public/busy")
    streams.append("public/busy", 1)
    streams.close("public/busy")
    visitor.page.goto("/healthz")
    times: list[float] = []

    def refuse_twice(route: Route) -> None:
        times.append(visitor.page.evaluate("performance.now()"))
        if len(times) <= 2:
            route.fulfill(status=503, headers={"Retry-After": "1"})
        else:
            route.continue_()

    visitor.page.route("**/v1/stream/public/busy**", refuse_twice)
    calls = visitor.page.evaluate(FOLLOW, ["/v1/stream/public/busy", {}])
    assert [message for message, *_ in calls] == [1, "end"]
    assert all(later - earlier >= 990 for earlier, later in itertools.pairwise(times[:3]))


def follow_a_lost_place(
    visitor: Visitor, network: Network, streams: Streams, path: str, resets: bool, replace: Callable[[], None]
) -> Any:
    """Follow a stream that is replaced after two messages, while the network is away. Return what was called."""
    streams.create(path)
    streams.append(path, "a", "b")
    visitor.page.goto("/healthz")
    options = {"resets": resets}
    visitor.page.evaluate(f"args => {{window.done = ({FOLLOW})(args)}}", [f"/v1/stream/{path}", options])
    visitor.page.wait_for_function("window.calls?.length === 2", polling=50)
    network.refuse()
    network.cut()
    network.wait_until_refused(1)
    replace()
    network.refuse(False)
    calls = visitor.page.evaluate("done")
    return [call if call[0] == "error" else call[0] for call in calls]


@pytest.mark.parametrize(
    ("resets", "expected"),
    [(True, ["a", "b", "reset", "c", "d", "end"]), (False, ["a", "b", ["error", 410]])],
    ids=["a page that starts over", "a page that does not"],
)
def test_a_lost_place_is_told_before_the_messages_of_the_start(
    visitor: Visitor, network: Network, streams: Streams, resets: bool, expected: list[Any]
) -> None:
    path = f"public/lost/{resets}"

    def replace() -> None:
        streams.delete(path)
        streams.create(path)
        streams.append(path, "c", "d")
        streams.close(path)

    assert follow_a_lost_place(visitor, network, streams, path, resets, replace) == expected


def test_a_stream_that_is_gone_is_a_refusal_after_it_was_told(
    visitor: Visitor, network: Network, streams: Streams
) -> None:
    path = "public/gone"

    def replace() -> None:
        streams.fork(path, f"{path}-fork")
        streams.delete(path)  # a stream with forks is 410

    calls = follow_a_lost_place(visitor, network, streams, path, True, replace)
    assert calls == ["a", "b", "reset", ["error", 410]]
    before = len(network.requests(path))
    visitor.page.evaluate("new Promise(done => setTimeout(done, 1500))")
    assert len(network.requests(path)) == before


class Tab(NamedTuple):
    """A page that follows a stream, and its event streams that are open."""

    page: Page
    open: set[Request]

    def set_hidden(self, hidden: bool) -> None:
        self.page.evaluate(SET_HIDDEN, hidden)


def open_tab(visitor: Visitor, path: str, options: str = "") -> Tab:
    page = visitor.context.new_page()
    tab = Tab(page, set())

    def begin(request: Request) -> None:
        if "live=sse" in request.url:
            tab.open.add(request)

    page.on("request", begin)
    page.on("requestfailed", lambda request: tab.open.discard(request))
    page.on("requestfinished", lambda request: tab.open.discard(request))
    page.goto(f"/recipes/follow.html?{urlencode({'path': path, 'options': options})}")
    return tab


class Shared:
    """Three tabs that follow a stream."""

    def __init__(self, visitor: Visitor, network: Network, streams: Streams, path: str) -> None:
        self.path, self.written = path, 0
        self._network, self._streams = network, streams
        streams.create(path)
        self.append(3)
        self.tabs = [open_tab(visitor, path) for _ in range(3)]

    def append(self, count: int) -> None:
        self._streams.append(self.path, *({"text": str(self.written + n)} for n in range(count)))
        self.written += count

    def close(self) -> None:
        self._streams.close(self.path)

    def wait(self, *tabs: Tab) -> None:
        """Wait until the tabs show everything, and check that they do so once and in order."""
        for tab in tabs:
            wait_for(tab.page, self.written)
            assert numbers(tab.page) == list(range(self.written))

    def leader(self) -> Tab:
        """Wait until one tab reads for all, and return it."""
        self._network.wait_until_open("live=sse", 1)
        self.tabs[0].page.evaluate("0")  # takes the events of requests that have ended
        (leader,) = (tab for tab in self.tabs if tab.open)
        return leader


@pytest.fixture
def shared(visitor: Visitor, network: Network, streams: Streams, request: pytest.FixtureRequest) -> Shared:
    visitor.context.add_init_script(SHORTER_SILENCE if "hangs" in request.node.name else "")
    return Shared(visitor, network, streams, f"public/shared/{request.node.name}")


def test_tabs_share_one_connection_and_its_end(shared: Shared, network: Network) -> None:
    shared.wait(*shared.tabs)
    shared.leader()
    before = len(network.requests(shared.path))
    shared.append(1)
    shared.append(10)
    shared.wait(*shared.tabs)
    shared.close()
    for tab in shared.tabs:
        tab.page.wait_for_function("document.getElementById('state').textContent", polling=50)
    assert len(network.requests(shared.path)) == before


def test_another_tab_goes_on_when_the_leader_is_closed(shared: Shared) -> None:
    shared.wait(*shared.tabs)
    leader = shared.leader()
    shared.append(2)
    leader.page.close()
    shared.tabs.remove(leader)
    shared.append(2)
    shared.wait(*shared.tabs)
    shared.leader()
    shared.append(2)
    shared.wait(*shared.tabs)


def test_another_tab_goes_on_when_the_leader_is_hidden(shared: Shared) -> None:
    shared.wait(*shared.tabs)
    leader = shared.leader()
    leader.set_hidden(True)
    shared.append(2)
    others = [tab for tab in shared.tabs if tab is not leader]
    shared.wait(*others)
    assert shared.leader() is not leader
    assert numbers(leader.page) == [0, 1, 2]
    leader.set_hidden(False)
    shared.wait(*shared.tabs)
    shared.leader()


def test_all_go_on_while_the_leader_hangs(shared: Shared, visitor: Visitor) -> None:
    shared.wait(*shared.tabs)
    leader = shared.leader()
    session = visitor.context.new_cdp_session(leader.page)
    pauses: list[Any] = []
    session.on("Debugger.paused", lambda event: pauses.append(event))
    session.send("Debugger.enable")
    session.send("Debugger.pause")  # at its next step, which the next message makes
    shared.append(2)
    shared.wait(*(tab for tab in shared.tabs if tab is not leader))
    assert len(pauses) == 1
    session.send("Debugger.resume")
    shared.wait(*shared.tabs)


def test_tabs_that_are_cut_off_from_the_server_lose_nothing(shared: Shared, network: Network) -> None:
    shared.wait(*shared.tabs)
    for _ in range(3):
        shared.leader()
        network.cut_behind(b'"%d"},' % (shared.written + 4))
        shared.append(10)
        network.wait_until_cut()
        shared.wait(*shared.tabs)


def test_pages_of_different_users_do_not_share(visitor: Visitor, network: Network, streams: Streams) -> None:
    streams.create("secret/room")
    streams.append("secret/room", *TEN)

    def options(bearer: str, more: str = "") -> str:
        return f'headers: {{Authorization: "Bearer {bearer}"}}, {more}'

    other = token(read=["secret/*"])
    tabs = [open_tab(visitor, "secret/room", options(bearer)) for bearer in (EVERYTHING, other)]
    for tab in tabs:
        wait_for(tab.page, 10)
    network.wait_until_open("live=sse", 2)
    for bearer in (EVERYTHING, other):
        tabs.append(open_tab(visitor, "secret/room", options(bearer, 'share: "ada",')))
        wait_for(tabs[-1].page, 10)
    network.wait_until_open("live=sse", 3)
    refused = open_tab(visitor, "secret/room", options("none", 'share: "ada",'))
    refused.page.get_by_text("refuses with 401").wait_for()
    assert numbers(refused.page) == []
