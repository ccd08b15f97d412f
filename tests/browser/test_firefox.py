"""The recipes of docs/browser.md in Firefox: as in Chromium, they lose and double nothing, and know when to stop."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.browser.course import (
    RECIPES,
    REFUSED,
    Course,
    Reader,
    count_refused_requests,
    requests_after_close,
    run_course,
)
from tests.browser.firefox import Firefox
from tests.browser.network import Network
from tests.servers import Server
from tools.ensure_system import locate

pytestmark = pytest.mark.browser

ENVIRONMENT = {"DJANGO_SETTINGS_MODULE": "tests.browser.page_settings"}
EVENT_SOURCE_RETRY = 5.0
"""Seconds after which Firefox's `EventSource` asks again."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("uvicorn", entry_point="asgi", env=ENVIRONMENT) as server:
        yield server


@pytest.fixture(scope="module")
def readers(server: Server) -> Iterator[list[Reader]]:
    """A reader for each recipe. Each has an origin of its own."""
    program = locate("firefox")
    if program is None:
        pytest.fail("no Firefox on this machine: install the package firefox-esr")
    with contextlib.ExitStack() as stack:
        firefox = stack.enter_context(Firefox(program))
        yield [Reader(recipe, firefox.new_page(), stack.enter_context(Network(server.port))) for recipe in RECIPES]


@pytest.fixture(scope="module")
def course(readers: list[Reader], server: Server) -> Course:
    return run_course(readers, server, EVENT_SOURCE_RETRY)


@pytest.fixture(scope="module")
def requests_of_refused(course: Course, readers: list[Reader], server: Server) -> dict[tuple[str, int], int]:
    return count_refused_requests(readers, server, EVENT_SOURCE_RETRY)


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_message_is_shown_once_and_in_order(course: Course, recipe: str) -> None:
    assert course.numbers[recipe] == list(range(course.written))


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_is_asked_for_after_the_end(course: Course, recipe: str) -> None:
    assert course.requests_after_close[recipe] == requests_after_close(recipe)


@pytest.mark.parametrize("status", sorted(REFUSED))
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_refusal_is_final(requests_of_refused: dict[tuple[str, int], int], recipe: str, status: int) -> None:
    assert 1 <= requests_of_refused[recipe, status] <= 2
