"""docs/howto/existing-rows.md, followed as it is written, in a project that has rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks, code, section, table
from tests.docs.walk import LANGUAGES, Walk, environment
from tests.projects.databases import new_database

PAGE, ROOMS = ROOT / "docs" / "howto" / "existing-rows.md", ROOT / "docs" / "howto" / "rooms.md"
MODEL, FIELD, FIRST_DEPLOY, BACKFILL, REQUIRED, SECOND_DEPLOY, ONCE_MORE, BACK = blocks(PAGE, *LANGUAGES)
ROWS = 1100
"""More than two portions."""

COUNTS = (
    "print(Team.objects.count(), Team.objects.filter(stream=None).count(), Stream.objects.alive().count(), "
    "len({team.stream_id for team in Team.objects.all()}))"
)


class Site(Walk):
    """A project with an app `teams`."""

    def begin(self, database: dict[str, object]) -> None:
        """Make the project, as it is before the first step of the page, on an empty database."""
        self.run("django-admin startproject mysite .")
        self.run("python manage.py startapp teams")
        with (self.folder / "mysite" / "settings.py").open("a") as file:
            file.write('INSTALLED_APPS += ["django_durable_streams", "teams"]\n')
            file.write(f'DATABASES["default"] = {database!r}\n')
        self.prepare([MODEL])
        self.run("python manage.py makemigrations teams")
        self.run("python manage.py migrate")
        self.shell(f"Team.objects.bulk_create(Team(name=f'team {{n}}') for n in range({ROWS}))", "")

    def shell(self, code: str, stream: str = "from django_durable_streams.models import Stream;") -> str:
        return self.run(f'python manage.py shell --verbosity 0 -c "from teams.models import Team; {stream} {code}"')

    def counts(self) -> list[int]:
        """Return the numbers of rows, of rows without a stream, of streams, and of streams that rows refer to."""
        return [int(number) for number in self.shell(COUNTS).split()]

    def add_row_of_old_code(self, name: str) -> None:
        """Add a row as a process does that does not know the column."""
        insert = f"connection.cursor().execute('INSERT INTO teams_team (name) VALUES (%s)', ['{name}'])"
        self.shell(f"from django.db import connection; {insert}", "")


def quoted(part: str) -> str:
    """Return the sentence of a program that the page quotes."""
    (sentence,) = [one for one in re.findall(r'"([^"]+)"', " ".join(PAGE.read_text().split())) if part in one]
    return sentence


@pytest.mark.parametrize(
    "kind",
    [
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.cluster),
        pytest.param("mariadb", marks=pytest.mark.cluster),
    ],
)
def test_rows_get_streams_while_the_old_code_runs(kind: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    walk = Site(tmp_path / "site", environment())
    walk.begin(new_database(kind, tmp_path))

    walk.prepare([FIELD, FIRST_DEPLOY])
    walk.add_row_of_old_code("of the old code")
    walk.shell("Team.objects.create(name='of the new code'); Team.objects.get(name='team 3').save()")
    assert walk.counts() == [ROWS + 2, ROWS + 1, 1, 2]
    # A row goes with its stream, and a row without one goes, too.
    walk.shell("Team.objects.create(name='short-lived').delete(); Team.objects.create(name='short-lived')")
    walk.shell("Team.objects.bulk_create([Team(name='short-lived')]); Team.objects.filter(name='short-lived').delete()")
    assert walk.counts() == [ROWS + 2, ROWS + 1, 1, 2]

    walk.prepare([BACKFILL, REQUIRED])
    make, migrate = SECOND_DEPLOY.text.splitlines()
    assert migrate == "python manage.py migrate"
    # The page says that there is nothing to correct.
    assert quoted("given a default of") in walk.run(make)
    walk.run("python manage.py migrate teams 0003")
    assert walk.counts() == [ROWS + 2, 0, ROWS + 2, ROWS + 2]
    append = "stream.append('hello'); print(stream.next_offset)"
    begins = walk.shell(f"stream = Team.objects.get(name='team 7').stream; {append}")
    assert int(begins.partition("_")[0]) > 1_000_000_000_000_000  # a generation of now

    walk.add_row_of_old_code("late")
    printed = walk.run("python manage.py migrate || true")
    assert ("DataError" if kind == "mariadb" else "IntegrityError") in printed
    walk.prepare([ONCE_MORE])
    assert walk.counts() == [ROWS + 3, 0, ROWS + 3, ROWS + 3]
    assert walk.shell("print(list(Team.objects.get(name='team 7').stream.read()))").strip() == "['hello']"
    assert "No changes detected" in walk.run("python manage.py makemigrations --check teams")

    walk.prepare([BACK])
    walk.prepare([MODEL])
    printed = walk.shell("print(Team.objects.count(), Stream.objects.alive().count())")
    assert printed.split() == [str(ROWS + 3), "0"]


def test_a_stopped_migration_goes_on_and_a_new_database_has_no_rows(tmp_path: Path) -> None:
    walk = Site(tmp_path, environment())
    walk.begin(new_database("sqlite", tmp_path))
    # The third portion fails.
    failing = BACKFILL.text.replace(
        "for team in portion:", "for team in portion:\n            assert team.pk < 1050", 1
    )
    walk.prepare([FIELD, FIRST_DEPLOY, BACKFILL._replace(text=failing)])
    assert "AssertionError" in walk.run("python manage.py migrate || true")
    assert walk.counts()[1:3] == [ROWS - 1000, 1000]
    walk.prepare([BACKFILL, REQUIRED, SECOND_DEPLOY])
    assert walk.counts() == [ROWS, 0, ROWS, ROWS]
    with (walk.folder / "mysite" / "settings.py").open("a") as file:
        file.write('DATABASES["default"]["NAME"] = BASE_DIR / "new.sqlite3"\n')
    walk.run("python manage.py migrate")
    assert walk.counts() == [0, 0, 0, 0]


def test_the_migration_names_the_newest_one_of_this_app() -> None:
    (named,) = re.findall(r'\("durable_streams", "(\w+)"\)', BACKFILL.text)
    migrations = sorted((ROOT / "django_durable_streams" / "migrations").glob("0*.py"))
    assert named == migrations[-1].stem


FILES = table(section(PAGE, "The permission, the views and the page"))
PAIR = r"`([^`]+)` by `([^`]+)`"

MEMBERS_SEE_THE_ROOM = """
from django.contrib.auth.models import User
from django.test import Client
from teams.models import Team
team = Team.objects.get(name="team 0")
for name in ("ada", "grace"):
    client = Client()
    client.force_login(User.objects.get(username=name))
    statuses = [client.get(f"/rooms/{team.pk}/").status_code, client.get("/").status_code]
    statuses.append(client.post(f"/rooms/{team.pk}/say/", {"text": "hello"}).status_code)
    print(name, statuses)
print(list(team.stream.read()), team.stream.path)
"""


def test_the_permission_and_the_views_of_the_guide_on_rooms_fit_with_the_replacements_of_the_page(
    tmp_path: Path,
) -> None:
    walk = Site(tmp_path, environment())
    walk.begin(new_database("sqlite", tmp_path))
    walk.prepare([FIELD, FIRST_DEPLOY, BACKFILL, REQUIRED, SECOND_DEPLOY])

    models = walk.folder / "teams" / "models.py"
    (members,) = re.findall(r"`(members = models\.ManyToMany.*?)`", PAGE.read_text())
    text = models.read_text().replace("    stream = ", f"    {members}\n    stream = ")
    models.write_text(f"from django.conf import settings\n{text}")
    files = {code(there): (here, dict(re.findall(PAIR, pairs))) for there, here, pairs in FILES}
    assert [there for _, pairs in files.values() for there in pairs if there not in ROOMS.read_text()] == []
    for block in filter(is_copied, blocks(ROOMS, *LANGUAGES)):
        (name,) = [name for name in files if re.match(rf"(?:#|\{{#) {name}", block.text)]
        here, pairs = files[name]
        text = (
            block.text if name.startswith("mysite/") else block.text.replace(name, re.findall(r"`(.+?)`", here)[0], 1)
        )
        for there, replacement in pairs.items():
            assert name.startswith("mysite/") or there in text
            text = text.replace(there, replacement)
        walk.prepare([block._replace(text=text)])
    assert (walk.folder / "teams" / "templates" / "rooms" / "team_room.html").exists()
    with (walk.folder / "mysite" / "settings.py").open("a") as file:
        (classes,) = re.findall(r"^DURABLE_STREAMS = .*rooms\.permissions.*$", ROOMS.read_text(), re.MULTILINE)
        file.write(f"{classes.replace('rooms.permissions', files['mysite/settings.py'][1]['rooms.permissions'])}\n")
        file.write('ALLOWED_HOSTS = ["testserver"]\n')
    walk.run("python manage.py makemigrations teams --name members")
    walk.run("python manage.py migrate")
    users = "[User.objects.create_superuser(name) for name in ('ada', 'grace')]"
    walk.shell(f"from django.contrib.auth.models import User; {users}")
    walk.shell("Team.objects.get(name='team 0').members.add(1)")

    script = walk.folder / "look.py"
    script.write_text(MEMBERS_SEE_THE_ROOM)
    ada, grace, stream = walk.run("python manage.py shell --verbosity 0 < look.py 2> look.log").splitlines()
    assert (ada, grace) == ("ada [200, 200, 204]", "grace [404, 200, 404]")
    messages, path = stream.rsplit(" ", 1)
    assert messages == "[{'author': 'ada', 'text': 'hello'}]"
    walk.run(f"python manage.py streams check-access read {path} --user ada")
    refused = walk.run(f"python manage.py streams check-access read {path} --user grace || true")
    assert "The user is no member of this room." in refused
    other = walk.run("python manage.py streams check-access read news/1 --user grace || true")
    assert "no   Participants" in other
    assert "member" not in other


def is_copied(block: Block) -> bool:
    """Return whether a block of the guide on rooms is a file that the page says to copy."""
    first = block.text.partition("\n")[0]
    return first.startswith(("# rooms/", "{# rooms/", "# mysite/urls.py")) and "rooms/models.py" not in first
