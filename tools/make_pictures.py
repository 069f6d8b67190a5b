"""Draw docs/images/classify.svg and the pictures of `convnext explain` from real runs of the commands over samples/."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent


CONVNEXT = str(Path(sys.executable).with_name("convnext"))


def main() -> None:
    draw_labels()
    draw_maps()


def draw_labels() -> None:
    """The table of labels for each sample."""
    photos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "samples").glob("*.jpg"))
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "84", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    done = subprocess.run(
        [CONVNEXT, "classify", "-f", "table", *photos],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    console = Console(record=True, width=84, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(done.stdout.decode()))
    svg = console.export_svg(title="make run")
    svg = re.sub(r',?\s*url\("[^"]*"\) format\("[^"]*"\)', "", svg)  # local fonts: nothing is fetched to look at it
    (ROOT / "docs" / "images" / "classify.svg").write_text(svg, encoding="utf-8")


def draw_maps() -> None:
    """The map of the best label for one sample, and those of two labels for two samples side by side."""
    with tempfile.TemporaryDirectory() as folder:
        explain(Path("samples/coffee.jpg"), Path(folder), "-k", "1")
        save([Image.open(Path(folder) / "coffee-1.png")], 800, "explain.jpg")
        square = Image.new("RGB", (480, 480))
        for place, name in enumerate(("coffee", "rocket")):
            photo = Image.open(ROOT / "samples" / f"{name}.jpg").convert("RGB")
            photo = photo.resize((round(photo.width * 480 / photo.height), 480))
            middle = (photo.width - 240) // 2
            square.paste(photo.crop((middle, 0, middle + 240, 480)), (240 * place, 0))
        square.save(Path(folder) / "two.png")
        explain(Path(folder) / "two.png", Path(folder) / "two", "--classes", "espresso,projectile")
        save([Image.open(path) for path in sorted((Path(folder) / "two").iterdir())], 600, "explain-two.jpg")


def explain(photo: Path, folder: Path, *options: str) -> None:
    subprocess.run([CONVNEXT, "explain", str(photo), *options, "-o", str(folder)], cwd=ROOT, check=True)


def save(pictures: list[Image.Image], width: int, name: str) -> None:
    """Write pictures below one another."""
    page = Image.new("RGB", (pictures[0].width, sum(image.height for image in pictures)))
    top = 0
    for image in pictures:
        page.paste(image, (0, top))
        top += image.height
    page = page.resize((width, round(width * page.height / page.width)))
    page.save(ROOT / "docs" / "images" / name, quality=82, optimize=True)


if __name__ == "__main__":
    main()
