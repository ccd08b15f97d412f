"""Archives outside of a transaction of the caller, as the commands work: the store's own transactions."""

from pathlib import Path

import pytest

from django_durable_streams.models import Stream
from django_durable_streams.protocol.retention import RetentionRules
from tests.store.archive.test_archive import export, restore_from

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_import_restores_forks_retention_and_trims(tmp_path: Path) -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain")
    first = stream.append("one").offset
    stream.append("two", producer=("job", 0, 0))
    fork = stream.fork("fork")
    fork.append("x" * 3_000_000)
    fork.retain()
    stream.retain(age=60)
    stream.trim(before=first)
    export(tmp_path / "a")
    for path in ("a", "fork"):
        Stream.objects.get(path=path).delete()
    Stream.objects.unguarded().filter(path__isnull=False).update(path=None)
    assert restore_from(tmp_path / "a").done == 2
    again, fork = Stream.objects.get(path="a"), Stream.objects.get(path="fork")
    assert ([*again.read()], again.retention) == (["two"], RetentionRules(age=60))
    assert [*fork.read()] == ["one", "two", "x" * 3_000_000]
    assert again.append("two", producer=("job", 0, 0)).duplicate
    assert restore_from(tmp_path / "a").skipped == 2
