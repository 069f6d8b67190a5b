"""Write docs/reference.md from the commands' own --help; a test fails when it is stale."""

from __future__ import annotations

from pathlib import Path

import click
from click.testing import CliRunner

from convnext_cli.cli import convnext

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference.md"


def reference() -> str:
    """The whole page."""
    parts = ["# Command reference", "Made from `--help` by `make docs`; do not edit."]

    def add(command: click.Command, words: list[str]) -> None:
        shown = CliRunner(env={"COLUMNS": "80", "HF_HUB_OFFLINE": None}).invoke(
            convnext, [*words[1:], "--help"], prog_name="convnext", terminal_width=80
        )
        assert shown.exit_code == 0, shown.output
        parts.append(f"{'#' * (1 + len(words))} {' '.join(words)}\n\n```text\n{shown.output.rstrip()}\n```")
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                add(child, [*words, name])

    add(convnext, ["convnext"])
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
