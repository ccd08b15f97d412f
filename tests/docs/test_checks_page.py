"""docs/checks.md has every check, and no other."""

import re

from django_durable_streams import checks
from tests.docs.pages import ROOT, code, table

PAGE = ROOT / "docs" / "checks.md"


def test_the_table_has_every_check_once_and_in_order() -> None:
    package = ROOT / "django_durable_streams"
    # What the settings themselves show is found where they are read.
    paths = [*sorted((package / "checks").glob("*.py")), package / "conf.py", package / "server" / "validation.py"]
    paths += sorted((package / "contrib").glob("*/checks.py"))
    sources = "".join(path.read_text() for path in paths)
    made = set(re.findall(r'(?:id=|Finding\()"(durable_streams\.[EWI]\d{3})"', sources))
    described = set(re.findall(r"\b([EWI]\d{3}): ", sources))
    shown = [code(row[0]) for row in table(PAGE.read_text())]
    assert checks.__doc__
    assert len(shown) == len(set(shown))
    assert set(shown) == made == {f"durable_streams.{name}" for name in described}
    kinds = [name.partition(".")[2] for name in shown]
    assert kinds == sorted(kinds, key=lambda name: ("EWI".index(name[0]), name))


def test_every_row_says_what_is_wrong_and_what_to_do() -> None:
    for row in table(PAGE.read_text()):
        assert len(row) == 3
        assert all(cell.endswith(".") for cell in row[1:]), row
