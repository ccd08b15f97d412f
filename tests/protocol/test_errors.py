import inspect
import json

import pytest

from django_durable_streams.protocol import errors
from django_durable_streams.protocol.errors import DurableStreamsError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DurableStreamsError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_describes_itself(kind: type[DurableStreamsError]) -> None:
    problem = json.loads(kind("Do this.").problem())
    assert problem["status"] == kind.status
    assert 400 <= kind.status < 600
    assert problem["title"] == kind.title
    assert problem["detail"] == "Do this."
    assert problem["type"] == f"urn:durable-streams:error:{kind.code()}"


def test_every_error_has_a_name_of_its_own() -> None:
    codes = [kind.code() for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code for code in codes)


def test_names_are_words_with_hyphens() -> None:
    assert errors.StreamClosed.code() == "stream-closed"
    assert errors.InvalidJSON.code() == "invalid-json"


def test_an_error_without_a_detail_says_its_title() -> None:
    assert errors.StreamClosed().detail == "Stream is closed"
    assert str(errors.StreamClosed()) == "Stream is closed"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.InvalidOffset, 400),
        (errors.PermissionDenied, 403),
        (errors.ProducerFenced, 403),
        (errors.StreamNotFound, 404),
        (errors.MethodNotAllowed, 405),
        (errors.StreamClosed, 409),
        (errors.StreamGone, 410),
        (errors.PayloadTooLarge, 413),
        (errors.LiveModeUnsupported, 501),
        (errors.ServiceUnavailable, 503),
    ],
)
def test_statuses(kind: type[DurableStreamsError], status: int) -> None:
    assert kind.status == status
