"""Each saved or deleted card becomes a message of the board's stream, in the transaction of the change."""

from typing import Any

from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from django_durable_streams.models import Stream

from .models import Card

STREAM = "board/cards"


def board_stream() -> Stream:
    stream, _ = Stream.objects.ensure(STREAM, content_type="application/json")
    return stream


@receiver(post_save, sender=Card)
def tell_saved(instance: Card, created: bool, raw: bool, **options: Any) -> None:
    if not raw:  # fixtures are loaded without news
        event = "added" if created else "moved"
        board_stream().append({"event": event, "id": instance.pk, "text": instance.text, "column": instance.column})


@receiver(post_delete, sender=Card)
def tell_deleted(instance: Card, **options: Any) -> None:
    board_stream().append({"event": "deleted", "id": instance.pk})
