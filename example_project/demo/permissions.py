"""What visitors may do with the streams of the example over HTTP."""

from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.access.users import User
from django_durable_streams.permissions import AllowAll

OF_THE_BOARD = ("board/", "presence/")


class Visitors(AllowAll):
    """Everybody may do everything, but only the board writes, closes or deletes the streams that all visitors share."""

    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        if path.startswith(OF_THE_BOARD):
            request.explain("Only the board itself changes its streams.")
            return False
        return True

    can_append = can_close = can_delete = can_create
