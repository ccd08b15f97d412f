"""The messages of a chat, made from its events."""

import pytest

from django_durable_streams.contrib.ai.events import AnyEvent, Finish, Message, Rewind, Start, Text, TextPart
from django_durable_streams.contrib.ai.history import messages_of


def turn(number: int) -> Message:
    return Message(f"u{number}", "user", [TextPart(str(number))])


@pytest.mark.parametrize(
    ("rewind", "left"),
    [
        (Rewind(before="u2"), ["u1", "a1"]),
        (Rewind(after="u2"), ["u1", "a1", "u2"]),
        (Rewind(before="u1"), []),
        (Rewind(after="none"), ["u1", "a1", "u2", "u3"]),
    ],
)
def test_a_rewind_takes_messages_back_and_their_ids_count_anew(rewind: Rewind, left: list[str]) -> None:
    events: list[AnyEvent] = [turn(1), Start("r", "a1"), Text("x"), Finish("r"), turn(2), turn(3)]
    assert [message.id for message in messages_of([*events, rewind])] == left
    again = messages_of([*events, rewind, turn(3)])
    assert [message.id for message in again] == [*left, "u3"][: len(left) + ("u3" not in left)]


def test_many_messages_are_not_compared_with_each_other() -> None:
    """A request may have tens of thousands of them, and all answers of the process wait for their history."""

    class Id(str):
        comparisons = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Id.comparisons += 1
            return str.__eq__(self, other)

    count = 2000
    assert len(messages_of(Message(Id(f"u{number}")) for number in range(count))) == count
    assert Id.comparisons < 10 * count
