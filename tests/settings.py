"""Settings for the unit tests: on SQLite, or on the database that DATABASE_URL names."""

import os
from pathlib import Path
from typing import Any
from zlib import crc32

import dj_database_url

from tests.memory import folder_in_memory

SECRET_KEY = "tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
_folder = folder_in_memory()
# Each checkout has a file of its own, and so has each project that a test makes.
_name = f"durable-streams-{crc32(bytes(Path.cwd())):08x}.sqlite3"
_file = str(_folder / _name) if _folder else "tests.sqlite3"
DATABASES: dict[str, Any] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "tests.sqlite3",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        "TEST": {"NAME": _file},
    }
}
if url := os.environ.get("DATABASE_URL"):
    DATABASES["default"] = dj_database_url.parse(url)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django_durable_streams",
    "django_durable_streams.contrib.ai",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
DURABLE_STREAMS: dict[str, Any] = {
    # Most tests are about the protocol; those about permissions set others.
    "PERMISSION_CLASSES": "django_durable_streams.permissions.AllowAll",
}
ROOT_URLCONF = "tests.urls"
# The default takes half a second for each password, and much more on a busy machine.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
