"""Offsets in long chains of forks, whose rows do not list every range: each reader gets the tokens of the sources."""

import pytest

from django_durable_streams.api import transactions
from django_durable_streams.models import Stream
from django_durable_streams.protocol import offsets
from django_durable_streams.store.operations import Append, Create, Fork
from django_durable_streams.store.read import lineage

TEXT = "text/plain"
DEPTH = 2 * lineage.WIDTH + 10

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tokens() -> list[str]:
    """A chain of forks, each with an append of its own, and the offset behind each append as its stream had it."""
    transactions.apply(Create("s0", TEXT, data=b"0,"), "default")
    tokens = [Stream.objects.get(path="s0").next_offset]
    for number in range(1, DEPTH):
        transactions.apply(Create(f"s{number}", None, fork=Fork(f"s{number - 1}")), "default")
        transactions.apply(Append(f"s{number}", TEXT, b"%d," % number), "default")
        tokens.append(Stream.objects.get(path=f"s{number}").next_offset)
    return tokens


def test_a_fork_has_the_offsets_of_all_its_sources(tokens: list[str]) -> None:
    last = Stream.objects.get(path=f"s{DEPTH - 1}")
    assert lineage.has_runs(last.lineage)
    whole = "".join(f"{number}," for number in range(DEPTH))
    for number, token in enumerate(tokens):
        offset = offsets.decode(token)
        assert isinstance(offset, offsets.Offset)
        assert last.offset_at(offset.position) == token
        assert "".join(last.read(token)) == whole[offset.position :]
        pages = list(last.tail(token, timeout=0))
        assert "".join(message for page in pages for message in page) == whole[offset.position :]
        if pages:
            assert pages[-1].next_offset == tokens[-1]
        assert last.fork(f"again{number}", offset=token).next_offset == token


def test_offsets_are_those_of_the_sources_in_the_middle_of_a_read(
    tokens: list[str], settings: pytest.FixtureRequest
) -> None:
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "PAGE_BYTES": 10}  # type: ignore[attr-defined]
    last = Stream.objects.get(path=f"s{DEPTH - 1}")
    pages = list(last.tail(timeout=0))
    assert len(pages) > 10
    assert {page.next_offset for page in pages} <= set(tokens)
    assert "".join(message for page in pages for message in page) == "".join(f"{number}," for number in range(DEPTH))
