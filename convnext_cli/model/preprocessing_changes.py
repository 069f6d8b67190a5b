"""Changes: how a user wants photos prepared otherwise than the model's card says."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from convnext_cli.base.errors import UsageError
from convnext_cli.model.preprocessing import MOST, Interpolation, Preprocessing, Resize

_LEAVE_OUT = "leave it out"


@dataclass(frozen=True, kw_only=True)
class PreprocessingChanges:
    """Fields as the options of the command line; None leaves the card's value.

    size: pixels of an edge, or "test" for the size that the makers measured best at. crop_pct: share of the photo that
    is kept. resize_mode: ``Preprocessing.resize``. mean, std: one number for all channels, or three.
    """

    size: int | Literal["test"] | None = None
    crop_pct: float | None = None
    resize_mode: Resize | None = None
    interpolation: Interpolation | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None

    @property
    def options(self) -> list[str]:
        """The options that say something, as they are typed."""
        return [f"--{field.name.replace('_', '-')}" for field in fields(self) if getattr(self, field.name) is not None]

    def apply(self, recipe: Preprocessing, *, stride: int) -> Preprocessing:
        """The recipe with these changes. stride: the smallest input of the network, in pixels.

        Raises UsageError for a value out of range, and for a change that would change nothing.
        """
        crop_pct = self.crop_pct
        if crop_pct is not None and not 0 < crop_pct <= 1:
            raise UsageError(f"--crop-pct must be above 0 and at most 1, not {crop_pct!r}", "for example 0.95 or 95%")
        # the way of resizing first: a photo that is left as it is has no size to change
        if self.resize_mode is not None:
            recipe = _changed(recipe, resize=self.resize_mode)
        recipe = self._sized(recipe, stride)
        changes = {
            name: value
            for name in ("crop_pct", "interpolation", "mean", "std")
            if (value := getattr(self, name)) is not None
        }
        if recipe.resize == "none" and (without := [o for o in self.options if o not in ("--mean", "--std")]):
            raise UsageError(
                f"this model takes photos as large as they are: {' and '.join(without)} would change nothing",
                "name a way of resizing too, for example --resize-mode shortest",
            )
        return _changed(recipe, **changes)

    def _sized(self, recipe: Preprocessing, stride: int) -> Preprocessing:
        size = self.size
        if size is None:
            return recipe
        if size == "test":
            if recipe.test_size is None:
                raise UsageError("no test size is known for this model", "name the pixels of an edge, or leave it out")
            return recipe.at_test_size()
        if not isinstance(size, int) or isinstance(size, bool) or not stride <= size <= MOST:
            raise UsageError(
                f"--size is {size!r}, but must be `test` or a number of pixels from {stride}, the network's stride, "
                f"to {MOST}",
                "leave it out for the size of the model",
            )
        return recipe.at_size(size)


def _changed(recipe: Preprocessing, **changes: object) -> Preprocessing:
    try:
        return recipe.changed(**changes)  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(str(error), _LEAVE_OUT) from error
