"""Settings of the example project. All values that differ between deployments come from environment variables.

DATABASE_URL        any URL that dj-database-url reads; default: db.sqlite3 beside manage.py
REDIS_URL           redis://host:port/db; default: none. Then readers of other processes poll the database
LONG_POLL_TIMEOUT   seconds that a long-poll waits; default: 25
EXAMPLE_DOOR        asgi (default): the bare ASGI application serves streams, and Django serves all other URLs
                    urls: Django's views serve streams, behind the middleware below
PERMISSION          dotted paths of permission classes, comma-separated; default: everybody may do everything.
                    With others, the chat and the board ask for a login, and chats belong to their users
ALLOWED_HOSTS       comma-separated; default: localhost and 127.0.0.1
OPENAI_MODEL        the model that answers in the chat, at any server that speaks OpenAI's protocol. Needs the package
                    openai, which reads OPENAI_API_KEY and OPENAI_BASE_URL. Default: a generator of this project answers
TOKENS_PER_SECOND   how fast that generator writes; default: 25
PUBLIC_URL          the address of this server for other devices, such as http://192.168.1.20:8000; default: that of the
                    request
SECRET_KEY, DEBUG   as usual
"""

import os
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def texts(variable: str, default: str) -> list[str]:
    """Return the comma-separated texts of a variable. An empty variable is none."""
    return [text for part in (os.environ.get(variable) or default).split(",") if (text := part.strip())]


DEBUG = os.environ.get("DEBUG", "") == "1"
SECRET_KEY = os.environ.get("SECRET_KEY", "example-only-not-for-production-0123456789-abcdefghij")
ALLOWED_HOSTS = texts("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
EXAMPLE_ENTRY_POINT = os.environ.get("EXAMPLE_DOOR") or "asgi"
PERMISSION_CLASSES = texts("PERMISSION", "django_durable_streams.permissions.AllowAll")
REDIS_URL = os.environ.get("REDIS_URL", "")
OPENAI_MODEL = os.environ.get("OPENAI_MODEL", "")
TOKENS_PER_SECOND = float(os.environ.get("TOKENS_PER_SECOND", "25"))
PUBLIC_URL = os.environ.get("PUBLIC_URL", "").rstrip("/")

if EXAMPLE_ENTRY_POINT not in ("asgi", "urls"):
    raise ImproperlyConfigured(f"EXAMPLE_DOOR is {EXAMPLE_ENTRY_POINT!r}. Write asgi or urls.")
if PUBLIC_URL and not PUBLIC_URL.startswith(("http://", "https://")):
    raise ImproperlyConfigured(f"PUBLIC_URL is {PUBLIC_URL!r}. It must begin with http:// or https://.")
if not TOKENS_PER_SECOND > 0:
    raise ImproperlyConfigured("TOKENS_PER_SECOND must be greater than 0.")

# Whether visitors need no login.
IS_OPEN = PERMISSION_CLASSES == ["django_durable_streams.permissions.AllowAll"]

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "django_durable_streams",
    "django_durable_streams.contrib.ai",
    "demo",
    "chat",
    "board",
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

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
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

DATABASES = {"default": dj_database_url.config(default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")}

match DATABASES["default"]["ENGINE"]:
    case "django.db.backends.sqlite3":
        # IMMEDIATE: a transaction that reads and then writes never fails with "database is locked".
        # WAL: readers and the writer do not block each other. FULL: a commit is on the disk.
        DATABASES["default"].setdefault("OPTIONS", {}).update(
            {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            }
        )

if REDIS_URL:
    CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL}}

DURABLE_STREAMS: dict[str, Any] = {
    "LONG_POLL_TIMEOUT": float(os.environ.get("LONG_POLL_TIMEOUT", "25")),
    # The demo is for use on the developer's own machine. A real project removes this line to use Django's permissions,
    # or names other classes. See docs/access.md.
    "PERMISSION_CLASSES": PERMISSION_CLASSES,
    # Who knows the link of a chat may use it. A real project removes this line, so that users have chats of their own.
    "AI_PERMISSION_CLASS": "django_durable_streams.contrib.ai.permissions."
    + ("AnonymousChats" if IS_OPEN else "OwnChats"),
    # An answer whose process was killed goes on after so many seconds.
    "AI_LEASE": 3,
    # All pages may use the demo's streams. A real project lists its own origins.
    "CORS_ORIGINS": ["*"],
    # Webhooks may go to receivers on the developer's own machine. A real project sends them to public HTTPS URLs, and
    # sets WEBHOOK_KEY_SECRET. See docs/webhooks.md.
    "WEBHOOK_ALLOWED_HOSTS": ["localhost", "127.0.0.0/8"],
}

if REDIS_URL:
    DURABLE_STREAMS["WAKEUP"] = {
        "BACKEND": "django_durable_streams.engine.wakeup.redis.RedisWakeup",
        "CACHE": "default",
    }

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
]
LOGIN_URL = "admin:login"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "static_root"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": os.environ.get("LOG_LEVEL", "WARNING")},
}
