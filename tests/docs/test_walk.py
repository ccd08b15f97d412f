"""Which commands of a page need a shell, and which are nothing but calls of Python."""

import pytest

from tests.docs.walk import words_of_python


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python manage.py migrate", ["manage.py", "migrate"]),
        (
            "python -m uvicorn mysite.asgi:application --port 80",
            ["-m", "uvicorn", "mysite.asgi:application", "--port", "80"],
        ),
        (
            "python manage.py shell -c \"f(n='a'); [g(n) for n in ('a', 'b')]\"",
            ["manage.py", "shell", "-c", "f(n='a'); [g(n) for n in ('a', 'b')]"],
        ),
    ],
)
def test_a_call_of_python_has_its_arguments(command: str, words: list[str]) -> None:
    assert words_of_python(command) == words


@pytest.mark.parametrize(
    "command",
    [
        "curl -i http://localhost",
        "python manage.py check || true",
        "python manage.py check > file",
        "python manage.py check 2>&1",
        "python manage.py check | cat",
        "python manage.py check; ls",
        "python manage.py runserver &",
        "python manage.py check && ls",
        "(python manage.py check)",
        "A=1 python manage.py check",
        "python manage.py check $A",
        'python -c "print($A)"',
        "python *.py",
    ],
)
def test_other_commands_need_a_shell(command: str) -> None:
    assert words_of_python(command) == []
