"""The cards of the board: an ordinary model, which knows nothing of streams."""

from django.db import models


class Card(models.Model):
    class Column(models.TextChoices):
        IDEAS = "ideas", "Ideas"
        DOING = "doing", "Doing"
        DONE = "done", "Done"

    text = models.CharField(max_length=120)
    column = models.CharField(max_length=8, choices=Column, default=Column.IDEAS)
    moved_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["moved_at", "pk"]

    def __str__(self) -> str:
        return self.text
