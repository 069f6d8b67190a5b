"""What a person sees of a calibration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from convnext_cli.base.errors import UsageError
from convnext_cli.cli import render

if TYPE_CHECKING:
    from convnext_cli.certainty.calibration import Calibration
    from convnext_cli.certainty.roll_up import Threshold
    from convnext_cli.evaluation.calibrate import CalibrateResult

SHOWN = (0.8, 0.9, 0.95, 0.99)  # shares of right answers


def print_result(result: CalibrateResult, *, as_json: bool) -> None:
    """On standard output, as JSON or as tables."""
    calibration = result.calibration
    promises = [_promise(calibration, precision) for precision in SHOWN]
    if as_json:
        document = {
            "model": result.model,
            "output": str(result.output),
            "photos": calibration.photos,
            "fewest": calibration.fewest,
            "temperature": calibration.temperature,
            "out_of_scope": {"method": calibration.scope.scorer.method, "limit": calibration.scope.limit},
            "sure": [
                None
                if promise is None
                else {"precision": promise.precision, "threshold": promise.value}
                | {"answered": promise.answered, "right": promise.right}
                for promise in promises
            ],
            "failed": [{"path": path, "kind": error.kind, "message": error.message} for path, error in result.failures],
        }
        print(json.dumps(document, indent=2))
        return
    console = render.out()
    console.print(f"[bold]{render.clean(result.model)}[/], on {calibration.photos:,} photos", soft_wrap=True)
    table = render.table("--sure", "threshold", "answered", "right of these", right=(0, 1, 2, 3))
    for precision, promise in zip(SHOWN, promises, strict=True):
        if promise is None:
            table.add_row(f"{precision:.0%}", "", "", "cannot be promised")
        else:
            table.add_row(
                f"{precision:.0%}",
                f"{promise.value:.3f}",
                f"{promise.answered / calibration.photos:.1%}",
                f"{promise.right / promise.answered:.1%}",
            )
    console.print(table)
    if calibration.doubts:
        render.note(calibration.doubts)


def _promise(calibration: Calibration, precision: float) -> Threshold | None:
    """The threshold for a precision; None where it cannot be promised."""
    try:
        return calibration.roll_up.threshold(precision)
    except UsageError:
        return None
