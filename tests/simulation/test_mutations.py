"""Each fault that can be put back fits to the package as it is: a process that cannot load would look like a find."""

import pytest

from .images import ROOT
from .mutations import MUTATIONS


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_fault_changes_the_module_that_it_is_for(name: str) -> None:
    mutation = MUTATIONS[name]
    text = (ROOT / mutation.module).read_text()
    changed = mutation.applied(mutation.module, text)
    assert changed != text
    compile(changed, mutation.module, "exec")


def test_a_fault_that_does_not_fit_any_more_is_an_error() -> None:
    mutation = next(iter(MUTATIONS.values()))
    with pytest.raises(LookupError, match="write it anew"):
        mutation.applied(mutation.module, "")
