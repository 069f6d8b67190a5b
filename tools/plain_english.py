"""List words that this project does not use, and names that say nothing: ``python tools/plain_english.py [WORD]``.

Plain English is easier to read and to search: "again" rather than "anew", "reported" rather than "told". Texts are the
pages of docs/, README.md and CONTRIBUTING.md, and the strings, docstrings and comments of the package. Names are
variables and parameters of the package.
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
# How each phrase is found, and the plain words for it
WORDS = {
    "anew": (r"\banew\b", "again"),
    "told": (r"\btold\b", "reported, shown, asked"),
    "parted": (r"\bparted\b|\bparting\b(?!\")", "split"),  # "parting" is a key of run.json
    "mend": (r"\bmend(s|ed|ing)?\b", "fix"),
    "lies": (r"\b(lies|lie in|lie beside|lie there)\b", "is"),
    "is no": (r"(?<!there )\b(is|are|was) no (?!longer\b|more\b|less\b)\w", "is not a"),
    "what is not": (r"\bwhat (is|are|was) (not|no|there)\b", "missing …, … that …"),
    "what it is": (r"\bof what (is|are|was|it|they)\b|\band what (is|are|was)\b", "a noun"),
    "otherwise": (
        r"\b(answer|compute|count|label|made|make|prepare|read|round|say|write)\w* otherwise\b|\botherwise than\b",
        "differently",
    ),
    "whoever": (r"\b(whoever|whatever it|nobody who)\b", "anyone who"),
}
NAMES = ("found", "told", "said", "given", "made", "wanted", "there", "each", "whole")


class Use(NamedTuple):
    """One place where a word stands: a path under the root, a line from 1, the word, and its surroundings."""

    path: str
    line: int
    word: str
    text: str


def uses_in(text: str, path: str, line: int = 1) -> Iterator[Use]:
    """The words of ``WORDS`` in a text.

    Args:
        text: of any number of lines. A phrase may be broken across two of them.
        path: of its file.
        line: where the text begins in it.
    """
    words, offsets, lines = list[str](), list[int](), list[int]()
    for number, row in enumerate(text.split("\n"), line):
        for word in row.split():
            offsets.append(len(words) and offsets[-1] + len(words[-1]) + 1)
            words.append(word)
            lines.append(number)
    flat = " ".join(words)
    for name, (pattern, _) in WORDS.items():
        for match in re.finditer(pattern, flat, re.IGNORECASE):
            shown = flat[max(0, match.start() - 30) : match.end() + 30]
            yield Use(path, lines[bisect_right(offsets, match.start()) - 1], name, shown)


def texts_of(path: Path) -> Iterator[tuple[str, int]]:
    """The comments and strings of a Python file, and the line where each begins."""
    texts = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in texts:
                text = token.string
                if re.match(r"(?i)[rb]?f", text):  # an f-string, whose fields are code
                    text = re.sub(r"\{[^{}]*\}", lambda field: "_" * len(field[0]), text)
                yield text, token.start[0]


def page_uses() -> Iterator[Use]:
    """Every use of a word in the pages."""
    for page in PAGES:
        yield from uses_in((ROOT / page).read_text("utf-8"), page)


def package_uses() -> Iterator[Use]:
    """Every use of a word in the strings and comments of the package."""
    for path in sorted((ROOT / "convnext_cli").rglob("*.py")):
        for text, line in texts_of(path):
            yield from uses_in(text, path.relative_to(ROOT).as_posix(), line)


def name_uses() -> Iterator[Use]:
    """Every variable and parameter of the package that is called by one of ``NAMES``, where it is first bound."""
    for path in sorted((ROOT / "convnext_cli").rglob("*.py")):
        shown = path.relative_to(ROOT).as_posix()
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
                continue
            bound: dict[str, int] = {}
            for node in _own_nodes(function):
                name = node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""
                stored = isinstance(node, ast.arg) or isinstance(getattr(node, "ctx", None), ast.Store)
                if stored and name in NAMES:
                    bound.setdefault(name, node.lineno)  # type: ignore[attr-defined]
            where = getattr(function, "name", "the module")
            yield from (Use(shown, line, name, f"in {where}") for name, line in bound.items())


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions inside it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _own_nodes(child)


def main(arguments: list[str]) -> None:
    """Print all uses, or those of the words that are named, and how many there are of each."""
    uses = [use for use in (*page_uses(), *package_uses(), *name_uses()) if not arguments or use.word in arguments]
    for use in uses:
        print(f"{use.path}:{use.line}: {use.word}: {use.text}")
    names = Counter(use.word for use in uses)
    print(f"{len(uses)} uses:", ", ".join(f"{word} {count}" for word, count in names.most_common()) or "none")


if __name__ == "__main__":
    main(sys.argv[1:])
