"""WSGI entry: the protocol through Django's views. Everything but SSE works here."""

import os
import sys
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
