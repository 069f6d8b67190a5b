"""HTML pages: their parts, the style that all share, and the policy that lets nothing else run."""

from __future__ import annotations

import base64
from functools import cache
from hashlib import sha256
from importlib.resources import files


@cache
def part(package: str, name: str) -> str:
    """The text of a file of a package."""
    return files(package).joinpath(name).read_text("utf-8")


def style(package: str, name: str) -> str:
    """The colours and the font of all pages (``page.css`` beside this file), then a style sheet of a package."""
    return part("convnext_cli.base", "page.css") + part(package, name)


def allowed(source: str) -> str:
    """The name under which a page's policy lets this source run, and no other."""
    return f"'sha256-{base64.b64encode(sha256(source.encode()).digest()).decode()}'"
