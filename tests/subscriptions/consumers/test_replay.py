"""Replay and resume, and the command for both."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from django_durable_streams.consumers import Batch, Consumer, consumer
from django_durable_streams.management.streams import consumers as command
from django_durable_streams.models import Stream, Subscription, SubscriptionLink
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.subscriptions import registry
from django_durable_streams.subscriptions.consumers import cursors, declarations, replaying
from django_durable_streams.subscriptions.consumers.cursors import ClaimLost
from django_durable_streams.subscriptions.pending import look_at_unseen
from django_durable_streams.subscriptions.selection import Selection
from django_durable_streams.testing import run_consumers
from tests.store.test_isolation import elsewhere
from tests.subscriptions.steps import subscribe

pytestmark = pytest.mark.django_db


def several_writers(test: Any) -> Any:
    """Mark a test that needs a database with several writers, and transactions of its own."""
    is_sqlite = connection.vendor == "sqlite"
    return pytest.mark.django_db(transaction=True)(pytest.mark.skipif(is_sqlite, reason="one writer at a time")(test))


class Totals:
    """The effects of the consumer of these tests: a sum for each stream."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}
        self.fails = False

    def add(self, batch: Batch) -> None:
        self.sums[batch.stream] = self.sums.get(batch.stream, 0) + sum(batch.messages)

    def reset(self, paths: list[str]) -> None:
        if self.fails:
            raise RuntimeError("on purpose")
        for path in paths:
            self.sums.pop(path, None)


@pytest.fixture
def totals() -> Totals:
    return Totals()


@pytest.fixture
def summing(totals: Totals) -> Consumer:
    summing = consumer("s/*", name="sum")(totals.add)
    summing.reset(totals.reset)
    for number in (1, 2):
        stream = Stream.objects.create(path=f"s/{number}", content_type="application/json")
        stream.append_many([number, 10 * number])
    run_consumers()
    assert totals.sums == {"s/1": 11, "s/2": 22}
    return summing


def replay(*arguments: str, **options: Any) -> str:
    output = StringIO()
    call_command("streams", "replay", "sum", *arguments, "--no-input", "--no-wait", stdout=output, **options)
    return output.getvalue()


def command_output(*arguments: str) -> str:
    output = StringIO()
    call_command("streams", *arguments, stdout=output)
    return output.getvalue()


@pytest.mark.usefixtures("summing")
def test_a_replay_from_the_beginning_leads_to_the_same_effects(totals: Totals) -> None:
    output = replay("--from", "-1")
    assert "2 streams, with 10 bytes to handle, and calls its reset function" in output
    assert totals.sums == {}
    assert run_consumers() == 4
    assert totals.sums == {"s/1": 11, "s/2": 22}
    assert not Subscription.objects.get().is_paused
    assert not SubscriptionLink.objects.exclude(holder="").exists()


@pytest.mark.usefixtures("summing")
def test_only_the_named_streams_are_replayed(totals: Totals) -> None:
    replay("--from", "-1", "--streams", "s/2")
    assert totals.sums == {"s/1": 11}
    assert run_consumers() == 2
    assert totals.sums == {"s/1": 11, "s/2": 22}


@pytest.mark.usefixtures("summing")
def test_a_replay_from_an_offset_begins_behind_it(totals: Totals) -> None:
    stream = Stream.objects.get(path="s/1")
    replay("--from", stream.offset_at(2), "--streams", "s/1")
    run_consumers()
    assert totals.sums["s/1"] == 10
    with pytest.raises(CommandError, match="one stream"):
        replay("--from", "0000000000000000_0000000000000000")
    with pytest.raises(CommandError, match="offset"):
        replay("--from", stream.offset_at(2), "--streams", "s/2")
    with pytest.raises(CommandError, match="offset"):
        replay("--from", "nonsense")


@pytest.mark.usefixtures("summing")
def test_a_replay_from_now_leaves_out_what_is_pending(totals: Totals) -> None:
    Stream.objects.get(path="s/1").append(1000)
    replay("--from", "now", "--streams", "s/1")
    assert run_consumers() == 0
    assert totals.sums == {"s/2": 22}
    assert not SubscriptionLink.objects.filter(is_pending=True).exists()


@pytest.mark.usefixtures("summing")
def test_a_dry_run_changes_nothing(totals: Totals) -> None:
    output = replay("--from", "-1", "--dry-run", verbosity=2)
    assert "s/1: 5 bytes\ns/2: 5 bytes\n" in output
    assert run_consumers() == 0
    assert totals.sums == {"s/1": 11, "s/2": 22}


@pytest.mark.usefixtures("summing")
def test_a_reset_that_fails_changes_nothing(totals: Totals) -> None:
    totals.fails = True
    with pytest.raises(RuntimeError, match="on purpose"):
        replay("--from", "-1")
    assert run_consumers() == 0
    Stream.objects.get(path="s/1").append(1)
    assert run_consumers() == 1
    assert totals.sums == {"s/1": 12, "s/2": 22}


def test_no_worker_commits_or_begins_while_effects_are_taken_back(summing: Consumer, totals: Totals) -> None:
    Stream.objects.get(path="s/1").append(5)
    look_at_unseen("default")
    subscription_id = Subscription.objects.get().pk
    (link,) = cursors.claimable(subscription_id, "default", 0, 10)
    held = cursors.claim(link, 30, "default")
    assert held is not None
    Stream.objects.get(path="s/2").append(5)
    look_at_unseen("default")
    (free,) = cursors.claimable(subscription_id, "default", 0, 10)

    def check(paths: list[str]) -> None:
        with pytest.raises(ClaimLost):
            cursors.advance(held, 7, "default")
        assert cursors.claim(free, 30, "default") is None  # a worker that had seen it before
        assert cursors.claimable(subscription_id, "default", 0, 10) == []

    summing.reset(check)
    replay("--from", "-1")


def test_a_replay_that_was_killed_is_ended_by_a_resume(summing: Consumer, totals: Totals) -> None:
    replaying._hold(Subscription.objects.get(), "default")
    Stream.objects.get(path="s/1").append(1)
    assert run_consumers() == 0
    with pytest.raises(CommandError, match="Another replay"):
        replay("--from", "-1")
    call_command("streams", "resume", "sum", stdout=StringIO())
    assert run_consumers() == 1


def test_a_pause_that_comes_during_a_replay_stays(summing: Consumer, totals: Totals) -> None:
    summing.reset(lambda paths: call_command("streams", "pause", "sum", stdout=StringIO()))
    replay("--from", "-1")
    assert Subscription.objects.get().is_paused
    assert run_consumers() == 0


def test_a_replay_of_a_paused_consumer_leaves_it_paused(summing: Consumer, totals: Totals) -> None:
    assert command_output("pause", "sum") == "sum is paused.\n"
    assert command_output("pause", "sum") == "sum was paused already.\n"
    replay("--from", "-1")
    assert run_consumers() == 0
    assert command_output("resume", "sum") == "sum goes on with 0 streams.\n"
    assert run_consumers() == 4


def test_whoever_resumes_a_consumer_during_a_replay_ends_the_replay(summing: Consumer, totals: Totals) -> None:
    summing.reset(lambda paths: command_output("resume", "sum"))
    with pytest.raises(CommandError, match="during the replay"):
        replay("--from", "-1")
    assert run_consumers() == 0
    assert totals.sums == {"s/1": 11, "s/2": 22}


def test_a_worker_takes_no_stream_that_is_linked_during_a_replay(summing: Consumer) -> None:
    replaying._hold(Subscription.objects.get(), "default")
    Stream.objects.create(path="s/3", content_type="application/json", data=3)
    assert run_consumers() == 0
    assert command_output("resume", "sum") == "sum goes on with 0 streams.\n"
    assert run_consumers() == 1


def test_a_pause_is_not_ended_where_only_some_streams_are_resumed(summing: Consumer) -> None:
    command_output("pause", "sum")
    Stream.objects.get(path="s/1").append(1)
    command_output("resume", "sum", "--streams", "s/1")
    assert run_consumers() == 0
    command_output("resume", "sum")
    assert run_consumers() == 1


def test_who_has_a_stream_finishes_its_batch_when_the_consumer_is_paused(totals: Totals) -> None:
    @consumer("s/*", name="c", batch_size=1)
    def handle(batch: Batch) -> None:
        totals.add(batch)
        if batch.messages == [1]:
            command_output("pause", "c")

    for number in (1, 2):
        Stream.objects.create(path=f"s/{number}", content_type="application/json").append(number)
    run_consumers()
    assert totals.sums["s/1"] == 1
    assert Subscription.objects.get().is_paused
    command_output("resume", "c")
    run_consumers()
    assert totals.sums == {"s/1": 1, "s/2": 2}


def test_subscriptions_of_clients_are_paused_by_their_id() -> None:
    subscribe("mailer")
    with pytest.raises(CommandError, match="no consumer 'mailer'"):
        command_output("pause", "mailer")
    assert command_output("pause", "mailer", "--subscription") == "mailer is paused.\n"
    assert Subscription.objects.get().is_paused
    assert command_output("resume", "mailer", "--subscription") == "mailer goes on.\n"
    assert command_output("resume", "mailer", "--subscription") == "mailer was not paused.\n"
    with pytest.raises(CommandError, match="no subscription"):
        command_output("pause", "other", "--subscription")


@pytest.mark.usefixtures("summing")
def test_a_consumer_that_the_code_has_lost_can_be_paused() -> None:
    declarations._consumers.clear()
    assert command_output("pause", "sum") == "sum is paused.\n"
    assert command_output("resume", "sum") == "sum goes on with 0 streams.\n"


def resume() -> None:
    call_command("streams", "resume", "sum", stdout=StringIO())


@several_writers
@pytest.mark.parametrize("pending", [False, True])
def test_a_resume_during_a_replay_leaves_all_effects_as_they_were(
    summing: Consumer, totals: Totals, pending: bool
) -> None:
    """Workers go on in the middle of the replay, and what they do must not be set back."""
    if pending:
        Stream.objects.get(path="s/1").append(100)

    def resume_meanwhile(paths: list[str]) -> None:
        elsewhere(resume)
        elsewhere(run_consumers)

    summing.reset(resume_meanwhile)
    with pytest.raises(CommandError, match="resumed"):
        replay("--from", "-1")
    Stream.objects.get(path="s/2").append(1000)
    run_consumers()
    assert totals.sums == {"s/1": 111 if pending else 11, "s/2": 1022}
    assert not Subscription.objects.get().is_paused


@several_writers
def test_a_replay_that_was_resumed_does_not_end_another_one(summing: Consumer) -> None:
    def replace(paths: list[str]) -> None:
        elsewhere(resume)
        elsewhere(lambda: replaying._hold(Subscription.objects.get(), "default"))

    summing.reset(replace)
    with pytest.raises(CommandError, match="resumed"):
        replay("--from", "-1")
    Stream.objects.get(path="s/1").append(1)
    assert run_consumers() == 0


def test_a_stream_that_is_replaced_during_a_replay_is_handled_whole(summing: Consumer, totals: Totals) -> None:
    first = Stream.objects.get(path="s/1")
    offset = first.offset_at(2)

    def replace(paths: list[str]) -> None:
        totals.reset(paths)
        first.delete()
        Stream.objects.create(path="s/1", content_type="application/json").append_many([5, 6])

    summing.reset(replace)
    replay("--from", offset, "--streams", "s/1")
    run_consumers()
    assert totals.sums == {"s/1": 11, "s/2": 22}


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="one writer at a time")
def test_a_replay_succeeds_beside_writers_whose_transactions_begin_without_the_lock(totals: Totals) -> None:
    summing = consumer("s/*", name="sum")(totals.add)
    stream = Stream.objects.create(path="s/1", content_type="application/json")
    stream.append(1)
    run_consumers()

    def plan_and_write(*arguments: Any) -> Any:
        cursors = plan(*arguments)
        elsewhere(lambda: stream.append(2))
        return cursors

    plan = replaying.plan
    connection.transaction_mode = None  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(replaying, "plan", plan_and_write)
        assert replaying.replay(summing, Sentinel.START, Selection(), "default") == 1
    connection.close()


def test_a_stopped_stream_goes_on_when_it_is_resumed() -> None:
    handled: list[int] = []
    is_broken = True

    @consumer("s/*", name="c", on_failure="stop", max_attempts=1)
    def handle(batch: Batch) -> None:
        if is_broken:
            raise RuntimeError
        handled.extend(batch.messages)

    for number in (1, 2):
        Stream.objects.create(path=f"s/{number}", content_type="application/json").append(number)
    run_consumers(raise_errors=False)
    assert run_consumers() == 0
    is_broken = False
    output = StringIO()
    call_command("streams", "resume", "c", "--streams", "s/2", stdout=output)
    assert output.getvalue() == "c goes on with 1 streams.\n"
    assert run_consumers() == 1
    assert handled == [2]
    call_command("streams", "resume", "c", stdout=output)
    assert run_consumers() == 1
    assert handled == [2, 1]


@pytest.mark.usefixtures("summing")
def test_the_command_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    with pytest.raises(CommandError, match="Nothing was changed"):
        call_command("streams", "replay", "sum", "--from", "-1", stdout=StringIO())
    assert run_consumers() == 0


@pytest.mark.usefixtures("summing")
def test_the_command_follows_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PROGRESS_SECONDS", 0)
    pages = iter([60, 60, 30, 0])
    monkeypatch.setattr(command, "unhandled_bytes", lambda *arguments: next(pages))
    output = StringIO()
    call_command("streams", "replay", "sum", "--from", "-1", "--no-input", stdout=output)
    assert output.getvalue().splitlines()[2:] == [
        "50 %, 30 bytes left",
        "100 %, 0 bytes left",
        "All messages are handled.",
    ]


@pytest.mark.usefixtures("summing")
def test_the_command_does_not_wait_for_workers_that_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PROGRESS_SECONDS", 0)
    monkeypatch.setattr(command, "IDLE_SECONDS", 0)
    output = StringIO()
    call_command("streams", "replay", "sum", "--from", "-1", "--no-input", stdout=output)
    assert "Is manage.py streams_worker running?" in output.getvalue()


def test_a_consumer_that_never_ran_or_does_not_exist_is_refused() -> None:
    consumer("s/*", name="c")(lambda batch: None)
    with pytest.raises(CommandError, match="No worker has run"):
        call_command("streams", "replay", "c", "--from", "-1")
    with pytest.raises(CommandError, match="no consumer 'x'"):
        call_command("streams", "resume", "x")


@pytest.mark.usefixtures("summing")
def test_the_cursors_of_a_consumer_that_the_code_has_lost_are_deleted() -> None:
    with pytest.raises(CommandError, match="still has"):
        call_command("streams", "delete", "--consumer", "sum")
    declarations._consumers.clear()
    output = StringIO()
    call_command("streams", "delete", "--consumer", "sum", stdout=output)
    assert output.getvalue() == "The cursors of sum are deleted.\n"
    while registry.delete_remains("default"):
        pass
    assert not Subscription.objects.exists()
    assert not SubscriptionLink.objects.exists()
    with pytest.raises(CommandError, match="no subscription"):
        call_command("streams", "delete", "--consumer", "sum")
