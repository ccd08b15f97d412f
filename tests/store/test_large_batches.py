"""Batches with more data than a database takes in one statement."""

import random

import pytest

from django_durable_streams.models import Chunk
from django_durable_streams.store.operations import Append, Appended, Create
from django_durable_streams.store.write import group_commit

pytestmark = pytest.mark.django_db

BINARY = "application/octet-stream"


def test_many_large_appends_in_one_batch_are_all_stored() -> None:
    data = random.Random(1).randbytes(300_000)
    paths = [f"large/{number}" for number in range(100)]
    group_commit.apply([Create(path, BINARY) for path in paths], "default")
    outcomes, _ = group_commit.apply([Append(path, BINARY, data) for path in paths], "default")
    assert {type(outcome) for outcome in outcomes} == {Appended}
    stored = Chunk.objects.filter(stream__path__startswith="large/").values_list("stream__path", "data")
    assert {path: bytes(stored_data) == data for path, stored_data in stored} == dict.fromkeys(paths, True)
