"""Every entry point on every server that has one, by name."""

import json
import sys
from pathlib import Path
from typing import Any, Protocol

from tests.entry_points.probed import ProbedServer
from tests.servers import Kind

ENTRY_POINTS = (
    "uvicorn-direct",
    "uvicorn-h11",
    "uvicorn-routed",
    "uvicorn-urls",
    "uvicorn-django",
    "daphne",
    "granian",
    "hypercorn",
    "daphne-urls",
    "granian-urls",
    "hypercorn-urls",
    "wsgi",
)

OWN = ("uvicorn-direct", "uvicorn-h11", "uvicorn-routed", "daphne", "granian", "hypercorn")
"""Those where bodies are read and responses are written by this app, and not by Django."""

WSGI_SERVER = Path(__file__).resolve().parent.parent / "entry_points" / "wsgi_server.py"

APPLICATIONS = {"routed": "tests.hostile.applications:routed", "django": "tests.hostile.applications:django"}


class EntryPoint(ProbedServer):
    """A server by the name of its entry point.

    patient: waits for open responses as long as they take once it is told to end.
    streams: settings of streams.
    """

    def __init__(self, name: str, *, patient: bool = False, **streams: Any) -> None:
        kind, _, way = name.partition("-")
        self.name = name
        self.is_own = name in OWN
        served: Kind = "uvicorn" if kind == "wsgi" else kind  # type: ignore[assignment]
        super().__init__(
            served,
            entry_point="urls" if way in ("urls", "django") or kind == "wsgi" else "asgi",
            long_poll_timeout=1,
            env={"DJANGO_SETTINGS_MODULE": "tests.hostile.settings", "STREAMS": json.dumps(streams)},
            patient=patient,
            options=["--http", "h11"] if way == "h11" else [],
            **({"application": APPLICATIONS[way]} if way in APPLICATIONS else {}),  # type: ignore[arg-type]
        )

    def _command(self) -> list[str]:
        if self.name == "wsgi":
            return [sys.executable, str(WSGI_SERVER), str(self.port)]
        return super()._command()


class Serving(Protocol):
    """Returns a server by the name of its entry point and the settings of streams, which are hashable."""

    def __call__(self, name: str, /, **streams: Any) -> EntryPoint: ...
