"""Draw the diagrams of the documentation, which are Mermaid in its pages, as the pictures that the site shows.

    npm pack mermaid && tar xf mermaid-*.tgz
    python tools/draw_diagrams.py package/dist/mermaid.min.js

GitHub draws the same text by itself. A picture is named after its text, so a changed diagram needs a new one, and the
site does not build without it. Needs Chromium.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "docs" / "_site"))

DRAW = """async (source) => {
  mermaid.initialize({startOnLoad: false, theme: "neutral", htmlLabels: false, flowchart: {htmlLabels: false},
                      fontFamily: "sans-serif", deterministicIds: true, deterministicIDSeed: "diagram"});
  return (await mermaid.render("diagram", source)).svg;
}"""


def diagrams() -> dict[str, str]:
    """Return the texts of all diagrams by the names of their pictures."""
    from pages import DIAGRAM, diagram_name  # type: ignore[import-not-found]

    texts = [match[1] for page in sorted((ROOT / "docs").rglob("*.md")) for match in DIAGRAM.finditer(page.read_text())]
    return {diagram_name(text): text for text in texts}


def main(mermaid: str) -> None:
    """Write the pictures of all diagrams, and delete those of earlier ones."""
    wanted = diagrams()
    for picture in IMAGES.glob("diagram-*.svg"):
        if picture.name not in wanted:
            picture.unlink()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.add_script_tag(path=mermaid)
        for name, text in wanted.items():
            svg = page.evaluate(DRAW, text)
            # On a page with a dark background the lines would not be seen.
            svg = re.sub(r'style="', 'style="background: white; ', svg, count=1)
            (IMAGES / name).write_text(f"{svg}\n")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
