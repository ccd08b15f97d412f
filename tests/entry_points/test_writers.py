"""Many writers at once over real connections: every offset that is handed out is true."""

from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.entry_points.probed import ProbedServer

WRITERS = 15
APPENDS = 10
TEXT = {"Content-Type": "text/plain"}


def test_every_offset_is_unique_and_leads_to_exactly_what_follows(served: ProbedServer) -> None:
    path = served.create()

    def write(writer: int) -> list[tuple[str, bytes]]:
        appends = []
        with httpx.Client(timeout=30) as client:
            for number in range(APPENDS):
                message = b"<%d:%d:%b>" % (writer, number, b"x" * (writer * number % 50))
                response = client.post(served.url(path), content=message, headers=TEXT)
                assert response.status_code == 204
                appends.append((response.headers["Stream-Next-Offset"], message))
        return appends

    with ThreadPoolExecutor(WRITERS) as pool:
        appends = sorted(append for written in pool.map(write, range(WRITERS)) for append in written)
    assert len({offset for offset, _ in appends}) == WRITERS * APPENDS
    messages = [message for _, message in appends]
    with httpx.Client(timeout=30) as client:
        assert client.get(served.url(path), params={"offset": "-1"}).content == b"".join(messages)
        for number, (offset, _) in enumerate(appends, 1):
            read = client.get(served.url(path), params={"offset": offset})
            assert read.content == b"".join(messages[number:])


def test_nothing_follows_the_append_that_closes(served: ProbedServer) -> None:
    path = served.create()

    def write(writer: int) -> list[bytes]:
        taken: list[bytes] = []
        with httpx.Client(timeout=30) as client:
            for number in range(1000):
                message = b"<%d:%d>" % (writer, number)
                response = client.post(served.url(path), content=message, headers=TEXT)
                if response.status_code == 409:
                    assert response.headers["Stream-Closed"] == "true"
                    return taken
                assert response.status_code == 204
                taken.append(message)
        raise AssertionError("the stream was never closed")

    def close() -> str:
        with httpx.Client(timeout=30) as client:
            # In the middle of the others' work, not before it.
            while len(client.get(served.url(path)).content) < 200:
                pass
            response = client.post(served.url(path), content=b"<end>", headers={**TEXT, "Stream-Closed": "true"})
            assert response.status_code == 204
            return response.headers["Stream-Next-Offset"]

    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write, writer) for writer in range(WRITERS - 1)]
        end = pool.submit(close).result()
        taken = [message for future in writing for message in future.result()]
    read = httpx.get(served.url(path), params={"offset": "-1"})
    assert read.headers["Stream-Closed"] == "true"
    assert read.headers["Stream-Next-Offset"] == end
    assert read.content.endswith(b"<end>")
    assert sorted(read.content.removesuffix(b"<end>").replace(b"><", b">|<").split(b"|")) == sorted(taken)
