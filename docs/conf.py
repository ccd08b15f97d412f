"""The settings of the documentation's site: `make docs` builds it with warnings as errors.

The pages are written for GitHub, and stay as they are. `_site/pages.py` makes pages of a site of them.
"""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE / "_site")]

import accessible  # noqa: E402
import pages  # noqa: E402
import statuses  # noqa: E402
import tables  # noqa: E402
from django.conf import settings as django_settings  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = PROJECT["name"]
author = PROJECT["authors"][0]["name"]
version = release = PROJECT["version"]
copyright = author

root_doc = "index"
exclude_patterns = ["README.md", "_site"]
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
# Written as in Markdown: a name in backticks is code.
default_role = "code"
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "text"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_js_files = ["cost.js"]
html_search_scorer = str(HERE / "_site" / "scorer.js")
html_show_sourcelink = False
html_copy_source = False
# The buttons of the theme at the top are outside of all landmarks.
html_theme_options = {"top_of_page_buttons": []}

# Autodoc imports the models.
if not django_settings.configured:
    import django

    django_settings.configure(
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "django_durable_streams",
            "django_durable_streams.contrib.ai",
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        SECRET_KEY="only for the documentation",
    )
    django.setup()


def setup(app: pages.Sphinx) -> None:
    pages.setup(app, ROOT, PROJECT["urls"]["Homepage"])
    accessible.setup(app)
    statuses.setup(app)
    tables.setup(app)
