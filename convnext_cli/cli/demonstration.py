"""The bundled model is a demonstration: the command line says so, and asks before its answers change photos."""

from __future__ import annotations

from pathlib import Path

import click

from convnext_cli.cli import render


def introduce(model: str | Path | None) -> None:
    """Say on standard error, unless ``-q``, what the bundled model is; nothing of other models.

    Args:
        model: as ``-m`` has it; None for the default.
    """
    from convnext_cli.zoo import demonstration

    if demonstration.is_used(None if model is None else str(model)):
        render.note(demonstration.sentence())


def confirm(actions: str) -> None:
    """Ask on a terminal whether the bundled model may change photos or folders.

    Args:
        actions: what it would do, in words.

    Raises:
        UsageError: the answer is no.
    """
    from convnext_cli.base.errors import UsageError
    from convnext_cli.zoo import demonstration

    render.remark(demonstration.sentence())
    if not click.confirm(render.plain(f"Let it {actions}?"), err=True):
        raise UsageError(
            "nothing was labelled, and no photo was touched", f"use a stronger model: {demonstration.stronger()}"
        )
