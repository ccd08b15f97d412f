"""docs/howto/rooms.md, followed as it is written in a new project, and looked at in a browser."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_tutorial import log_in, log_in_again, say, shows
from tests.browser.visitor import Visitor
from tests.docs.pages import ROOT, blocks
from tests.docs.walk import LANGUAGES, Walk, environment

pytestmark = pytest.mark.browser

PAGE = ROOT / "docs" / "howto" / "rooms.md"


def status_of(visitor: Visitor, url: str, options: str = "{}") -> int:
    status: int = visitor.page.evaluate(f"async () => (await fetch('{url}', {options})).status")
    return status


def test_rooms_with_members(chromium: Any, tmp_path: Path) -> None:
    walk = Walk(tmp_path, environment())
    walk.prepare(blocks(PAGE, *LANGUAGES))
    in_a_shell(walk, "room.stream.append_many({'author': 'ada', 'text': str(n)} for n in range(120))")
    path = in_a_shell(walk, "print(room.stream.path)").strip()
    with walk.serving() as url:
        ada, grace = log_in(chromium, url, "ada"), log_in(chromium, url, "grace")
        ada.page.goto("/rooms/1/")
        shows(ada, "Earlier messages", *(f"ada {number}" for number in range(70, 120)))
        say(ada, "Tea?")
        shows(ada, "Earlier messages", *(f"ada {number}" for number in range(70, 120)), "ada Tea?")
        for first in (20, 0):
            ada.page.get_by_role("button", name="Earlier messages").click()
            button = ["Earlier messages"] if first else []
            shows(ada, *button, *(f"ada {number}" for number in range(first, 120)), "ada Tea?")
        assert ada.complaints == []

        stream = f"/v1/stream/{path}"
        append = "{method: 'POST', body: '{}', headers: {'Content-Type': 'application/json'}}"
        assert [status_of(ada, stream), status_of(ada, stream, append)] == [200, 403]
        assert [status_of(grace, stream), status_of(grace, stream, append)] == [403, 403]
        assert [status_of(grace, f"/rooms/1/{view}") for view in ("", "earlier/?before=-1")] == [404, 404]
        assert [status_of(ada, f"/rooms/1/earlier/?before={offset}") for offset in ("", "-1", "x")] == [400, 200, 400]

        in_a_shell(walk, "room.members.add(2)")
        grace.page.goto("/rooms/1/")
        say(grace, "Earl Grey, please.")
        ada.page.get_by_text("Earl Grey, please.").wait_for()
        lose_the_login(grace)
        log_in_again(grace, "grace")
        grace.page.get_by_role("button", name="Send").click()
        ada.page.get_by_text("Is there milk?").wait_for()
        delete_the_room(ada, walk)
        ada.context.close()
        grace.context.close()


def delete_the_room(ada: Visitor, walk: Walk) -> None:
    """In the admin, alone and among others: its messages go, too."""
    in_a_shell(walk, "Room.objects.create(name='Garden'); Room.objects.create(name='Cellar')", "")
    assert left(walk) == ["3", "3"]
    ada.page.goto("/admin/rooms/room/1/delete/")
    ada.page.get_by_role("button", name="Yes").click()
    ada.page.wait_for_url("**/admin/rooms/room/")
    assert left(walk) == ["2", "2"]
    ada.page.locator("#action-toggle").check()
    ada.page.locator("select[name=action]").select_option("delete_selected")
    ada.page.get_by_role("button", name="Go").click()
    ada.page.get_by_role("button", name="Yes").click()
    ada.page.get_by_text("Successfully deleted 2 rooms").wait_for()
    assert left(walk) == ["0", "0"]


def left(walk: Walk) -> list[str]:
    code = (
        "from django_durable_streams.models import Stream; print(Room.objects.count(), Stream.objects.alive().count())"
    )
    return in_a_shell(walk, code, "").split()


def lose_the_login(visitor: Visitor) -> None:
    """As an expired session does. What the user has written stays, and the list does not show the page of the login."""
    visitor.context.clear_cookies(name="sessionid")
    say(visitor, "Is there milk?")
    visitor.page.get_by_text("The message was refused (log in again).").wait_for()
    assert visitor.page.get_by_label("Your message").input_value() == "Is there milk?"
    visitor.page.get_by_role("button", name="Earlier messages").click()
    visitor.page.get_by_text("There was no answer (log in again).").wait_for()
    assert visitor.page.locator("#messages input").count() == 0


def in_a_shell(walk: Walk, code: str, room: str = "room = Room.objects.get();") -> str:
    return walk.run(f'python manage.py shell --verbosity 0 -c "from rooms.models import Room; {room} {code}"')
