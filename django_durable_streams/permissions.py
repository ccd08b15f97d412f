"""Permission classes for the setting `PERMISSION_CLASSES`, and the names for writing new ones.

DURABLE_STREAMS = {
    "PERMISSION_CLASSES": [
        "django_durable_streams.permissions.SignedURLs",
        {"CLASS": "django_durable_streams.permissions.Owner", "OWNER": "users/{user.pk}/**"},
    ],
}
"""

from .access.access_request import AccessRequest
from .access.base import Permission
from .access.bearer import BearerTokens
from .access.model_permissions import AllowAll, ModelPermissions, ReadOnly
from .access.owners import Owner
from .access.rest_framework import RestFramework
from .access.signed import SignedURLs, sign, signed_url

__all__ = [
    "AccessRequest",
    "AllowAll",
    "BearerTokens",
    "ModelPermissions",
    "Owner",
    "Permission",
    "ReadOnly",
    "RestFramework",
    "SignedURLs",
    "sign",
    "signed_url",
]
