"""A cache in front answers many readers with few requests, with the configuration of docs/deployment/cdn.md."""

from benchmarks import cdn

READERS = 100
APPENDS = 4
PAGES = cdn.APPENDS_BEFORE * cdn.APPEND_BYTES // (16 * 1024) + 1


def test_the_servers_get_one_request_for_many_readers() -> None:
    caught_up, followed, waited = cdn.run(READERS, APPENDS, long_poll_timeout=2.0)
    assert caught_up.requests >= READERS * (PAGES - 1)
    assert PAGES - 1 <= caught_up.reached <= 2 * PAGES
    assert followed.requests >= READERS * APPENDS
    assert APPENDS <= followed.reached <= 3 * APPENDS
    assert waited.requests >= READERS * cdn.TIMEOUTS
    assert cdn.TIMEOUTS <= waited.reached <= 4 * cdn.TIMEOUTS
