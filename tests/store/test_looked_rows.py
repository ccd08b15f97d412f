"""A look of subscriptions at a stream leaves the committer's cached row valid, and hides no other change of the row."""

from collections.abc import Callable

import pytest
from django.db import connection, transaction

from django_durable_streams.api import transactions
from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.models.stream import LinkState
from django_durable_streams.protocol.errors import ProducerFenced, StreamClosed, StreamNotFound
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.operations import Append, Appended, Create, Delete, Operation, TakeOver
from django_durable_streams.store.write import linking
from django_durable_streams.subscriptions import pending
from tests.store.test_row_cache import CommitterConnection, elsewhere
from tests.subscriptions.steps import USING, subscribe

TEXT, PATH = "text/plain", "events/a"

pytestmark = pytest.mark.django_db(transaction=True)


def append(seq: int | None = None, data: bytes = b"x", close: bool = False) -> Append:
    claim = None if seq is None else ProducerClaim("p", 0, seq)
    return Append(PATH, TEXT, data, close=close, producer=claim)


@pytest.fixture
def committer() -> CommitterConnection:
    linking._cached.clear()
    subscribe(pattern="events/*")
    committer = CommitterConnection()
    committer.apply(Create(PATH, TEXT))
    committer.apply(append(0))
    assert link_state() == LinkState.UNSEEN
    return committer


def link_state() -> int | None:
    return Stream.objects.get(path=PATH).link_state


def look() -> None:
    pending.look_at_unseen(USING)
    assert link_state() != LinkState.UNSEEN


def do(operation: Operation) -> Callable[[], object]:
    return lambda: transactions.apply(operation, USING)


def together(*steps: Callable[[], object]) -> Callable[[], object]:
    """Return the steps as one transaction of a caller."""

    def work() -> None:
        with transaction.atomic():
            for step in steps:
                step()

    return work


def by_hand() -> None:
    """Change what only the database knows, past everything, as an administrator would."""
    Stream.objects.unguarded().filter(path=PATH).update(closed=True)


TAKE_OVER, CLOSE, DELETE = do(TakeOver(PATH, "p")), do(append(close=True, data=b"")), do(Delete(PATH))


@pytest.mark.parametrize("looks", [["before"], ["after"], ["before", "after"], ["within"], ["within", "after"]])
@pytest.mark.parametrize(
    ("change", "error"),
    [(TAKE_OVER, ProducerFenced), (CLOSE, StreamClosed), (DELETE, StreamNotFound), (by_hand, StreamClosed)],
    ids=["take-over", "close", "delete", "by hand"],
)
def test_no_change_beside_a_look_is_missed(
    committer: CommitterConnection, change: Callable[[], object], error: type[Exception], looks: list[str]
) -> None:
    if "before" in looks:
        elsewhere(look)
    within = [lambda: pending.look_at_unseen(USING)] if "within" in looks else []
    elsewhere(together(*within, change))
    if "after" in looks:
        elsewhere(lambda: pending.look_at_unseen(USING))
    (outcome,) = committer.apply(append(1))
    assert isinstance(outcome, error), outcome


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_producer_goes_on_after_looks(committer: CommitterConnection, rounds: int) -> None:
    for seq in range(1, rounds + 1):
        elsewhere(look)
        first, repeated = committer.apply(append(seq), append(seq))
        assert isinstance(first, Appended)
        assert isinstance(repeated, Appended)
        assert (first.tail, first.duplicate, repeated.duplicate) == (seq + 1, False, True)
        assert link_state() == LinkState.UNSEEN


def test_a_look_that_finds_no_link_lets_the_committer_read(committer: CommitterConnection) -> None:
    SubscriptionLink.objects.unguarded().delete()
    elsewhere(look)
    assert link_state() is None
    committer.apply(append(1))
    assert link_state() is None  # or each append would need another look for ever


def test_a_link_that_is_added_after_a_look_is_kept(committer: CommitterConnection) -> None:
    SubscriptionLink.objects.unguarded().delete()
    elsewhere(look)
    elsewhere(lambda: subscribe("late", "", PATH))
    committer.apply(append(1))
    assert link_state() == LinkState.UNSEEN


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only its rows have versions")
def test_a_look_that_is_rolled_back_leaves_no_note(committer: CommitterConnection) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    def work() -> None:
        with pytest.raises(ZeroDivisionError):
            together(lambda: pending.look_at_unseen(USING), fail)()

    elsewhere(work)
    assert Stream.objects.filter(version_before_look=None, version_after_look=None).count() == Stream.objects.count()
    elsewhere(TAKE_OVER)
    assert isinstance(committer.apply(append(1))[0], ProducerFenced)
