"""Options that cannot be are refused where they are given, not at a message."""

from typing import Any

import pytest
from django.http import HttpRequest

from django_durable_streams.pages import EventView
from django_durable_streams.protocol.errors import InvalidOffset
from django_durable_streams.server.pages.options import EventSourceSettings, count_arguments


def three(message: Any, stream: Any, request: HttpRequest) -> str:
    return str(message)


class Unhashable:
    """A renderer that says that it equals others, and not how to find them."""

    def __call__(self, message: Any) -> str:
        return str(message)

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"render": 1}, TypeError),
        ({"render": three}, TypeError),
        ({"event": 1}, TypeError),
        ({"event": "a\nb"}, ValueError),
        ({"event": "end"}, ValueError),
        ({"end_event": ""}, ValueError),
        ({"end_event": "a\rb"}, ValueError),
        ({"offset": "x"}, InvalidOffset),
        ({"offset": None}, InvalidOffset),
        ({"retry": -1}, ValueError),
        ({"retry": float("inf")}, ValueError),
        ({"retry": "1"}, ValueError),
        ({"unknown": 1}, TypeError),
        ({"render": Unhashable()}, TypeError),
    ],
)
def test_invalid_options(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        EventSourceSettings(**options)
    with pytest.raises(error):
        EventView.as_view(**options)


def test_a_function_gets_what_it_takes() -> None:
    assert count_arguments(lambda message: "", per_request=False) == 1
    assert count_arguments(lambda message, stream: "", per_request=False) == 2
    assert count_arguments(lambda message, stream="": "", per_request=False) == 1
    assert count_arguments(three, per_request=True) == 3
    assert count_arguments(str, per_request=False) == 1


def test_a_subclass_has_its_options() -> None:
    class Views(EventView):
        render = "a.html"
        event = staticmethod(lambda message: "x")
        end_event = "over"

    settings = Views.as_view(retry=1).event_source_settings  # type: ignore[attr-defined]
    assert (settings.render, settings.end_event, settings.retry) == ("a.html", "over", 1)
    assert settings.event(1) == "x"

    class Wrong(EventView):
        def render(self, message: Any) -> str:
            return str(message)

    with pytest.raises(TypeError, match="staticmethod"):
        Wrong.as_view()
