from io import StringIO

import pytest
from django.core.management import call_command


@pytest.mark.django_db
def test_the_migrations_say_what_the_models_say() -> None:
    output = StringIO()
    try:
        call_command("makemigrations", "durable_streams", "durable_streams_ai", check=True, dry_run=True, stdout=output)
    except SystemExit:
        pytest.fail(f"The models have changed:\n{output.getvalue()}")
