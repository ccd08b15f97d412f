"""The end of a server ends the readers that wait for a chat, as it ends all live readers."""

import httpx
import pytest

from tests.servers import Kind, Server

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn"])
def test_a_reader_of_a_chat_that_is_not_there_ends_with_its_server(kind: Kind) -> None:
    """The server waited for it, for up to SSE_DURATION."""
    env = {"DJANGO_SETTINGS_MODULE": "tests.ai.serving"}
    with Server(kind, env=env) as server:
        url = f"{server.base_url}/api/tanstack/c1/stream?offset=-1&live=sse"
        with httpx.stream("GET", url, timeout=60) as response:
            pieces = response.iter_text()
            assert "upToDate" in next(pieces)
            assert server.process is not None
            server.process.terminate()
            assert [*pieces] in ([], [": keep-alive\n\n"])  # a whole response: the server has not cut it off
