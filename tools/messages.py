"""Update the catalogs of translations from the texts in the code: `make messages`.

New texts come without a translation, and texts that are gone leave. Each catalog is compiled beside its source. Both
files are committed, so that a checkout needs no gettext. Only the extraction needs its program `xgettext`.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import polib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "django_durable_streams"
LANGUAGES = ("de", "es", "fr", "ja", "zh_Hans")


def catalog_path(language: str) -> Path:
    """Return the path of a language's catalog."""
    return PACKAGE / "locale" / language / "LC_MESSAGES" / "django.po"


def extract() -> polib.POFile:
    """Return all marked texts of the package's modules and templates, without translations."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / PACKAGE.name
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("locale", "migrations", "__pycache__", "static"))
        (copy / "locale").mkdir()
        options = ["--locale", "en", "--no-location", "--no-wrap"]
        subprocess.run([sys.executable, "-m", "django", "makemessages", *options], cwd=copy, check=True)
        return polib.pofile(copy / "locale" / "en" / "LC_MESSAGES" / "django.po", wrapwidth=0)


def updated(catalog: polib.POFile, texts: polib.POFile) -> polib.POFile:
    """Return a catalog of the texts, in their order, with the translations of an earlier catalog."""
    forms = int(re.findall(r"nplurals=(\d+)", catalog.metadata["Plural-Forms"])[0])
    translations = {entry.msgid: entry for entry in catalog if not entry.obsolete}
    result = polib.POFile(wrapwidth=0)
    result.metadata = catalog.metadata
    for text in texts:
        before = translations.get(text.msgid)
        if before is None or before.msgid_plural != text.msgid_plural:
            before = polib.POEntry(msgid=text.msgid, msgid_plural=text.msgid_plural)
            if text.msgid_plural:
                before.msgstr_plural = dict.fromkeys(range(forms), "")
        before.flags = sorted({*text.flags, *("fuzzy" for flag in before.flags if flag == "fuzzy")})
        before.comment = text.comment
        result.append(before)
    return result


def main() -> int:
    """Update and compile all catalogs, and name the texts that lack a translation."""
    texts = extract()
    missing = 0
    for language in LANGUAGES:
        path = catalog_path(language)
        catalog = updated(polib.pofile(path), texts)
        catalog.save(path)
        catalog.save_as_mofile(path.with_suffix(".mo"))
        for entry in (*catalog.untranslated_entries(), *catalog.fuzzy_entries()):
            print(f"{language}: {entry.msgid}")
            missing += 1
    if missing:
        print(f"{missing} translations are missing. Write them into the catalogs, and run this again.")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
