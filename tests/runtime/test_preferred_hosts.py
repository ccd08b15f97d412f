"""Of several hosts in the settings, the one that was the right one last comes first."""

from types import SimpleNamespace
from typing import Any

import pytest

from django_durable_streams.runtime import preferred_hosts
from django_durable_streams.runtime.preferred_hosts import remember_host, with_preferred_host

PRIMARY = {"target_session_attrs": "read-write"}
THREE_HOSTS = {**PRIMARY, "host": "one,two,three", "port": "5432,5433,5434"}


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preferred_hosts, "_preferred", {})


def connection(host: str, port: int) -> Any:
    return SimpleNamespace(info=SimpleNamespace(host=host, port=port))


def test_the_order_is_that_of_the_settings_at_first() -> None:
    assert with_preferred_host("default", THREE_HOSTS) == THREE_HOSTS


def test_the_last_one_comes_first() -> None:
    remember_host("default", THREE_HOSTS, connection("two", 5433))
    ordered = with_preferred_host("default", THREE_HOSTS)
    assert ordered == {**PRIMARY, "host": "two,one,three", "port": "5433,5432,5434"}
    assert with_preferred_host("other", THREE_HOSTS) == THREE_HOSTS


def test_one_port_is_that_of_all() -> None:
    params = {**PRIMARY, "host": "one,two", "port": "6432"}
    remember_host("default", params, connection("two", 6432))
    assert with_preferred_host("default", params) == {**PRIMARY, "host": "two,one", "port": "6432,6432"}
    unnamed = {**PRIMARY, "host": "one,two"}
    remember_host("other", unnamed, connection("two", 5432))
    assert with_preferred_host("other", unnamed) == {**PRIMARY, "host": "two,one", "port": "5432,5432"}


@pytest.mark.parametrize(
    "params",
    [
        {**PRIMARY, "host": "two", "port": "5433"},
        PRIMARY,
        {**THREE_HOSTS, "target_session_attrs": "any"},
        {**THREE_HOSTS, "hostaddr": "10.0.0.1,10.0.0.2,10.0.0.3"},
        {**THREE_HOSTS, "load_balance_hosts": "random"},
        {**THREE_HOSTS, "port": "1,2"},
        {**PRIMARY, "host": "/run/one,/run/three"},
    ],
)
def test_other_settings_stay_as_they_are(params: dict[str, Any]) -> None:
    remember_host("default", THREE_HOSTS, connection("two", 5433))

    assert with_preferred_host("default", params) == params
