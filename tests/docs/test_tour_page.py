"""docs/tour.md shows what happens."""

from tests.docs import tour
from tests.docs.pages import ROOT, blocks
from tests.servers import HOST, Server

PAGE = ROOT / "docs" / "tour.md"
SHOWN_HOST = "127.0.0.1:8000"


def tour_of(port: int) -> list[tour.Step]:
    """The tour's steps, for a server on another port."""
    consoles = "".join(block.text for block in blocks(PAGE, "console"))
    return list(tour.steps(consoles.replace(SHOWN_HOST, f"{HOST}:{port}")))


def test_the_tour_shows_what_happens_and_leaves_nothing_behind() -> None:
    with Server("uvicorn", entry_point="asgi", long_poll_timeout=30) as server:
        steps = tour_of(server.port)
        # Nobody takes a tour once: the second time it has to be the same.
        for _ in range(2):
            outputs = tour.run([step.command for step in steps], seconds=15)
            for step, printed in zip(steps, outputs, strict=True):
                lines = "\n".join(printed)
                assert tour.agree(step.shown, printed), f"$ {step.command}\n{lines}\n\nthe page shows\n{step.shown}"


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
