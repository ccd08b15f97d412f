"""Configurations of subscriptions and the bodies of requests about them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol.offsets import Offset, Sentinel
from django_durable_streams.protocol.subscription_bodies import (
    parse_claim,
    parse_config,
    parse_streams,
    parse_wake_request,
)
from django_durable_streams.protocol.subscriptions import (
    MAX_STREAMS,
    PULL_WAKE,
    WEBHOOK,
    Ack,
    SubscriptionConfig,
    SubscriptionError,
    WakeRequest,
    already_claimed,
    fenced,
    normalise,
    subscription_id,
    token_expired,
    token_invalid,
)

PARSERS: list[Callable[[bytes], Any]] = [parse_config, parse_streams, parse_claim, parse_wake_request]
HOOK = {"type": "webhook", "pattern": "events/*", "webhook": {"url": "https://worker.example/hooks"}}
PULL = {"type": "pull-wake", "streams": ["events/a"], "wake_stream": "wake/pool"}
WAKE = {"wake_id": "w_1", "generation": 7}
OFFSET = "0000000000000002_0000000000000084"

segments = st.text("abcXYZ019-_.é ", min_size=1, max_size=6).filter(lambda text: text not in (".", "..", "__ds"))
paths = st.lists(segments, min_size=1, max_size=3).map("/".join)
configs = st.builds(
    SubscriptionConfig,
    kind=st.sampled_from([WEBHOOK, PULL_WAKE]),
    pattern=st.sampled_from(["", "events/*", "/events/**/", "**/x", "*"]),
    streams=st.lists(paths.map(lambda path: f"/{path}/") | paths, min_size=1, max_size=4).map(tuple),
    webhook_url=st.just("https://worker.example/hooks"),
    wake_stream=st.just("wake/the pool/of all"),
    lease_ms=st.integers(1000, 600_000),
    description=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def refused(parse: Callable[[bytes], Any], body: bytes) -> SubscriptionError:
    with pytest.raises(SubscriptionError) as caught:
        parse(body)
    assert (caught.value.error_code, caught.value.status) == ("INVALID_REQUEST", 400)
    return caught.value


def test_a_webhook_subscription_has_the_defaults_of_the_specification() -> None:
    config = parse_config(encode(HOOK))
    assert config == SubscriptionConfig(WEBHOOK, "events/*", (), "https://worker.example/hooks", "", 30_000, "")


def test_the_example_of_the_specification_is_understood() -> None:
    body = {
        "type": "webhook",
        "pattern": "events/*",
        "streams": ["events/manual-a", "events/manual-b"],
        "webhook": {"url": "https://worker.example/hooks"},
        "wake_stream": "wake/pool",
        "lease_ttl_ms": 30000,
        "description": "event processor",
    }
    config = parse_config(encode(body))
    assert config.streams == ("events/manual-a", "events/manual-b")
    assert config.wake_stream == ""  # a webhook has no use for it


def test_null_is_no_value() -> None:
    names = ("streams", "wake_stream", "lease_ttl_ms", "description")
    assert parse_config(encode({**HOOK, **dict.fromkeys(names)})) == parse_config(encode(HOOK))
    assert parse_config(encode({**PULL, "pattern": None, "webhook": None})) == parse_config(encode(PULL))


def test_the_digest_is_the_same_in_every_process() -> None:
    assert parse_config(encode(HOOK)).digest() == "50a3d7523b790a76af61dcd67d1987da3438c444028947ffa282bc457a81623a"


@given(configs)
def test_the_normal_form_is_its_own_normal_form(config: SubscriptionConfig) -> None:
    once = normalise(config)
    assert normalise(once) == once
    assert list(once.streams) == sorted({path.strip("/") for path in config.streams})
    assert once.pattern == config.pattern.strip("/")


@given(configs, st.randoms(use_true_random=False))
def test_order_repetition_and_slashes_do_not_change_the_digest(config: SubscriptionConfig, random: Any) -> None:
    shuffled = [f"/{path}" for path in config.streams] + list(config.streams)
    random.shuffle(shuffled)
    fields: list[tuple[str, Any]] = [
        ("type", config.kind),
        ("pattern", f"//{config.pattern}"),
        ("streams", shuffled),
        ("webhook", {"url": config.webhook_url}),
        ("wake_stream", config.wake_stream),
        ("lease_ttl_ms", config.lease_ms),
        ("description", config.description),
    ]
    random.shuffle(fields)
    parsed = parse_config(encode(dict(fields)))
    assert parsed == normalise(config)
    assert parsed.digest() == normalise(config).digest()


@given(configs, configs)
def test_different_configurations_have_different_digests(one: SubscriptionConfig, other: SubscriptionConfig) -> None:
    one, other = normalise(one), normalise(other)
    assert (one.digest() == other.digest()) == (one == other)


def test_text_moves_between_no_fields_of_the_digest() -> None:
    one = SubscriptionConfig(WEBHOOK, "a", ("b", "c"), "https://x.example/", "", 1000, "")
    others = [
        one._replace(streams=("b,c",)),
        one._replace(streams=("c",), pattern="b"),
        one._replace(streams=("a", "b", "c"), pattern=""),
        one._replace(description="a", pattern=""),
    ]
    assert len({config.digest() for config in [one, *others]}) == 5


@pytest.mark.parametrize("parse", PARSERS)
@given(body=st.binary(max_size=60) | json_values.map(encode))
def test_any_body_is_a_value_or_an_error_for_the_client(parse: Callable[[bytes], Any], body: bytes) -> None:
    try:
        parse(body)
    except SubscriptionError as error:
        problem = error.problem()
    else:
        return
    assert json.loads(problem)["error"]["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"type": "\xff"}',
        b'{"x": "\xff"}',
        b'{"x": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 500_000,
        b'{"x":' * 200_000,
        b"{}{}",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_what_is_no_json_object_is_refused(parse: Callable[[bytes], Any], body: bytes) -> None:
    assert len(refused(parse, body).problem()) < 1000


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "pull"},
        {"type": "WEBHOOK"},
        {"type": None},
        {"pattern": 1},
        {"pattern": ""},
        {"pattern": "a*"},
        {"pattern": "a//b"},
        {"pattern": "__ds/*"},
        {"pattern": "a\0b"},
        {"pattern": "a/../b"},
        {"pattern": "x" * 513},
        {"streams": "a"},
        {"streams": [""]},
        {"streams": ["/"]},
        {"streams": [1]},
        {"streams": ["a", None]},
        {"streams": ["__ds/subscriptions/a"]},
        {"streams": ["a\\b"]},
        {"streams": ["x" * 513]},
        {"streams": [str(number) for number in range(MAX_STREAMS + 1)]},
        {"webhook": None},
        {"webhook": "https://worker.example"},
        {"webhook": {}},
        {"webhook": {"url": ""}},
        {"webhook": {"url": 1}},
        {"webhook": {"url": "https://x.example/\n"}},
        {"webhook": {"url": "https://x.example/" + "x" * 2048}},
        {"webhook": {"url": "https://x.example/", "secret": "x"}},
        {"lease_ttl_ms": 999},
        {"lease_ttl_ms": 600_001},
        {"lease_ttl_ms": -1},
        {"lease_ttl_ms": 10**30},
        {"lease_ttl_ms": "30000"},
        {"lease_ttl_ms": 1500.5},
        {"lease_ttl_ms": True},
        {"description": "x" * 4097},
        {"description": "\0"},
        {"description": ["x"]},
        {"wake_stream": 1},
        {"lease_ttl": 30_000},
        {"x" * 100_000: 1},
    ],
    ids=lambda changes: repr(changes)[:60],
)
def test_an_invalid_configuration_is_refused(changes: dict[str, Any]) -> None:
    assert len(refused(parse_config, encode({**HOOK, **changes})).problem()) < 1000


@pytest.mark.parametrize(
    "changes",
    [
        {"streams": None},
        {"streams": []},
        {"wake_stream": None},
        {"wake_stream": ""},
        {"wake_stream": "__ds/x"},
        {"wake_stream": "a//b"},
        {"wake_stream": "events/a"},
        {"wake_stream": "/events/a/"},
        {"pattern": "wake/*"},
        {"pattern": "**"},
    ],
    ids=repr,
)
def test_an_invalid_pull_wake_configuration_is_refused(changes: dict[str, Any]) -> None:
    refused(parse_config, encode({**PULL, **changes}))


@pytest.mark.parametrize("streams", [["a"], "ab", [b"a"]])
def test_python_callers_get_the_same_checks(streams: Any) -> None:
    config = SubscriptionConfig(PULL_WAKE, "", streams, "", "a", True, "x")
    with pytest.raises(SubscriptionError) as caught:
        normalise(config)
    assert caught.value.status == 400


def test_added_streams_are_in_order_and_once() -> None:
    assert parse_streams(encode({"streams": ["b", "/a/", "a", "é/x y"]})) == ("a", "b", "é/x y")
    assert parse_streams(encode({"streams": []})) == ()
    invalid: list[dict[str, Any]] = [{}, {"streams": None}, {"streams": ["a"], "more": 1}, {"streams": [[]]}]
    for body in invalid:
        refused(parse_streams, encode(body))


def test_a_claim_names_a_worker() -> None:
    assert parse_claim(encode({"worker": "worker-1", "version": 2})) == "worker-1"
    for worker in ("", "a\0", "a\n", "x" * 257, 1, None, ["x"]):
        refused(parse_claim, encode({"worker": worker}))


def test_a_wake_request_has_acks_with_either_name_of_the_stream() -> None:
    acks = [{"stream": "events/a", "offset": OFFSET, "more": 1}, {"path": "/b/", "offset": "-1"}]
    request = parse_wake_request(encode({**WAKE, "acks": acks, "done": True, "more": {}}))
    offset = Offset(2, 84)
    assert request == WakeRequest("w_1", 7, (Ack("events/a", offset), Ack("b", Sentinel.START)), done=True)
    assert parse_wake_request(encode(WAKE)) == WakeRequest("w_1", 7, (), done=False)
    assert parse_wake_request(encode({**WAKE, "acks": None, "done": None})) == WakeRequest("w_1", 7, (), done=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"wake_id": None},
        {"wake_id": ""},
        {"wake_id": "w\0"},
        {"wake_id": 1},
        {"wake_id": "w" * 257},
        {"generation": None},
        {"generation": -1},
        {"generation": 2**63},
        {"generation": 10**400},
        {"generation": "7"},
        {"generation": 7.5},
        {"done": 1},
        {"done": "true"},
        {"acks": {}},
        {"acks": [{}]},
        {"acks": [{"stream": "a"}]},
        {"acks": [{"offset": OFFSET}]},
        {"acks": [{"stream": "", "offset": OFFSET}]},
        {"acks": [{"stream": "__ds/x", "offset": OFFSET}]},
        {"acks": [{"stream": "a", "path": "b", "offset": OFFSET}]},
        {"acks": [{"stream": "a", "offset": "0_0"}]},
        {"acks": [{"stream": "a", "offset": "x" * 100_000}]},
        {"acks": [{"stream": "a", "offset": 1}]},
        {"acks": [{"stream": "a", "offset": OFFSET}] * (MAX_STREAMS + 1)},
    ],
    ids=lambda changes: repr(changes)[:60],
)
def test_an_invalid_wake_request_is_refused(changes: dict[str, Any]) -> None:
    assert len(refused(parse_wake_request, encode({**WAKE, **changes})).problem()) < 1000


@pytest.mark.parametrize("name", ["sub-1", "a b", "é", "%2F", "a?b#c", "...", "x" * 256, "__ds", "claim"])
def test_an_id_is_any_text_that_has_a_url_of_its_own(name: str) -> None:
    assert subscription_id(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "\ufffd", "a\0", "a\r\n", chr(0xD800), "x" * 257, 1, None]
)
def test_an_id_has_no_other_text(name: Any) -> None:
    with pytest.raises(SubscriptionError) as caught:
        subscription_id(name)
    assert caught.value.status == 400


def test_an_error_is_an_object_with_a_code() -> None:
    error = already_claimed("worker-2", 7)
    assert json.loads(error.problem()) == {
        "error": {"code": "ALREADY_CLAIMED", "message": error.detail, "current_holder": "worker-2", "generation": 7}
    }
    assert error.content_type == b"application/json"
    assert (fenced().status, fenced().error_code) == (409, "FENCED")


def test_a_refused_token_is_challenged() -> None:
    for error in (token_invalid(), token_expired()):
        assert (error.status, dict(error.headers)[b"www-authenticate"][:6]) == (401, b"Bearer")
