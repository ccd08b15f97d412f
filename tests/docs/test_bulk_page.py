"""docs/howto/bulk.md, in the project of the tutorial: no change is lost or doubled, whoever makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.walk import Walk, environment, steps
from tests.projects.databases import new_database

PAGE = ROOT / "docs" / "howto" / "bulk.md"
MODELS, CALLS = blocks(PAGE, "python")
(FIXTURE,) = blocks(PAGE, "sh")

# Four threads change overlapping sets, and each adds rows.
CHANGES = """
from threading import Thread
from django.db import connection
from orders.models import Order

def work(number):
    try:
        for turn in range(5):
            Order.objects.filter(pk__lte=10).update_and_announce(text=f"{number}-{turn}")
            Order.objects.bulk_create_and_announce([Order(text=f"new {number}-{turn}"), Order(text="other")])
            Order.objects.filter(pk=number + 1).delete()
    finally:
        connection.close()

threads = [Thread(target=work, args=[number]) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

ROLLED_BACK = """
from django.db import transaction
from orders.models import Order

with transaction.atomic():
    Order.objects.update_and_announce(text="never")
    transaction.set_rollback(True)
"""


class Kitchen(Walk):
    """The project of the tutorial, with the models of the page."""

    def begin(self, kind: str) -> None:
        pages = [step for name in ("chat", "board") for step in steps(name)]
        self.prepare([step for step in pages if step.language == "python" or " start" in step.text])
        with (self.folder / "mysite" / "settings.py").open("a") as file:
            if kind != "sqlite":
                file.write(f'DATABASES["default"] = {new_database(kind, self.folder)!r}\n')
        self.run("python manage.py makemigrations orders")
        self.prepare([MODELS])
        assert "No changes" in self.run("python manage.py makemigrations --check orders")
        self.run("python manage.py migrate")

    def script(self, text: str) -> None:
        (self.folder / "script.txt").write_text(text)
        self.run("python -c \"import django; django.setup(); exec(open('script.txt').read(), {})\"")

    def messages(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.run("python manage.py streams read board").splitlines()]

    def rows(self) -> dict[object, dict[str, object]]:
        code = "print(json.dumps(list(Order.objects.values('id', 'text', 'state'))))"
        printed = self.run(
            f'python manage.py shell --verbosity 0 -c "import json; from orders.models import *; {code}"'
        )
        return {row["id"]: row for row in json.loads(printed)}


def shown(messages: list[dict[str, object]]) -> dict[object, dict[str, object]]:
    """Return the rows of a page that has followed the stream from its beginning."""
    page: dict[object, dict[str, object]] = {}
    for message in messages:
        if message.get("deleted"):
            page.pop(message["id"], None)
        else:
            page[message["id"]] = message
    return page


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.cluster)])
def kitchen(request: pytest.FixtureRequest, tmp_path: Path) -> Kitchen:
    result = Kitchen(tmp_path, {**environment(), "DJANGO_SETTINGS_MODULE": "mysite.settings"})
    result.begin(request.param)
    return result


def test_open_pages_show_each_change_once(kitchen: Kitchen) -> None:
    kitchen.script(f"from orders.models import Order\n{CALLS.text}")
    kitchen.script(f"from orders.models import Order\n{CALLS.text}")
    assert [(message["id"], message["state"]) for message in kitchen.messages()] == [
        *((1, "new"), (2, "new"), (1, "cooking"), (2, "cooking"), (3, "new"), (4, "new")),
    ]
    kitchen.script(ROLLED_BACK)
    assert len(kitchen.messages()) == 6
    assert shown(kitchen.messages()) == kitchen.rows()


def test_nothing_is_lost_or_doubled_among_many_writers(kitchen: Kitchen) -> None:
    kitchen.script("from orders.models import Order\nOrder.objects.bulk_create_and_announce([Order()] * 0)")
    kitchen.script("from orders.models import *\nOrder.objects.bulk_create_and_announce([Order() for _ in range(10)])")
    kitchen.script(CHANGES)
    messages = kitchen.messages()
    assert shown(messages) == kitchen.rows()
    made = [message for message in messages if str(message.get("text", "")).startswith("new ")]
    assert len(made) == len({message["id"] for message in made}) == 20
    assert len([message for message in messages if message.get("deleted")]) == 4
    # Row 10 is never deleted, and 20 times changed.
    assert len([message for message in messages if message["id"] == 10]) == 1 + 20


def test_new_rows_of_a_fixture_are_announced(kitchen: Kitchen) -> None:
    kitchen.script("from orders.models import Order\nOrder.objects.create(text='old', state='served')")
    order = {"model": "orders.order", "pk": 7, "fields": {"text": "from a fixture", "state": "new"}}
    (kitchen.folder / "new_orders.json").write_text(json.dumps([order]))
    last, load, announce = FIXTURE.text.splitlines()
    assert kitchen.run(last).strip() == "1"
    kitchen.run(load)
    assert [message["id"] for message in kitchen.messages()] == [1]
    kitchen.run(announce)
    assert [message["id"] for message in kitchen.messages()] == [1, 7]
    assert shown(kitchen.messages()) == kitchen.rows()
