"""Settings for servers of tests: those of the example project, without what only its `runserver` needs.

The app `daphne` imports Twisted into each process of the project, which takes as long as all else that it imports. The
conformance suite runs with the example project's own settings.
"""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "daphne"]

# The default takes half a second of a processor for each user that is made, and for each login.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
