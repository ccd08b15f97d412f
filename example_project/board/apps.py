from django.apps import AppConfig


class BoardConfig(AppConfig):
    name = "board"

    def ready(self) -> None:
        from . import signals  # noqa: F401
