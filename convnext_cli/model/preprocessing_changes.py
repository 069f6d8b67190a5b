"""Changes that a user makes to a model's preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from convnext_cli.base.errors import UsageError
from convnext_cli.model.preprocessing import MOST, Interpolation, Preprocessing, Resize

_LEAVE_OUT = "leave the option out"


@dataclass(frozen=True, kw_only=True)
class PreprocessingChanges:
    """The options of the command line that change preprocessing; None leaves the card's value.

    Args:
        size: pixels of an edge, or "test" for the size at which the publisher measured the best accuracy.
        crop_pct: share of the photo that is kept.
        resize_mode: as ``Preprocessing.resize``.
        interpolation: as ``Preprocessing.interpolation``.
        mean, std: one number for all channels, or three.
    """

    size: int | Literal["test"] | None = None
    crop_pct: float | None = None
    resize_mode: Resize | None = None
    interpolation: Interpolation | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None

    @property
    def options(self) -> list[str]:
        """The options that are set, as a user types them."""
        return [f"--{field.name.replace('_', '-')}" for field in fields(self) if getattr(self, field.name) is not None]

    def apply(self, preprocessing: Preprocessing, *, stride: int) -> Preprocessing:
        """The preprocessing with these changes.

        Args:
            preprocessing: the model's preprocessing.
            stride: the smallest input of the network, in pixels.

        Raises:
            UsageError: a value is out of range, or would change nothing.
        """
        crop_pct = self.crop_pct
        if crop_pct is not None and not 0 < crop_pct <= 1:
            raise UsageError(f"--crop-pct must be above 0 and at most 1, not {crop_pct!r}", "for example 0.95 or 95%")
        # resize_mode comes first: without a resize there is no size to change
        if self.resize_mode is not None:
            preprocessing = _changed(preprocessing, resize=self.resize_mode)
        preprocessing = self._sized(preprocessing, stride)
        changes = {
            name: value
            for name in ("crop_pct", "interpolation", "mean", "std")
            if (value := getattr(self, name)) is not None
        }
        if preprocessing.resize == "none" and (without := [o for o in self.options if o not in ("--mean", "--std")]):
            raise UsageError(
                f"this model takes photos at their own size: {' and '.join(without)} would change nothing",
                "add a way of resizing, for example --resize-mode shortest",
            )
        return _changed(preprocessing, **changes)

    def _sized(self, preprocessing: Preprocessing, stride: int) -> Preprocessing:
        size = self.size
        if size is None:
            return preprocessing
        if size == "test":
            if preprocessing.test_size is None:
                raise UsageError(
                    "no test size is known for this model",
                    "give a number of pixels, such as --size 288, or leave --size out",
                )
            return preprocessing.at_test_size()
        if not isinstance(size, int) or isinstance(size, bool) or not stride <= size <= MOST:
            raise UsageError(
                f"--size is {size!r}, but must be `test` or a number of pixels from {stride}, the network's stride, "
                f"to {MOST}",
                "leave --size out for the size of the model",
            )
        return preprocessing.at_size(size)


def _changed(preprocessing: Preprocessing, **changes: object) -> Preprocessing:
    try:
        return preprocessing.changed(**changes)  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(str(error), _LEAVE_OUT) from error
