"""Order the map of docs/architecture.md from the ground up: ``python tools/make_map.py``.

The map has a heading for each room, and a line for each file. A file imports only from files above it. This moves lines
to where they may stand, adds a line for a new file (with the first sentence of its docstring: shorten it), and removes
the lines of files that are gone. Rooms are never moved: an import that points up to another room is a mistake.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "convnext_cli"
PAGE = ROOT / "docs" / "architecture.md"
_HEADING = re.compile(r"^### (\d+)\. `(\w+)/`", re.MULTILINE)
_LINE = re.compile(r"^- `([\w/]+\.py)`: (.+)$", re.MULTILINE)


class Room(NamedTuple):
    """A section of the map: the floor that it is on, the folder's name, and a text for each file, in their order."""

    floor: int
    name: str
    files: dict[str, str]


def rooms(page: str) -> list[Room]:
    """The sections of the map, from the ground up.

    Args:
        page: the text of docs/architecture.md.
    """
    starts = list(_HEADING.finditer(page))
    ends = [*(match.start() for match in starts[1:]), len(page)]
    return [
        Room(int(match[1]), match[2], dict(_LINE.findall(page[match.end() : end].partition("\n## ")[0])))
        for match, end in zip(starts, ends, strict=True)
    ]


def modules() -> dict[str, Path]:
    """Every file of the package by its name in imports, without ``convnext_cli.``; the package itself is ""."""
    return {_name(path): path for path in PACKAGE.rglob("*.py")}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a file imports, also inside functions and for types.

    Args:
        path: of the file.
        known: the result of ``modules``. A name that is imported from a room counts as the module that it is.
    """
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("convnext_cli.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            room = str(node.module).removeprefix("convnext_cli").lstrip(".")
            inner = {f"{room}.{alias.name}".lstrip(".") for alias in node.names}
            names |= {name if name in known else room for name in inner}
    return {name for name in names if name and name in known}


def holds_code(path: Path) -> bool:
    """Whether there is more in a file than a docstring: others have no line in the map."""
    return len(ast.parse(path.read_text("utf-8")).body) > 1


def files_of(room: str, known: dict[str, Path]) -> dict[str, str]:
    """The files of a room that need a line: the name of each module by its path within the room."""
    folder = PACKAGE / room
    return {
        path.relative_to(folder).as_posix(): name
        for name, path in known.items()
        if folder in path.parents and holds_code(path)
    }


def ordered(room: Room, known: dict[str, Path]) -> list[str]:
    """The files of a room from the ground up, as near to the order of the map as imports allow; folders together."""
    files = files_of(room.name, known)
    names = {name: file for file, name in files.items()}
    below = {file: {names[name] for name in imported(known[files[file]], known) & names.keys()} for file in files}
    waiting = [*(file for file in room.files if file in files), *sorted(files.keys() - room.files.keys())]
    done: list[str] = []
    while waiting:
        free = [file for file in waiting if below[file] <= {*done, file}]
        assert free, f"imports go round in a circle: {waiting}"
        folder = done[-1].rpartition("/")[0] if done else ""
        chosen = next((file for file in free if file.rpartition("/")[0] == folder), free[0])
        waiting.remove(chosen)
        done.append(chosen)
    return done


def written(page: str) -> str:
    """The page with its map in order."""
    known = modules()
    for room in rooms(page):
        lines = [
            f"- `{file}`: {room.files.get(file) or _described(PACKAGE / room.name / file)}"
            for file in ordered(room, known)
        ]
        start = re.search(rf"^### {room.floor}\. `{room.name}/`.*\n", page, re.MULTILINE)
        assert start is not None
        end = min((at for mark in ("\n### ", "\n## ") if (at := page.find(mark, start.end())) >= 0), default=len(page))
        first = _LINE.search(page, start.end(), end)
        before = page[start.end() : first.start() if first else end].strip("\n")
        parts = [before, "\n".join(lines)] if before else ["\n".join(lines)]
        page = page[: start.end()] + "\n" + "\n\n".join(parts) + "\n" + page[end:]
    return page


def _described(path: Path) -> str:
    sentence = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "TODO").split("\n\n")[0]
    return sentence.replace("\n", " ").rstrip(".")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), encoding="utf-8")
