"""What a project has set wrong is said when a process starts, and not by the first request."""

from pathlib import Path

import pytest

from tests.projects.project import Project, sqlite

WRONG = {
    "a wrong type": (
        'DURABLE_STREAMS["MAX_APPEND_BYTES"] = "16MB"',
        "MAX_APPEND_BYTES must be a whole number.",
        "E003",
    ),
    "an unknown key": ('DURABLE_STREAMS["PAGE_BYTE"] = 1', "Did you mean PAGE_BYTES?", "E002"),
    "too much": ('DURABLE_STREAMS["WRITE_LANES"] = 1000', "WRITE_LANES must be from 1 to 64.", "E004"),
    "no dict": ('DURABLE_STREAMS = "streams"', "DURABLE_STREAMS must be a dict.", "E001"),
    "no rate": ('DURABLE_STREAMS["RATE_LIMITS"] = {"append": "often"}', "RATE_LIMITS", "E004"),
    "no backend": ('DURABLE_STREAMS["WAKEUP"] = {"BACKEND": "no.such.Backend"}', "WAKEUP", "E004"),
    "no permission": ('DURABLE_STREAMS["PERMISSION"] = "no.such.Permission"', "no.such", "E005"),
}


@pytest.mark.parametrize(("source", "words", "number"), WRONG.values(), ids=list(WRONG))
def test_a_process_that_would_serve_does_not_start(source: str, words: str, number: str, tmp_path: Path) -> None:
    project = Project(tmp_path, {"default": sqlite(tmp_path)}, source)
    served = project.start("tests.projects.tour", "asgi")
    assert served.returncode != 0
    assert "ImproperlyConfigured" in served.stderr
    assert words in served.stderr
    checked = project.start("django", "check")
    assert checked.returncode != 0
    assert f"durable_streams.{number}" in checked.stderr
    assert words in checked.stderr
    assert "Traceback" not in checked.stderr
