"""What the README says is so: its tour, its tables, its commands, its Python."""

import inspect
import re

from django.test import override_settings

from django_durable_streams.conf import SETTING, Config, config, names
from tests.docs import tour
from tests.docs.pages import README, ROOT, blocks, code, section, table
from tests.servers import HOST, Server

SHOWN_HOST = "127.0.0.1:8000"


def tour_of(port: int) -> list[tour.Step]:
    """The tour's steps, for a server on another port."""
    consoles = "".join(block.text for block in blocks(README, "console"))
    return list(tour.steps(consoles.replace(SHOWN_HOST, f"{HOST}:{port}")))


def test_the_tour_shows_what_happens_and_leaves_nothing_behind() -> None:
    with Server("uvicorn", entry_point="asgi", long_poll_timeout=30) as server:
        steps = tour_of(server.port)
        # Nobody takes a tour once: the second time it has to be the same.
        for _ in range(2):
            outputs = tour.run([step.command for step in steps], seconds=15)
            for step, printed in zip(steps, outputs, strict=True):
                lines = "\n".join(printed)
                assert tour.agree(step.shown, printed), f"$ {step.command}\n{lines}\n\nthe README shows\n{step.shown}"


def test_the_tour_goes_through_every_operation() -> None:
    commands = "\n".join(step.command for step in tour_of(8000))
    for sign in ("-X PUT", " -d ", "offset=", "live=long-poll", "live=sse", "--json", "Producer-Id", "Stream-Closed"):
        assert sign in commands
    assert "Stream-Forked-From" in commands
    assert "-X DELETE" in commands


def test_a_tour_that_shows_something_else_is_noticed() -> None:
    assert tour.agree(["a", "...", "x: …"], ["a", "b", "c", "x: 1"])
    assert tour.agree(["...", "a"], ["a"])
    assert not tour.agree(["a"], ["a", "b"])
    assert not tour.agree(["a", "...", "d"], ["a", "b", "c"])
    assert not tour.agree(["x: …"], ["x: "])
    assert not tour.agree([], ["a"])


def settings_table() -> list[list[str]]:
    return table(section(README, "Settings"))


def test_the_settings_table_has_every_key_in_order() -> None:
    assert [code(row[0]) for row in settings_table()] == names()


def test_the_settings_table_has_the_defaults() -> None:
    # Its values are Python, so they can be given as settings: that has to make no difference.
    shown = {code(row[0]): eval(code(row[1]), {"__builtins__": {}}) for row in settings_table()}
    with override_settings(**{SETTING: shown}):
        assert config() == Config()


def test_the_settings_table_explains_every_key() -> None:
    assert all(len(row) == 3 and row[2].endswith(".") for row in settings_table())


def test_the_example_for_redis_has_the_options_that_the_backend_takes() -> None:
    from django_durable_streams.engine.wakeup.redis import RedisWakeup

    text = section(README, "Several processes")
    options = set(inspect.signature(RedisWakeup).parameters) - {"using"}
    assert {name for name in options if re.search(rf"[`\"]{name.upper()}[`\"]", text)} == options
    scope: dict[str, dict[str, dict[str, str]]] = {}
    (block,) = [block for block in blocks(README, "python") if "RedisWakeup" in block.text]
    exec(block.text, scope)
    with override_settings(DURABLE_STREAMS=scope[SETTING]):
        from django_durable_streams.engine.wakeup import make_wakeup

        wakeup = make_wakeup("default")
    assert isinstance(wakeup, RedisWakeup)
    wakeup.stop()


def test_the_two_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    shown = [block.text.split() for block in blocks(README, "sh") if block.text.startswith("make")]
    assert shown == [["make", "run"], ["make", "test"]]
    for _, target in shown:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_extras_are_there() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    result = re.findall(r'"django-durable-streams\[([\w,]+)\]"', README.read_text())
    assert result
    for extras in result:
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_tests_that_promises_refer_to_are_there() -> None:
    rows = table(section(README, "Reliability"))
    assert rows
    for promise, _, where in rows:
        result = re.findall(r"\[`(\w+)`\]\(([^)]+)\)", where)
        assert result, promise
        for name, path in result:
            assert re.search(rf"def {name}\(", (ROOT / path).read_text()), f"{path} has no {name}"
