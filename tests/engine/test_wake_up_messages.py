"""Wake-up messages: readers get the data of the database, whatever arrives on the channel of their stream."""

import asyncio
import logging
import time
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import msgspec
import pytest
from django.db import DatabaseError, connection
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.engine import Engine, engine_for
from django_durable_streams.engine.hub import Hub
from django_durable_streams.engine.wakeup import signing
from django_durable_streams.engine.wakeup.base import WakeUpMessage
from django_durable_streams.engine.wakeup.redis import encode
from django_durable_streams.engine.wakeup.signing import MessageSigner, SignerLoader
from django_durable_streams.engine.wakeup.subscriber import _read
from django_durable_streams.models import DatabaseIdentity, Stream
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.runtime import log_once
from django_durable_streams.store.database_identity import LocatedIdentity, identity, located_identity
from django_durable_streams.store.operations import Append, Commit, Create
from tests.server.waiting import elsewhere, until

TEXT = "text/plain"
CHANNEL = MessageSigner("p", "", "a").channel(7)


def commit(data: bytes = b"abc") -> Commit:
    return Commit(7, "a", TEXT, 5, 5 + len(data), False, appends=[data], ends=[5 + len(data)], generation=9)


class TestSignatures:
    def test_a_signed_message_is_read(self) -> None:
        signer = MessageSigner("p", "", "a")
        message = signer.sign(CHANNEL, encode(commit()))
        received = _read(signer, CHANNEL, message)
        assert received is not None
        assert 0 <= time.time() - received.sent_at / 1e6 < 60
        assert received._replace(sent_at=0) == WakeUpMessage(9, 5, 8, False, False, b"abc", [8])
        assert signer.stream_id(CHANNEL) == 7

    @pytest.mark.parametrize(("database", "secret"), [("b", "x"), ("a", "y")])
    def test_a_message_of_another_database_or_project_is_ignored(
        self, settings: Any, caplog: pytest.LogCaptureFixture, database: str, secret: str
    ) -> None:
        settings.SECRET_KEY = "x"
        signer = MessageSigner("p", "", "a")
        settings.SECRET_KEY = secret
        other = MessageSigner("p", "", database)
        for _ in range(3):
            assert _read(signer, CHANNEL, other.sign(CHANNEL, encode(commit()))) is None
        assert len(caplog.records) == 1  # there may be thousands
        assert "identity of its own" in caplog.text

    def test_a_message_of_another_server_of_the_same_location_is_only_a_reason_to_query(self) -> None:
        """Copies of all files of a server have one location. The servers were started at different times."""
        first, second = MessageSigner("p", "", "a", "1"), MessageSigner("p", "", "a", "2")
        assert first.channel(7) == second.channel(7)
        for sender, receiver in ((first, second), (second, first)):
            received = _read(receiver, CHANNEL, sender.sign(CHANNEL, encode(commit())))
            assert received is not None
            assert (received.data, received.removed) == (None, True)
        received = _read(first, CHANNEL, first.sign(CHANNEL, encode(commit())))
        assert received is not None
        assert (received.data, received.removed) == (b"abc", False)

    def test_databases_have_channels_of_their_own(self) -> None:
        channels = {MessageSigner(*names).channel(7) for names in (("p", "", "a"), ("p", "", "b"), ("p", "1", "a"))}
        assert len(channels) == 3
        assert MessageSigner("p", "", "b").stream_id(CHANNEL) is None

    def test_a_key_that_is_being_replaced_still_counts(self, settings: Any) -> None:
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "old", []
        old = MessageSigner("p", "", "a")
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["older", "old"]
        new = MessageSigner("p", "", "a")
        assert _read(new, CHANNEL, old.sign(CHANNEL, encode(commit()))) is not None
        assert _read(old, CHANNEL, new.sign(CHANNEL, encode(commit()))) is None
        assert _read(new, CHANNEL, new.sign(CHANNEL, encode(commit()))) is not None

    def test_a_message_about_one_stream_is_not_valid_for_another(self) -> None:
        signer = MessageSigner("p", "", "a")
        assert _read(signer, signer.channel(8), signer.sign(CHANNEL, encode(commit()))) is None

    @given(st.one_of(st.binary(), st.integers(), st.text(), st.none()))
    def test_garbage_is_ignored(self, message: object) -> None:
        assert _read(MessageSigner("p", "", "a"), CHANNEL, message) is None

    @given(st.integers(0, 500), st.integers(0, 255))
    def test_a_changed_message_is_ignored(self, place: int, value: int) -> None:
        signer = MessageSigner("p", "", "a")
        message = bytearray(signer.sign(CHANNEL, encode(commit(b"x" * 400))))
        place %= len(message)
        is_same = message[place] == value
        message[place] = value
        assert (_read(signer, CHANNEL, bytes(message)) is not None) == is_same

    numbers = st.one_of(st.integers(-2, 6), st.just(2**63), st.none(), st.text(max_size=1), st.floats())

    @given(
        st.one_of(
            st.binary().map(bytes),
            st.tuples(
                numbers,
                numbers,
                numbers,
                numbers,
                numbers,
                st.one_of(st.none(), st.binary(max_size=4), numbers),
                st.one_of(st.lists(numbers, max_size=4), numbers),
            ).map(msgspec.msgpack.encode),
        )
    )
    def test_a_signed_message_that_is_no_possible_commit_is_ignored(self, payload: bytes) -> None:
        signer = MessageSigner("p", "", "a")
        news = _read(signer, CHANNEL, signer.sign(CHANNEL, payload))
        if news is not None:
            assert 0 <= news.start <= news.tail
            assert news.data is None or len(news.data) in (0, news.tail - news.start)
            assert [*news.ends] == sorted({*news.ends})
            assert all(news.start < end <= news.tail for end in news.ends)


class TestIdentity:
    pytestmark = pytest.mark.django_db

    def test_a_database_has_an_identity_from_the_beginning_and_keeps_it(self) -> None:
        (stored,) = DatabaseIdentity.objects.values_list("value", flat=True)
        assert stored == identity("default") == identity("default")
        assert len(stored) == 32
        DatabaseIdentity.objects.all().delete()
        assert identity("default") != stored

    @pytest.mark.django_db(transaction=True)
    def test_a_flushed_database_gets_an_identity_again(self) -> None:
        assert DatabaseIdentity.objects.count() == 1

    @pytest.mark.django_db(transaction=True)
    def test_processes_that_create_the_identity_at_the_same_time_agree(self) -> None:
        DatabaseIdentity.objects.all().delete()

        async def together() -> list[str]:
            return await asyncio.gather(*[asyncio.to_thread(in_thread) for _ in range(5)])

        def in_thread() -> str:
            try:
                return identity("default")
            finally:
                connection.close()

        identities = asyncio.run(together())
        assert len({*identities}) == 1
        assert identities[0] == identity("default")

    @pytest.mark.django_db(transaction=True)
    def test_a_database_that_does_not_answer_is_asked_again(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(using: str) -> str:
            raise DatabaseError("away")

        loader = SignerLoader("default", partial(MessageSigner, "p", ""))
        with monkeypatch.context() as away:
            away.setattr(signing, "located_identity", fail)
            assert loader.get(10) is None
        assert "cannot be read" in caplog.text
        signer = loader.get(10)
        assert signer is not None
        assert signer.channel(7) == MessageSigner("p", "", *located_identity("default")).channel(7)

    @pytest.mark.parametrize("error", [RuntimeError("of the project"), SystemExit(1)], ids=repr)
    def test_an_error_of_the_project_s_code_ends_the_wait_for_the_signer(
        self, error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Such as that of a receiver of `post_init`, or of a wrapper of statements."""

        def fail(using: str) -> str:
            asked.append(using)
            raise error if len(asked) < 20 else DatabaseError("enough")

        asked: list[str] = []
        monkeypatch.setattr(signing, "DedicatedConnection", MagicMock())
        monkeypatch.setattr(signing, "located_identity", fail)
        loader = SignerLoader("default", partial(MessageSigner, "p", ""))
        assert loader.get(1.0) is None
        assert asked == ["default"]
        assert "cannot be read" in caplog.text
        assert type(error).__name__ in caplog.text

    @pytest.mark.django_db(transaction=True)
    def test_a_database_that_stays_away_is_warned_of_once_in_a_while(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(using: str) -> str:
            raise DatabaseError("away")

        now = 0.0
        monkeypatch.setattr(log_once, "time", SimpleNamespace(monotonic=lambda: now))
        monkeypatch.setattr(signing, "located_identity", fail)
        loader = SignerLoader("default", partial(MessageSigner, "p", ""))
        for moment, warnings in ((0.0, 1), (1.0, 1), (signing.WARNING_SECONDS, 1), (signing.WARNING_SECONDS + 1, 2)):
            now = moment
            assert loader.get(10) is None
            assert caplog.text.count(signing.UNKNOWN_DATABASE) == warnings


class TestReload:
    """A signer follows the process to the database server that it is connected to."""

    @pytest.fixture(autouse=True)
    def servers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.asked = 0
        self.server = "first"
        monkeypatch.setattr(signing, "DedicatedConnection", MagicMock())
        monkeypatch.setattr(signing, "located_identity", self.located)
        self.connect()
        self.loader = SignerLoader("default", partial(MessageSigner, "p", ""))

    def located(self, using: str) -> LocatedIdentity:
        self.asked += 1
        if not self.server:
            raise DatabaseError("away")
        return LocatedIdentity(self.server, "")

    def connect(self) -> None:
        latest = object()
        self.monkeypatch.setattr(signing, "latest_connection", lambda using: latest)

    def test_without_a_new_connection_nothing_is_read_again(self) -> None:
        signer = self.loader.get(10)
        assert signer is not None
        assert self.loader.get(10) is signer
        assert self.loader.is_current(signer)
        assert self.asked == 1

    def test_a_new_connection_to_the_same_database_changes_no_signer(self) -> None:
        signer = self.loader.get(10)
        assert signer is not None
        self.connect()
        assert not self.loader.is_current(signer)
        assert self.loader.get(10) is signer
        assert self.loader.is_current(signer)
        assert self.asked == 2

    def test_a_new_connection_to_another_database_changes_the_signer(self) -> None:
        signer = self.loader.get(10)
        self.server = "second"
        assert self.loader.get(10) is signer
        self.connect()
        other = self.loader.get(10)
        assert other is not None
        assert other.channel(7) == MessageSigner("p", "", "second").channel(7)

    def test_a_connection_during_the_query_is_not_missed(self) -> None:
        def located(using: str) -> LocatedIdentity:
            before = self.located(using)
            if self.asked == 1:
                self.server = "second"
                self.connect()
            return before

        self.monkeypatch.setattr(signing, "located_identity", located)
        signer = self.loader.get(10)
        assert signer is not None
        assert signer.channel(7) == MessageSigner("p", "", "second").channel(7)

    def test_after_a_new_connection_an_unknown_database_has_no_signer(self) -> None:
        signer = self.loader.get(10)
        assert signer is not None
        self.connect()
        self.server = ""
        assert self.loader.get(10) is None
        assert not self.loader.is_current(signer)
        self.server = "first"
        assert self.loader.get(10) is signer

    def test_the_last_messages_of_an_engine_that_has_ended_are_signed(self) -> None:
        signer = self.loader.get(10)
        self.server = ""
        self.monkeypatch.setattr(signing, "latest_connection", lambda using: None)
        assert self.loader.get(10) is signer

    def test_now_and_then_it_is_read_again_and_nobody_waits(self) -> None:
        signer = self.loader.get(10)
        self.server = "second"
        self.monkeypatch.setattr(signing, "RELOAD_SECONDS", 0.0)
        assert self.loader.get(10) is signer
        self.monkeypatch.setattr(signing, "RELOAD_SECONDS", 60.0)
        assert self.loader._thread is not None
        self.loader._thread.join(10)
        other = self.loader.get(0)
        assert other is not None
        assert other.channel(7) == MessageSigner("p", "", "second").channel(7)
        assert self.asked == 2

    def test_a_failure_of_that_changes_nothing(self) -> None:
        signer = self.loader.get(10)
        self.server = ""
        self.monkeypatch.setattr(signing, "RELOAD_SECONDS", 0.0)
        assert self.loader.get(10) is signer
        assert self.loader._thread is not None
        self.loader._thread.join(10)
        self.monkeypatch.setattr(signing, "RELOAD_SECONDS", 60.0)
        assert self.loader.get(10) is signer
        assert self.asked == 2


@pytest.fixture
def engine(engines: None) -> Engine:
    return engine_for("default")


async def written(*operations: Any) -> None:
    await elsewhere(*operations)


class Listener:
    def __init__(self) -> None:
        self.heard = 0

    def notify(self) -> None:
        self.heard += 1

    def tick(self, now: float) -> None:
        """Time passes."""

    def stop(self) -> None:
        """Nothing ends here."""


async def joined(engine: Engine, listener: Listener) -> tuple[Hub, Any]:
    hub = engine.hub()
    watch = await hub.join((await engine.read("a", Sentinel.START)).info, listener)
    return hub, watch


def lies(generation: int) -> list[WakeUpMessage]:
    """News that do not say what is in a stream of 3 bytes, and yet look as if."""
    return [
        WakeUpMessage(generation + 1, 3, 6, False, False, b"xyz", [6]),  # of another stream
        WakeUpMessage(0, 3, 6, False, False, b"xyz", [6]),
        WakeUpMessage(generation, 4, 7, False, False, b"xyz", [7]),  # a gap
        WakeUpMessage(generation, 2, 6, False, False, b"wxyz", [6]),  # an overlap
        WakeUpMessage(generation, 0, 6, False, False, b"uvwxyz", [6]),
        WakeUpMessage(generation, 3, 10**15, False, False, None, []),
        WakeUpMessage(generation, 3, 3, False, True, None, []),  # removed
        WakeUpMessage(generation, 10, 10, True, False, None, []),  # closed
        WakeUpMessage(generation + 1, 3, 3, True, False, None, []),
        WakeUpMessage(generation, 0, 3, True, True, b"xyz", [3]),
    ]


@pytest.mark.parametrize("number", range(10))
async def test_a_message_that_does_not_join_is_only_a_reason_to_query(
    engine: Engine, number: int, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "POLL_INTERVAL": 60}
    await written(Create("a", TEXT, data=b"abc"))
    stream = await Stream.objects.aget()
    listener = Listener()
    hub, watch = await joined(engine, listener)
    hub.receive(stream.pk, lies(stream.generation)[number])
    await until(lambda: not hub._tasks)
    assert (watch.tail, watch.closed, watch.ended) == (3, False, False)
    assert watch.segment_after(3) is None
    assert listener.heard == 0
    # What is so is found by the same look, and what joins on is taken as it comes.
    await written(Append("a", TEXT, b"def"))
    hub.receive(stream.pk, lies(stream.generation)[number])
    hub.receive(stream.pk, WakeUpMessage(stream.generation, 3, 6, False, False, b"def", [6]))
    await until(lambda: not hub._tasks)
    assert (watch.tail, watch.segment_after(3).data) == (6, b"def")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_at_most_one_query_waits_however_many_messages_arrive(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(Create("a", TEXT, data=b"abc"))
    stream = await Stream.objects.aget()
    hub, watch = await joined(engine, Listener())
    looks = 0
    follow = engine.follow

    def counted(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return follow(*arguments)

    monkeypatch.setattr(engine, "follow", counted)
    await written(Append("a", TEXT, b"x" * 10_000))
    for _ in range(500):
        hub.receive(stream.pk, WakeUpMessage(stream.generation, 3, 10_003, False, False, None, []))
    await until(lambda: not hub._tasks)
    assert watch.tail == 10_003
    assert looks <= 2
