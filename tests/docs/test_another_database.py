"""A project with the samples of the documentation moves to another database as documented, and doubles nothing."""

import json
import textwrap
from pathlib import Path
from typing import Any

from tests.docs.pages import ROOT, Block, blocks, section
from tests.docs.walk import Walk, environment, steps

DOCS = ROOT / "docs"
PAGE = DOCS / "commands.md"

RECEIVERS = [
    block
    for page in sorted(DOCS.rglob("*.md"))
    for block in blocks(page, "python")
    if "@receiver(post_save" in block.text.replace(" ", "")
]

CONSUMER = """
from django.contrib.auth.models import Group
from django_durable_streams.consumers import consumer

@consumer("board", name="count", start="beginning")
def count(batch):
    for message in batch.messages:
        Group.objects.create(name=f"order {Group.objects.count() + 1}")
"""

RUN = "from django_durable_streams.testing import run_consumers; run_consumers()"


def commands(part: int) -> list[Block]:
    """The commands of the page for the old database, and those for the new one."""
    text = section(PAGE, "Another database")
    return [[block for block in blocks(PAGE, "sh") if block.text in f"{text}\n"][part]]


def in_a_shell(walk: Walk, code: str) -> None:
    walk.run(f'python manage.py shell --verbosity 0 -c "{code}"')


def messages(walk: Walk) -> dict[str, list[Any]]:
    rows = [json.loads(line) for line in walk.run("python manage.py streams read --json '**'").splitlines()]
    return {path: [row["message"] for row in rows if row["path"] == path] for path in {row["path"] for row in rows}}


def test_all_samples_with_a_receiver_are_in_the_test() -> None:
    """The sample of bulk.md takes the place of the one of board.md, and has a test with fixtures of its own."""
    assert [block.page.name for block in RECEIVERS] == ["bulk.md", "python.md", "quickstart.md", "board.md"]


def test_a_move_doubles_no_message(tmp_path: Path) -> None:
    walk = Walk(tmp_path, environment())
    _, outbox, note, _ = RECEIVERS
    walk.prepare([step for step in steps("chat") if step.language != "sh" or "startproject" in step.text])
    walk.prepare([step for step in steps("board") if step.language != "sh" or "startapp" in step.text])
    walk.run("python manage.py startapp notes")
    walk.prepare([note])
    (walk.folder / "chat" / "models.py").write_text(outbox.text)
    (walk.folder / "orders" / "streams.py").write_text(CONSUMER)
    with (walk.folder / "mysite" / "settings.py").open("a") as file:
        file.write('INSTALLED_APPS += ["notes"]\n')
    (walk.folder / "mysite" / "new.py").write_text(
        textwrap.dedent("""
            from .settings import *

            DATABASES["default"]["NAME"] = BASE_DIR / "new.sqlite3"
        """)
    )
    walk.run("python manage.py makemigrations orders notes")
    walk.run("python manage.py migrate")
    in_a_shell(
        walk,
        "from orders.models import Order; from notes.models import Note; from django.contrib.auth.models import User;"
        "User.objects.create_user('ada'); Note.objects.create(text='hello');"
        "[Order.objects.create(text=text) for text in ('Assam', 'Chai')]; Order.objects.first().delete()",
    )
    walk.run("""python manage.py streams append chat/lobby '{"author": "ada"}' --create json""")
    in_a_shell(walk, RUN)
    before = messages(walk)
    assert {path: len(listed) for path, listed in before.items()} == {
        "board": 3,
        "chat/lobby": 1,
        "notes": 1,
        "users": 1,
    }

    walk.prepare(commands(0))
    walk.environment["DJANGO_SETTINGS_MODULE"] = "mysite.new"
    walk.prepare(commands(1))
    assert messages(walk) == before
    in_a_shell(walk, RUN)
    counted = "from django.contrib.auth.models import Group; print(Group.objects.count())"
    assert walk.run(f'python manage.py shell --verbosity 0 -c "{counted}"').split() == ["3"]
    in_a_shell(walk, "from orders.models import Order; Order.objects.create(text='Oolong')")
    assert len(messages(walk)["board"]) == 4
