"""Permissions of the servers that pages of tests use."""

from django_durable_streams.permissions import Permission


class Public(Permission):
    """Everybody may read the streams below `public/`."""

    in_memory = True
    needs_user = False

    def can_read(self, user: object, path: str, request: object) -> bool:
        return path.startswith("public/")
