"""The declaration of consumers."""

import sys
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.apps import AppConfig, apps

from django_durable_streams.consumers import Batch, Consumer, Message, consumer
from django_durable_streams.models import Subscription
from django_durable_streams.subscriptions.consumers.declarations import find, registered
from django_durable_streams.subscriptions.consumers.messages import upcast
from django_durable_streams.subscriptions.consumers.subscribing import subscribe
from django_durable_streams.testing import StreamClient


def handle(batch: Batch) -> str:
    return batch.stream


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": "automatic"}, 'or "auto"'),
        ({"max_attempts": "auto"}, "max_attempts"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"start": "now"}, "start"),
        ({"on_failure": "ignore"}, "on_failure"),
        ({"lease": 0.5}, "lease"),
        ({"lease": 601}, "lease"),
    ],
)
def test_wrong_options_are_refused_where_they_stand(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        consumer("a", **{"name": "c", **options})(handle)


def test_a_generator_is_refused_because_it_would_handle_nothing() -> None:
    def lazy(batch: Batch) -> Any:
        yield batch

    async def lazy_too(batch: Batch) -> Any:
        yield batch

    for function in (lazy, lazy_too, None):
        with pytest.raises(TypeError, match="function"):
            consumer("a", name="c")(function)  # type: ignore[arg-type]
    assert registered() == []


def test_a_consumer_can_be_called_as_its_handler() -> None:
    bill = consumer("a", name="c")(handle)
    assert isinstance(bill, Consumer)
    assert bill(Batch("a", "text/plain", [], [], "default")) == "a"


def test_consumers_are_found_by_name() -> None:
    one, two = consumer("a", name="one")(handle), consumer("a", name="two")(lambda batch: None)
    assert find(["two"]) == [two]
    assert find([]) == [one, two]
    with pytest.raises(LookupError, match=r"'three'.*one, two"):
        find(["three"])


def test_the_module_streams_of_each_app_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "billing_app"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "streams.py").write_text(
        "from django_durable_streams.consumers import consumer\n\n"
        "@consumer('orders/**', name='billing')\ndef bill(batch):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = AppConfig.create("billing_app")
    monkeypatch.setitem(apps.app_configs, "billing_app", config)
    apps.get_app_config("durable_streams").ready()
    assert [one.name for one in registered()] == ["billing"]
    for name in ("billing_app", "billing_app.streams"):
        sys.modules.pop(name, None)


def test_a_batch_iterates_over_messages_with_their_keys() -> None:
    batch = Batch("a", "application/json", [1, 2], ["x", "y"], "default")
    assert list(batch) == [Message(1, "x", "a"), Message(2, "y", "a")]
    assert [message.key for message in batch] == [("a", "x"), ("a", "y")]
    assert len(batch) == 2


def test_an_upcaster_that_keeps_the_type_is_called_once() -> None:
    assert upcast({"type": "A", "n": 1}, {"A": lambda value: {**value, "n": value["n"] + 1}}, "type")["n"] == 2


def test_the_type_of_a_message_can_come_from_a_function() -> None:
    upcasters = {1: lambda value: [2, *value[1:]], 2: lambda value: [3, *value[1:]]}
    assert upcast([1, "x"], upcasters, lambda value: value[0]) == [3, "x"]


def test_upcasters_in_a_circle_are_refused() -> None:
    upcasters = {"A": lambda value: {"type": "B"}, "B": lambda value: {"type": "A"}}
    with pytest.raises(ValueError, match="A -> B -> A"):
        upcast({"type": "A"}, upcasters, "type")


@pytest.mark.parametrize("value", [None, 1, "text", b"x", [1], {}, {"type": [1]}, {"type": {"a": 1}}])
def test_messages_without_a_known_type_stay_as_they_are(value: Any) -> None:
    assert upcast(value, {"A": lambda value: None}, "type") is value


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("name", ["%01billing", "billing"])
async def test_clients_neither_see_nor_take_the_subscription_of_a_consumer(name: str) -> None:
    await sync_to_async(subscribe)(consumer("orders/*", name="billing")(handle), "default")
    client = StreamClient()
    body = b'{"worker": "w", "streams": ["orders/1"]}'
    for method, action in (("GET", ""), ("DELETE", ""), ("POST", "/claim"), ("POST", "/streams"), ("PUT", "")):
        target = f"__ds/subscriptions/{name}{action}"
        reply = await client.request(method, target, [(b"content-type", b"application/json")], body)
        # To delete what clients cannot see is to repeat a request: it succeeds, and nothing happens.
        assert reply.status in (400, 404, *([204] if method == "DELETE" else [])), (method, action)
    assert await Subscription.objects.acount() == 1
