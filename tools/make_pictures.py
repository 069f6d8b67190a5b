"""Draw docs/images/classify.svg from a real run of the command over samples/."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    photos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "samples").glob("*.jpg"))
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "84", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("convnext")), "classify", "-f", "table", *photos],
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


if __name__ == "__main__":
    main()
