"""What a person sees of calibrated answers and sets in an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convnext_cli.cli import render

if TYPE_CHECKING:
    from convnext_cli.base.text import JsonObject


def print_promises(models: Sequence[JsonObject]) -> None:
    """A table for each model whose calibrated answers or sets were measured, and whether the promise holds."""
    for values in models:
        if "sure" in values:
            _print_answers(values["sure"], values["model"] if len(models) > 1 else "")
        if "sets" in values:
            _print_sets(values["sets"], values["model"] if len(models) > 1 else "")


def _print_answers(sure: JsonObject, model: str) -> None:
    photos, precision = sure["photos"], sure["precision"]
    name = f"{render.clean(model)}, " if model else ""
    table = render.table(f"{name}--sure {_percent(sure['asked'])}", "photos", "% of photos", "right %", right=(1, 2, 3))
    for heading, share in (
        ("answered", precision),
        ("  a label", sure["class"]),
        ("  a broader group", sure["broader"]),
    ):
        right = "" if share["value"] is None else f"{100 * share['value']:.2f}"
        table.add_row(heading, f"{share['photos']:,}", f"{100 * share['photos'] / photos:.2f}", right)
    rest = {
        "unknown: not sure enough": "not_sure",
        "unknown: unlike anything known": "out_of_scope",
        "failed": "failed",
    }
    for heading, kind in rest.items():
        if sure[kind] or kind != "failed":
            table.add_row(heading, f"{sure[kind]:,}", f"{100 * sure[kind] / photos:.2f}", "")
    console = render.out()
    console.print()
    console.print(table)
    if precision["photos"]:
        console.print(
            f"{100 * precision['value']:.2f} % of the answers are right (95 %: {100 * precision['low']:.2f} to "
            f"{100 * precision['high']:.2f}): {_verdict(precision, sure['asked'])}; on average "
            f"{sure['depth']:.1f} groups are above an answer",
            soft_wrap=True,
        )
    if sure["foreign"] is not None:
        _print_foreign(sure["foreign"])


def _print_foreign(foreign: JsonObject) -> None:
    through, answered = foreign["let_through"], foreign["answered"]
    auroc = "" if foreign["auroc"] is None else f"; AUROC {foreign['auroc']:.3f}"
    render.out().print(
        f"of {foreign['photos']:,} foreign photos {100 * through['value']:.2f} % are let through at the limit "
        f"that keeps 95 % of the model's own, and {100 * answered['value']:.2f} % get an answer{auroc}",
        soft_wrap=True,
    )


def _print_sets(sets: JsonObject, model: str) -> None:
    coverage = sets["coverage"]
    if not coverage["photos"]:
        return
    name = f"{render.clean(model)}, " if model else ""
    render.out().print(
        f"\n{name}--sets {_percent(sets['asked'])}: {100 * coverage['value']:.2f} % of the sets hold the right label "
        f"(95 %: {100 * coverage['low']:.2f} to {100 * coverage['high']:.2f}): {_verdict(coverage, sets['asked'])}; "
        f"{sets['size']:.2f} labels in a set on average",
        soft_wrap=True,
    )


def _verdict(share: JsonObject, asked: float) -> str:
    if share["value"] >= asked:
        return "the promise holds"
    return "less than asked for, within chance" if share["high"] >= asked else "the promise does not hold"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
