"""Commands that messages name are commands that there are: the parser itself takes each of them."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator

import click
import pytest

from convnext_cli.cli import COMMANDS
from convnext_cli.cli import convnext as cli
from tests.helpers.paths import ROOT

HOLE = "XX"  # what an f-string, or a call of format, puts in
# "convnext" before a word, but in names such as convnext_tiny or ./convnext, and in "the convnext command"
START = re.compile(r"(?<![\w./-])convnext (?=[a-zX\[-])")
END = re.compile(r"[;:|()`\n\"…]|, | · | - | #|\. |\.$|$")
FORMATS = {"sort"}  # the first line of a log of moves, which old logs have too


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string of a module, once; what is put into it at run time is a word of its own."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    inside -= {id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, re.sub(r"\{\w*\}", HOLE, node.value)


def named(text: str) -> Iterator[str]:
    """The command lines in a string, without the program's name."""
    for start in START.finditer(text):
        rest = text[start.end() :]
        end = END.search(rest)
        assert end is not None
        yield rest[: end.start()].strip()


def everything() -> Iterator[tuple[str, str]]:
    for file in sorted((ROOT / "convnext_cli").rglob("*.py")):
        for line, text in strings(ast.parse(file.read_text("utf-8"))):
            for command in set(named(text)) - FORMATS:
                yield f"{file.relative_to(ROOT)}:{line}", command


def problem(command: str) -> str:
    """What click says of a command line that has words of prose behind it; "" when there is nothing wrong."""
    try:
        words = shlex.split(command)
    except ValueError:  # an apostrophe of the sentence around it
        words = command.split()
    group: click.Command = cli
    context = click.Context(cli, info_name="convnext", help_option_names=["-h", "--help"])
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        if group is cli and (words[0] not in COMMANDS) and (words[0] == HOLE or "." in words[0] or words[0].isupper()):
            break  # a photo: the short form
        found = group.get_command(context, words[0])
        if found is None:
            return f"there is no command {words[0]!r}"
        group, words = found, words[1:]
    if group is cli:
        group = cli.get_command(context, "classify") or cli
    known = {name for option in group.get_params(context) for name in (*option.opts, *option.secondary_opts)}
    for word in words:
        name = word.partition("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]*|-[a-zA-Z0-9]", name) and name not in known | {"-h"}:
            return f"{group.name} has no option {name}"
    return ""


def test_every_command_that_is_named_exists() -> None:
    found = list(everything())
    assert len(found) > 100
    wrong = [f"{place}: convnext {command}: {why}" for place, command in found if (why := problem(command))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "see `convnext model list`",
        f"convnext models fetch {HOLE}",
        "to replace it: convnext label --replace",
        "run it again: convnext classify -Z, or leave it",
        "convnext prepare --dtype int8 --calibrate-on FOLDER; then go on",
    ],
)
def test_a_command_that_is_not_there_is_seen(text: str) -> None:
    [command] = named(text)
    assert problem(command)


@pytest.mark.parametrize(
    "text",
    ["convnext photo.jpg", f"convnext models pull {HOLE} --yes", "`convnext classify -` reads one", "convnext_tiny"],
)
def test_a_command_that_is_there_is_accepted(text: str) -> None:
    assert not any(map(problem, named(text)))
