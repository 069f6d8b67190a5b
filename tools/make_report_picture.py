"""Draw docs/images/report.png: a report of the sample photos, parts of them, and broken ones, in Chromium.

What the page says is what the bundled model says. Run in the repository: python -m tools.make_report_picture
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

from PIL import Image

from convnext_cli import classify
from convnext_cli.jobs.entry import Entry
from convnext_cli.jobs.report import Summary, small_jpeg, write
from tests.helpers import browser as browsers
from tests.helpers.paths import SAMPLES
from tests.helpers.photos import encoded, picture

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "images" / "report.png"
FOLDER = "/home/ada/holiday"  # as the page shows it
FLOOR = 0.15


def photos(folder: Path) -> list[Path]:
    """The samples, parts of them on either side, one turned, one made, three broken."""
    made: dict[str, bytes] = {}
    for number, sample in enumerate(SAMPLES):
        with Image.open(sample) as image:
            w, h = image.size
            parts = [(0, 0, w, h), (0, 0, w * 2 // 3, h), (w // 3, 0, w, h), (w // 4, h // 5, w * 3 // 4, h)]
            for part, box in enumerate(parts):
                made[f"IMG_{2041 + 7 * number + part}.jpg"] = encoded(image.crop(box), "JPEG", quality=90)
    made["garden/IMG_2063.jpg"] = encoded(picture(640, 480), "JPEG")
    made["garden/IMG_2064.jpg"] = made["IMG_2041.jpg"][:9000]
    made["garden/IMG_2065.jpg"] = b""
    made["garden/notes.jpg"] = b"Water the tomatoes."
    for name, data in made.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    return [folder / name for name in made]


def make(folder: Path) -> Path:
    """The report of them, made in this folder."""
    target = folder / "report.html"
    rows = classify(photos(folder), min_score=FLOOR)
    shown = [f"{FOLDER}/{Path(row.path).relative_to(folder)}" for row in rows]
    files = dict(zip(shown, (row.path for row in rows), strict=True))
    entries = [Entry(file, replace(row, path=file)) for file, row in zip(shown, rows, strict=True)]
    counts = {status: sum(row.status == status for row in rows) for status in ("ok", "unknown", "failed")}
    summary = Summary(counts, rows[0].model, str(date.today()))
    write(entries, target, title="holiday", summary=summary, picture=lambda file: small_jpeg(files[file]))
    return target


def main() -> None:
    program = browsers.found() or sys.exit(f"none of {', '.join(browsers.NAMES)} is installed")
    with tempfile.TemporaryDirectory() as name, browsers.running(program) as browser:
        browser.open(make(Path(name)), width=1280, height=860).shot(TARGET)


if __name__ == "__main__":
    main()
