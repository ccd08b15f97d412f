"""The keys that sign webhooks: one for all processes, published in time, encrypted where a secret is set."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams import clock
from django_durable_streams.conf import config
from django_durable_streams.models import ReadOnlyModelError, SigningKey
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.protocol.subscriptions import SubscriptionError
from django_durable_streams.subscriptions import extra, routes, signing_keys
from django_durable_streams.subscriptions.signing_keys import (
    SigningKeyError,
    active_key,
    jwks,
    rotate,
    sign,
    thumbprint,
)
from tests.overriding import override_streams
from tests.projects.databases import KINDS, new_database
from tests.projects.project import Project
from tests.subscriptions.verifying import decoded, is_signed

SECRET = "a secret of the tests that is long enough"
OTHER_SECRET = "another secret that is long enough as well"
USING = "default"

pytestmark = pytest.mark.django_db


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock to a number of seconds after the start of the test."""
    began = datetime.now(UTC)

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr(clock, "now", lambda: began + timedelta(seconds=seconds))

    set_clock(0)
    return set_clock


@pytest.fixture(autouse=True)
def _no_cache() -> Iterator[None]:
    signing_keys._private_key.cache_clear()
    yield
    signing_keys._private_key.cache_clear()


def kids() -> list[str]:
    return [key["kid"] for key in json.loads(jwks(USING))["keys"]]


def signed(body: bytes = b"{}") -> str:
    return sign(body, clock.now(), active_key(USING))


# Signatures and published keys.


def test_a_signature_is_checked_by_the_published_key() -> None:
    header = signed(b'{"a": 1}')
    assert is_signed(b'{"a": 1}', header, jwks(USING))
    assert not is_signed(b'{"a": 2}', header, jwks(USING))
    assert not is_signed(b'{"a": 1}', header.replace("t=", "t=1"), jwks(USING))


UNSAVED = signing_keys._new_key(1, clock.now())
UNSAVED_SET = {"keys": [signing_keys._jwk(UNSAVED)]}


@given(st.binary(max_size=200), st.datetimes(datetime(1970, 1, 2), datetime(2400, 1, 1), timezones=st.just(UTC)))
def test_every_body_is_signed_with_its_time(body: bytes, now: datetime) -> None:
    header = sign(body, now, UNSAVED)
    assert header.startswith(f"t={int(now.timestamp())},kid=ds_")
    assert is_signed(body, header, UNSAVED_SET)
    assert not is_signed(body + b" ", header, UNSAVED_SET)


def test_the_published_key_is_a_jwk_and_no_more() -> None:
    key = active_key(USING)
    assert json.loads(jwks(USING)) == {
        "keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": key.kid, "use": "sig", "alg": "EdDSA", "x": key.public_key},
        ]
    }
    assert len(decoded(key.public_key)) == 32


def test_the_key_id_is_the_thumbprint_of_the_key() -> None:
    # RFC 8037, appendix A.3
    assert thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo") == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    key = active_key(USING)
    assert key.kid == f"ds_{thumbprint(key.public_key)}"
    assert str(key) == key.kid


def test_the_set_has_a_key_before_the_first_webhook() -> None:
    assert SigningKey.objects.count() == 0
    assert kids() == [active_key(USING).kid]


# One key for all.


def test_the_key_stays() -> None:
    kid = active_key(USING).kid
    assert [active_key(USING).kid for _ in range(3)] == [kid] * 3
    assert SigningKey.objects.count() == 1


def test_a_key_that_another_process_has_just_made_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    look = signing_keys._active
    others: list[SigningKey] = []

    def look_before_the_other(using: str) -> SigningKey | None:
        if others:
            return look(using)
        result = look(using)
        others.append(signing_keys._new_key(1, clock.now()))
        signing_keys._rows(using).bulk_create(others)
        return result

    monkeypatch.setattr(signing_keys, "_active", look_before_the_other)
    assert active_key(USING).kid == others[0].kid
    assert SigningKey.objects.count() == 1


def test_of_two_first_keys_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    make = signing_keys._new_key
    others: list[SigningKey] = []

    def make_after_the_other(number: int, now: datetime) -> SigningKey:
        if not others:
            others.append(make(number, now))
            signing_keys._rows(USING).bulk_create(others)
        return make(number, now)

    monkeypatch.setattr(signing_keys, "_new_key", make_after_the_other)
    assert active_key(USING).kid == others[0].kid
    assert SigningKey.objects.count() == 1


def test_a_transaction_that_cannot_see_the_key_of_another_process_is_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signing_keys, "_active", lambda using: None)
    with pytest.raises(ServiceUnavailable, match="Try again"):
        active_key(USING)


@pytest.mark.django_db(transaction=True)
def test_threads_that_start_at_once_have_one_key() -> None:
    count = 4
    barrier = Barrier(count)

    def ask() -> str:
        try:
            barrier.wait(20)
            return active_key(USING).kid
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        results = {future.result(30) for future in [pool.submit(ask) for _ in range(count)]}
    assert results == {active_key(USING).kid}
    assert SigningKey.objects.count() == 1


@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.cluster) for kind in KINDS[1:])])
def test_processes_agree_and_a_restart_keeps_the_key(kind: str, tmp_path: Path) -> None:
    source = f'DURABLE_STREAMS["WEBHOOK_KEY_SECRET"] = {SECRET!r}'
    project = Project(tmp_path, {"default": new_database(kind, tmp_path)}, source)
    project.migrate()
    script = "tests.subscriptions.key_user"
    with ThreadPoolExecutor(2) as pool:
        start = str(time.time() + 4)
        seen = [future.result(60) for future in [pool.submit(project.run, script, start) for _ in range(2)]]
    seen.append(project.run(script, "0"))
    assert len({one["kid"] for one in seen}) == 1
    for one in seen:
        assert is_signed(b"{}", one["header"], seen[-1]["jwks"])
    assert [key["kid"] for key in seen[-1]["jwks"]["keys"]] == [seen[0]["kid"]]


# Rotation.


def test_a_new_key_is_published_before_it_signs_and_the_old_one_after(at: Callable[[float], None]) -> None:
    old = active_key(USING)
    new = rotate(USING)
    assert kids() == [old.kid, new.kid]
    for seconds in (0, signing_keys.HEAD_START_SECONDS - 1):
        at(seconds)
        assert active_key(USING).kid == old.kid
    at(signing_keys.HEAD_START_SECONDS - 1)
    last = signed()
    for seconds in (0, signing_keys.REPLAY_SECONDS, signing_keys.PUBLISHED_SECONDS - 1):
        at(signing_keys.HEAD_START_SECONDS + seconds)
        assert active_key(USING).kid == new.kid
        assert kids() == [old.kid, new.kid]
        assert is_signed(b"{}", last, jwks(USING))
    at(signing_keys.HEAD_START_SECONDS + signing_keys.PUBLISHED_SECONDS + 1)
    assert kids() == [new.kid]


def test_at_no_time_a_receiver_with_a_cached_set_lacks_a_key(at: Callable[[float], None]) -> None:
    cached: list[tuple[int, list[str]]] = []
    for seconds in range(0, 8000, 20):
        at(seconds)
        if seconds in (1000, 1100, 3000):
            rotate(USING)
        cached.append((seconds, kids()))
        kid = active_key(USING).kid
        oldest = seconds - signing_keys.CACHE_SECONDS - routes.KEYS_SECONDS - 20
        assert all(kid in keys for since, keys in cached if since >= oldest)
    assert len({keys[0] for _, keys in cached}) >= 3


def test_the_published_keys_cover_whoever_asks_for_the_key_seldom() -> None:
    from django_durable_streams.subscriptions import webhooks

    slowest = webhooks.KEY_SECONDS + 240 + signing_keys.REPLAY_SECONDS + signing_keys.CACHE_SECONDS
    assert slowest < signing_keys.PUBLISHED_SECONDS


def test_keys_that_nobody_needs_are_deleted(at: Callable[[float], None]) -> None:
    for number in range(5):
        at(number * 5000)
        rotate(USING)
    assert list(SigningKey.objects.order_by("number").values_list("number", flat=True)) == [4, 5]


def test_the_first_rotation_makes_the_first_key() -> None:
    assert rotate(USING).kid == active_key(USING).kid
    assert len(kids()) == 1


def test_a_revoked_key_is_gone_at_once() -> None:
    header = signed()
    rotate(USING)
    new = rotate(USING, revoke=True)
    assert active_key(USING).kid == new.kid
    assert kids() == [new.kid]
    assert not is_signed(b"{}", header, jwks(USING))
    assert new.number == 3


def test_a_rotation_while_another_process_rotates_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kid = active_key(USING).kid
    monkeypatch.setattr(signing_keys, "_last_number", lambda using: 0)
    with pytest.raises(ServiceUnavailable, match="just rotated"):
        rotate(USING, revoke=True)
    assert kids() == [kid]


def test_after_the_last_key_was_retired_another_one_signs(at: Callable[[float], None]) -> None:
    old = active_key(USING)
    signing_keys._rows(USING).update(retired_at=clock.now())
    at(1)
    new = active_key(USING)
    assert (new.number, kids()) == (2, [old.kid, new.kid])


def test_a_rotation_inside_a_transaction_ends_with_it() -> None:
    kid = active_key(USING).kid
    with transaction.atomic():
        rotate(USING, revoke=True)
        transaction.set_rollback(True)
    assert kids() == [kid]


def test_the_command_rotates() -> None:
    first = active_key(USING).kid
    output = StringIO()
    call_command("streams_rotate_key", stdout=output)
    (_, new) = kids()
    assert output.getvalue() == f"{new} signs webhooks in 6 minutes.\n"
    assert active_key(USING).kid == first
    output = StringIO()
    call_command("streams_rotate_key", "--revoke", "--database", USING, stdout=output)
    assert output.getvalue() == f"{active_key(USING).kid} signs webhooks now.\n"
    assert len(kids()) == 1


def test_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "is_installed", lambda: False)
    with pytest.raises(CommandError, match="Install"):
        call_command("streams_rotate_key")


# Secrets.


def stored() -> str:
    return SigningKey.objects.get().private_key


def private_bytes(secret: str) -> bytes:
    return signing_keys._private_key(stored(), secret).private_bytes_raw()


def test_a_private_key_is_encrypted_with_the_secret() -> None:
    with override_streams(WEBHOOK_KEY_SECRET=SECRET):
        header = signed()
        assert is_signed(b"{}", header, jwks(USING))
        private = private_bytes(SECRET)
    text = stored()
    assert text.startswith("fernet:")
    assert all(part not in text for part in (base64.b64encode(private).decode(), private.hex(), SECRET))
    # Two keys, and one key twice, look different.
    assert signing_keys._sealed(private, SECRET) != signing_keys._sealed(private, SECRET)


@pytest.mark.parametrize("secret", ["", OTHER_SECRET, SECRET + " "])
def test_a_wrong_secret_says_so(secret: str) -> None:
    with override_streams(WEBHOOK_KEY_SECRET=SECRET):
        kid = active_key(USING).kid
    with override_streams(WEBHOOK_KEY_SECRET=secret):
        with pytest.raises(SigningKeyError, match="WEBHOOK_KEY_SECRET") as raised:
            signed()
        assert "streams_rotate_key --revoke" in raised.value.detail
        assert SECRET not in raised.value.detail
        # Published keys need no secret, and no process makes a key of its own.
        assert kids() == [kid]
        rotate(USING, revoke=True)
        assert is_signed(b"{}", signed(), jwks(USING))


def test_a_key_from_before_the_secret_signs_until_it_is_rotated() -> None:
    kid = active_key(USING).kid
    assert stored().startswith("plain:")
    with override_streams(WEBHOOK_KEY_SECRET=SECRET):
        assert is_signed(b"{}", signed(), jwks(USING))
        rotate(USING)
        assert active_key(USING).kid == kid
        assert SigningKey.objects.get(number=2).private_key.startswith("fernet:")


def test_no_text_of_a_key_or_a_setting_has_a_secret() -> None:
    with override_streams(WEBHOOK_KEY_SECRET=SECRET):
        key = active_key(USING)
        assert SECRET not in repr(config())
    assert key.private_key not in repr(key) + str(key) + repr(signing_keys._jwk(key))


# The table.


def test_the_table_is_written_by_its_functions_only() -> None:
    key = active_key(USING)
    for write in (
        key.save,
        key.delete,
        lambda: SigningKey.objects.create(number=9),
        lambda: SigningKey.objects.update(private_key="plain:"),
        lambda: SigningKey.objects.all().delete(),
    ):
        with pytest.raises(ReadOnlyModelError, match="streams_rotate_key"):
            write()


def test_the_table_has_no_permissions_and_no_page() -> None:
    from django.contrib import admin
    from django.contrib.auth.models import Permission

    assert not Permission.objects.filter(content_type__model="signingkey").exists()
    assert not admin.site.is_registered(SigningKey)


def test_two_keys_never_have_one_number() -> None:
    active_key(USING)
    with pytest.raises(IntegrityError), transaction.atomic():
        signing_keys._rows(USING).bulk_create([signing_keys._new_key(1, clock.now())])


# Without the packages.


def test_without_the_packages_existing_keys_are_published_and_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "is_installed", lambda: False)
    assert json.loads(jwks(USING)) == {"keys": []}
    with pytest.raises(SubscriptionError, match="Install"):
        active_key(USING)
    with pytest.raises(SubscriptionError, match="Install"):
        rotate(USING)
    monkeypatch.undo()
    kid = active_key(USING).kid
    monkeypatch.setattr(extra, "is_installed", lambda: False)
    assert (kids(), active_key(USING).kid) == ([kid], kid)


def test_the_modules_import_without_the_packages(tmp_path: Path) -> None:
    """Everything but sending is there: processes without the extra serve pull-wake."""
    from subprocess import run
    from sys import executable

    script = (
        "import sys\n"
        "for name in ('httpcore', 'httpx', 'cryptography', 'anyio', 'certifi'): sys.modules[name] = None\n"
        "import django; django.setup()\n"
        "from django_durable_streams.subscriptions import addresses, signing_keys, webhooks\n"
        "from django_durable_streams.subscriptions.addresses import parse_url\n"
        "print(parse_url('https://worker.example.com/').host)\n"
    )
    environment: dict[str, Any] = {**__import__("os").environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = run([executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "worker.example.com", done.stderr
