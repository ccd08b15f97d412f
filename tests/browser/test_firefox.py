"""The recipes of docs/browser.md in Firefox: as in Chromium, they lose and double nothing, and know when to stop."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.browser.course import RECIPES, Reader, RecipeTests
from tests.browser.firefox import Firefox
from tests.browser.network import Network
from tests.servers import Server
from tools.ensure_system import locate

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(page_server: Server) -> Server:
    return page_server


@pytest.fixture(scope="module")
def readers(server: Server) -> Iterator[list[Reader]]:
    """A reader for each recipe. Each has an origin of its own."""
    program = locate("firefox")
    if program is None:
        pytest.fail("no Firefox on this machine: install the package firefox-esr")
    with contextlib.ExitStack() as stack:
        firefox = stack.enter_context(Firefox(program))
        yield [Reader(recipe, firefox.new_page(), stack.enter_context(Network(server.port))) for recipe in RECIPES]


class TestRecipes(RecipeTests):
    retry_seconds = 5.0
