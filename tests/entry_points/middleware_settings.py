"""The example project behind everything that Django has between a server and a view."""

from config.settings import DATABASES, DURABLE_STREAMS, MIDDLEWARE

from tests.serving_settings import *  # noqa: F403

MIDDLEWARE = [
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.BrokenLinkEmailsMiddleware",
    *MIDDLEWARE,
    "django.middleware.cache.FetchFromCacheMiddleware",
]
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
DATABASES["default"]["ATOMIC_REQUESTS"] = True
# What Django's cache would keep, if it were asked.
DURABLE_STREAMS["CACHE_SCOPE"] = "public"
