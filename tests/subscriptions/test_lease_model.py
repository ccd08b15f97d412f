"""Random programs of appends, wakes, acknowledgements, failures and lost time, compared with a model of leases."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from django.db import transaction
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from django_durable_streams import clock
from django_durable_streams.models import Stream, Subscription
from django_durable_streams.protocol.offsets import Sentinel, decode
from django_durable_streams.protocol.subscriptions import Ack, SubscriptionError, WakeRequest
from django_durable_streams.store.upkeep import removal
from django_durable_streams.subscriptions import due, leases, operating, outcomes
from django_durable_streams.subscriptions.leases import Wake
from django_durable_streams.subscriptions.selection import Selection
from tests.examples import enough
from tests.subscriptions.model import ModelStream, ModelSubscription
from tests.subscriptions.steps import USING, Clock, stream, subscribe, wakes

PATHS = st.sampled_from([f"events/{name}" for name in "abc"])
LEASE = 30.0


class Leases(RuleBasedStateMachine):
    """A subscription by webhook, and one by pull-wake. Both follow the same streams."""

    def __init__(self) -> None:
        super().__init__()
        self._transaction = transaction.atomic()
        self._transaction.__enter__()
        self._now, self._real_now = Clock(), clock.now
        clock.now = self._now
        self._numbers = count(1)
        self._streams: dict[str, ModelStream] = {}
        self._models = {"s": ModelSubscription(LEASE), "p": ModelSubscription(LEASE)}
        self._wakes: list[Wake] = []
        self._claims: list[tuple[int, str, str]] = []
        subscribe("s", "events/*")
        subscribe("p", "events/*", kind="pull-wake")

    def teardown(self) -> None:
        clock.now = self._real_now
        transaction.set_rollback(True)
        self._transaction.__exit__(None, None, None)

    @property
    def now(self) -> datetime:
        return self._now.moment

    # Streams.

    @rule(path=PATHS, data=st.sampled_from([b"", b"x", b"xyz"]), looks=st.booleans())
    def append(self, path: str, data: bytes, looks: bool) -> None:
        """Append, or create the stream with the data."""
        self.add(path, data)
        if looks:
            self.look()

    def add(self, path: str, data: bytes) -> None:
        present = self._streams.get(path)
        if present is None:
            stream(path, data)
            self._streams[path] = ModelStream(next(self._numbers), len(data))
        elif data:
            Stream.objects.get(path=path).append(data)
            present.tail += len(data)

    @precondition(lambda self: self._streams)
    @rule(data=st.data(), again=st.booleans(), purges=st.booleans())
    def delete(self, data: st.DataObject, again: bool, purges: bool) -> None:
        """Delete a stream, and perhaps create another one at its path, before or after the purge."""
        path = data.draw(st.sampled_from(sorted(self._streams)))
        Stream.objects.get(path=path).delete()
        del self._streams[path]
        if again:
            self.add(path, b"xy")
        while purges and removal.purge(USING):
            pass

    @rule(seconds=st.sampled_from([1, 10, LEASE - 1, LEASE, 120]), looks=st.booleans())
    def wait(self, seconds: float, looks: bool) -> None:
        self._now.move(seconds)
        if looks:
            self.look()

    # The delivery.

    def look(self) -> None:
        """Everything that is due begins, with the next generation and all that is pending, and nothing else."""
        begun = {wake.subscription.name: wake for wake in wakes()}
        for name, model in self._models.items():
            pending = model.pending(self._streams)
            if not model.is_due(self.now) or not pending:
                assert name not in begun
                if model.is_due(self.now):
                    model.succeed()
                continue
            if name == "s" and model.is_awake and not model.is_counted:
                expected = model.waits_after_silence(self.now)
                model.failures += 1
                assert expected is None or expected == (name not in begun)
                if name not in begun:
                    self.wait_for_retry(name)
                    continue
            wake = begun[name]
            is_repeated = name == "p" and model.is_awake and not model.is_claimed
            if not is_repeated:
                model.begin()
            if name == "s":
                model.lease_ends_at = model.next_look_at = self.now + timedelta(seconds=LEASE)
            else:
                model.lease_ends_at = None
                model.next_look_at = self.now + timedelta(seconds=due.NOTICE_SECONDS)
            assert wake.subscription.generation == model.generation
            assert {link.path: (position(link.acked_offset), link.tail) for link in wake.pending} == pending
            self._wakes.append(wake)

    def wait_for_retry(self, name: str) -> None:
        scheduled = Subscription.objects.get(name=name).next_attempt_at
        assert scheduled is not None
        self._models[name].rest()
        self._models[name].next_look_at = clock.from_project(scheduled)

    @precondition(lambda self: self._wakes)
    @rule(data=st.data(), outcome=st.sampled_from(["done", "done", "accepted", "failed", "unknown"]))
    def deliver(self, data: st.DataObject, outcome: str) -> None:
        """A delivery ends, also one of an earlier wake."""
        wake = data.draw(st.sampled_from(self._wakes[-2:]))
        name = wake.subscription.name or ""
        model = self._models[name]
        is_present = model.is_awake and model.generation == wake.subscription.generation
        if outcome == "done" and name == "s":
            outcomes.finish_delivery(wake, USING)
            if is_present:
                for link in wake.pending:
                    present = self._streams.get(link.path)
                    if present is not None and Stream.objects.get(path=link.path).pk == link.stream_id:
                        model.cursors[present.number] = max(model.cursors.get(present.number, 0), link.tail)
                model.succeed()
        elif outcome in ("done", "accepted"):
            outcomes.confirm_delivery(wake, USING)
            if is_present:
                model.failures = model.failures if name == "s" else 0
                model.next_look_at = model.lease_ends_at
                if name == "p" and not model.is_claimed:
                    reminded_at = Subscription.objects.get(name=name).due_at
                    assert reminded_at is not None
                    model.next_look_at = clock.from_project(reminded_at)
                    assert model.next_look_at >= self.now + timedelta(seconds=48)
        else:
            is_certain = outcome == "failed" or name == "p"
            outcomes.fail_delivery(wake, outcome, USING, is_certain=is_certain)
            if is_present and not model.is_claimed:
                model.failures += 1
                model.is_counted = True
                if is_certain:
                    self.wait_for_retry(name)
                    return
                scheduled = Subscription.objects.get(name=name).next_attempt_at
                assert scheduled is not None
                assert model.lease_ends_at is None or clock.from_project(scheduled) >= model.lease_ends_at
                model.next_look_at = clock.from_project(scheduled)

    # Receivers and workers.

    @precondition(lambda self: any(wake.subscription.name == "s" for wake in self._wakes))
    @rule(data=st.data(), done=st.booleans())
    def call_back(self, data: st.DataObject, done: bool) -> None:
        own = [wake for wake in self._wakes if wake.subscription.name == "s"]
        wake = data.draw(st.sampled_from(own[-3:]))
        subscription = wake.subscription
        self.acknowledge(data, "s", (subscription.generation, subscription.wake_id, wake.token), leases.callback, done)

    @precondition(lambda self: self._streams)
    @rule()
    def claim(self) -> None:
        model = self._models["p"]
        is_held = model.is_claimed and model.lease_runs(self.now)
        has_work = model.pending(self._streams) and not model.is_paused
        expected = "ALREADY_CLAIMED" if is_held else "" if has_work else "NO_PENDING_WORK"
        code, claimed = outcome_of(leases.claim, "p", "worker")
        assert code == expected
        if code:
            return
        if not model.is_awake or model.is_claimed:
            model.begin()
        model.is_claimed = True
        model.failures = 0
        model.lease_ends_at = model.next_look_at = self.now + timedelta(seconds=LEASE)
        assert claimed["generation"] == model.generation
        self._claims.append((claimed["generation"], claimed["wake_id"], claimed["token"]))

    @precondition(lambda self: self._claims)
    @rule(data=st.data(), done=st.booleans())
    def work(self, data: st.DataObject, done: bool) -> None:
        self.acknowledge(data, "p", data.draw(st.sampled_from(self._claims[-3:])), leases.ack, done)

    @precondition(lambda self: self._claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        generation, wake_id, token = data.draw(st.sampled_from(self._claims[-3:]))
        model = self._models["p"]
        is_present = model.is_claimed and model.generation == generation and model.lease_runs(self.now)
        code, _ = outcome_of(leases.release, "p", token, WakeRequest(wake_id, generation, (), False))
        assert code == ("" if is_present else "FENCED")
        if is_present:
            model.succeed()

    def acknowledge(
        self, data: st.DataObject, name: str, wake: tuple[int, str, str], send: Callable[..., bool], done: bool
    ) -> None:
        """Acknowledge a position of one stream, or of none, for a wake that may be an earlier one."""
        generation, wake_id, token = wake
        model = self._models[name]
        path = data.draw(st.sampled_from([*sorted(self._streams), ""]))
        present = self._streams.get(path)
        acks: tuple[Ack, ...] = ()
        at = 0
        if present is not None:
            at = data.draw(st.integers(0, present.tail))
            acks = (Ack(path, decode(Stream.objects.get(path=path).offset_at(at))),)
        is_present = model.is_awake and model.generation == generation and model.lease_runs(self.now)
        goes_back = present is not None and at < model.cursors.get(present.number, 0)
        expected = "FENCED" if not is_present else "INVALID_OFFSET" if goes_back else ""
        code, has_more = outcome_of(send, name, token, WakeRequest(wake_id, generation, acks, done))
        assert code == expected
        if code:
            return
        if present is not None:
            model.cursors[present.number] = at
        model.failures, model.is_counted = 0, False
        if done:
            model.succeed()
            assert has_more == (bool(model.pending(self._streams)) and not model.is_paused)
        else:
            model.lease_ends_at = model.next_look_at = self.now + timedelta(seconds=LEASE)

    # Operators.

    @rule(name=st.sampled_from("sp"))
    def pause(self, name: str) -> None:
        model = self._models[name]
        assert operating.pause(name, USING) == (not model.is_paused)
        model.is_paused = True

    @rule(name=st.sampled_from("sp"))
    def resume(self, name: str) -> None:
        model = self._models[name]
        assert operating.resume(name, USING) == model.is_paused
        is_unclaimed = name == "p" and model.is_awake and not model.is_claimed
        if model.is_paused and (model.next_look_at is None or is_unclaimed):
            model.next_look_at = self.now
        model.is_paused = False

    @rule(name=st.sampled_from("sp"))
    def retry(self, name: str) -> None:
        if operating.retry(name, USING):
            self._models[name].succeed()
            self._models[name].next_look_at = self.now

    @rule(name=st.sampled_from("sp"), start=st.sampled_from([Sentinel.START, Sentinel.NOW]))
    def reset(self, name: str, start: Sentinel) -> None:
        model = self._models[name]
        assert operating.set_cursors(name, start, Selection(), USING) == len(self._streams)
        for one in self._streams.values():
            model.cursors.pop(one.number, None)
            if start is Sentinel.NOW:
                model.cursors[one.number] = one.tail
        if self._streams:
            model.succeed()
            model.next_look_at = self.now

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        for name, model in self._models.items():
            row = Subscription.objects.get(name=name)
            assert (row.generation, bool(row.wake_id)) == (model.generation, model.is_awake)
            assert row.failures == model.failures
            assert (bool(row.holder), row.is_paused) == (model.is_claimed, model.is_paused)
            paths = {stream.pk: path for stream in Stream.objects.filter(path__isnull=False) if (path := stream.path)}
            cursors = {
                paths[link.stream_id]: link.acked_position or 0 for link in row.links.all() if link.stream_id in paths
            }
            assert cursors == {path: model.cursors.get(one.number, 0) for path, one in self._streams.items()}


def outcome_of(function: Callable[..., Any], *args: object) -> tuple[str, Any]:
    """Call a function, and return the code of its error, or nothing and its value."""
    try:
        return "", function(*args, USING)
    except SubscriptionError as error:
        return error.error_code, None


def position(offset: str) -> int | None:
    return None if offset == "-1" else int(offset.partition("_")[2])


@pytest.mark.django_db
def test_random_programs_do_what_the_model_does() -> None:
    run_state_machine_as_test(Leases, settings=settings(max_examples=enough(25), stateful_step_count=50, deadline=None))
