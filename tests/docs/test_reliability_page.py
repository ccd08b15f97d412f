"""docs/reliability.md names tests that there are."""

import re

from tests.docs.pages import ROOT, table

PAGE = ROOT / "docs" / "reliability.md"


def test_the_tests_that_promises_refer_to_are_there() -> None:
    rows = table(PAGE.read_text())
    assert rows
    for promise, _, where in rows:
        result = re.findall(r"\[`(\w+)`\]\(([^)]+)\)", where)
        assert result, promise
        for name, path in result:
            assert re.search(rf"def {name}\(", (PAGE.parent / path).read_text()), f"{path} has no {name}"
