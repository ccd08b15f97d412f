"""Batches with more data than a database takes in one statement."""

import random
from collections.abc import Iterator

import pytest
from django.db import connection

from django_durable_streams.models import Chunk
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.operations import Append, Appended, Create
from django_durable_streams.store.write import group_commit

pytestmark = pytest.mark.django_db

BINARY = "application/octet-stream"
MIB = 1024 * 1024


def test_many_large_appends_in_one_batch_are_all_stored() -> None:
    data = random.Random(1).randbytes(300_000)
    paths = [f"large/{number}" for number in range(100)]
    group_commit.apply([Create(path, BINARY) for path in paths], "default")
    outcomes, _ = group_commit.apply([Append(path, BINARY, data) for path in paths], "default")
    assert {type(outcome) for outcome in outcomes} == {Appended}
    stored = Chunk.objects.filter(stream__path__startswith="large/").values_list("stream__path", "data")
    assert {path: bytes(stored_data) == data for path, stored_data in stored} == dict.fromkeys(paths, True)


BODIES = {
    "zeros": bytes(12 * MIB),
    "quotes": b'"' * (9 * MIB),
    "random": random.Random(1).randbytes(15 * MIB),
    "lines of JSON": b'{"role":"user","parts":[{"type":"text","text":"it\'s\\n"}]}\n' * (12 * MIB // 58),
    "the longest": b"\\" * 16 * MIB,
    "text": b"x" * 16 * MIB,
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.slow
def test_a_large_body_is_stored_whatever_its_bytes_are(kind: str) -> None:
    """Drivers of MySQL and MariaDB write some bytes as two, so that a statement may be twice as long as the body."""
    body = BODIES[kind]
    group_commit.apply([Create("a", BINARY, data=b"before"), Create("b", BINARY, data=body)], "default")
    outcomes, _ = group_commit.apply(
        [Append("a", BINARY, body, producer=ProducerClaim("p", 0, 0)), Append("b", BINARY, b"behind")], "default"
    )
    assert {type(outcome) for outcome in outcomes} == {Appended}
    chunks = Chunk.objects.order_by("end").values_list("stream__path", "data")
    stored = {path: b"".join(bytes(data) for owner, data in chunks if owner == path) for path in ("a", "b")}
    assert stored["a"] == b"before" + body
    assert stored["b"] == body + b"behind"


@pytest.fixture
def small_packets(transactional_db: None) -> Iterator[None]:
    """Let the server take statements of 1 MiB from new connections."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        (usual,) = cursor.fetchone()
        cursor.execute("SET GLOBAL max_allowed_packet = %s", [MIB])
    connection.close()
    yield
    with connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = %s", [usual])
    connection.close()


ZEROS = bytes(MIB)
SMALL = {
    "one body as long as a statement": [("a", ZEROS)],
    "one body that the driver makes longer": [("a", ZEROS[:600_000])],
    "many streams": [(path, ZEROS[:300_000]) for path in "abcdef"],
    "one stream": [("a", ZEROS[:500_000])] * 5,
    "short behind long": [("a", ZEROS), ("b", b"short"), ("c", b"x" * MIB)],
}


@pytest.mark.skipif(connection.vendor != "mysql", reason="other databases take longer statements")
@pytest.mark.parametrize("kind", SMALL)
def test_a_server_that_takes_short_statements_stores_bodies_of_their_length(small_packets: None, kind: str) -> None:
    contents: dict[str, bytes] = {}
    for path, body in SMALL[kind]:
        contents[path] = contents.get(path, b"") + body
    group_commit.apply([Create(path, BINARY) for path in contents], "default")
    outcomes, _ = group_commit.apply([Append(path, BINARY, body) for path, body in SMALL[kind]], "default")
    assert {type(outcome) for outcome in outcomes} == {Appended}
    stored = Chunk.objects.order_by("end").values_list("stream__path", "data")
    assert {path: b"".join(bytes(data) for owner, data in stored if owner == path) for path in contents} == contents
