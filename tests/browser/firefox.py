"""Drives Firefox as Debian has it, over WebDriver BiDi, because playwright drives builds of its own only.

It has the part of playwright's `Page` that tests of recipes use.
"""

import itertools
import json
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.websocket.wire import WebSocket

SECONDS = 30.0
LISTENS = re.compile(r"WebDriver BiDi listening on ws://[^:]+:(\d+)")
PREFERENCES = {
    # Pages of tests are in the background: only one tab of a window is in front.
    "dom.min_background_timeout_value": 10,
    "dom.min_background_timeout_value_without_budget_throttling": 10,
    "dom.timeout.enable_budget_timer_throttling": False,
    # No request leaves the machine.
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
}


class FirefoxPage:
    """A page in a window of its own."""

    def __init__(self, firefox: "Firefox", context: str) -> None:
        self._firefox, self._context = firefox, context

    def goto(self, url: str) -> None:
        """Open a URL, and return when it is loaded."""
        self._firefox.call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str, arg: object = None) -> Any:
        """Return the value of an expression, or of a function called with an argument, awaited if it is a promise."""
        called = expression if arg is None else f"({expression})({json.dumps(arg)})"
        answer = self._firefox.call(
            "script.callFunction",
            functionDeclaration=f"async () => JSON.stringify(await ({called}))",
            awaitPromise=True,
            target={"context": self._context},
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"].get("value", "null"))

    def wait_for_function(self, expression: str, *, arg: object, timeout: float, polling: float) -> None:
        """Wait until a function of an argument returns true.

        Args:
            expression: the function.
            arg: its argument.
            timeout: milliseconds after which the test fails.
            polling: milliseconds between two calls.
        """
        condition = f"({expression})({json.dumps(arg)})"
        is_so = self.evaluate(
            f"""new Promise(resolve => {{
              const end = Date.now() + {timeout};
              const timer = setInterval(() => {{
                const isSo = {condition};
                if (!isSo && Date.now() < end) return;
                clearInterval(timer);
                resolve(isSo);
              }}, {polling});
            }})"""
        )
        assert is_so, condition


class Firefox:
    """A Firefox without a window. Use it as a context manager."""

    def __init__(self, program: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        profile = Path(self._folder.name)
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items())
        (profile / "user.js").write_text("\n".join(lines))
        self._process = subprocess.Popen(
            [program, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if match := LISTENS.search(line):
                break
        else:
            raise AssertionError(f"Firefox did not start: {''.join(said)}")
        self._socket = WebSocket(int(match[1]), target="/session")
        self._socket.socket.settimeout(SECONDS + 10)
        self.call("session.new", capabilities={})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()

    def new_page(self) -> FirefoxPage:
        """Open a window of its own: tabs behind another one are hidden, and `follow` pauses in them."""
        return FirefoxPage(self, self.call("browsingContext.create", type="window")["context"])

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command, and return its result."""
        number = next(self._ids)
        self._socket.say_text(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer: dict[str, Any] = self._socket.next()
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                result: dict[str, Any] = answer["result"]
                return result
