"""SettingsChanges: the settings that someone asked for, of all that a training run has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Self

from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.base.text import JsonObject, JsonValue, toml_values
from convnext_cli.model.preprocessing import Fit
from convnext_cli.training.settings import (
    NAMES,
    SCRATCH,
    Augment,
    ClassWeights,
    Dtype,
    Optimiser,
    TrainingSettings,
    make,
)


@dataclass(frozen=True, kw_only=True)
class SettingsChanges:
    """The fields of ``TrainingSettings``, None where the choice is left to the data and the weights."""

    start: str | None = None
    arch: str | None = None
    patch_size: int | None = None
    layer_scale: float | None = None
    size: int | None = None
    sizes: tuple[tuple[float, int], ...] | None = None
    resize: Fit | None = None
    crop_pct: float | None = None
    search_size: bool | None = None
    epochs: float | None = None
    minutes: float | None = None
    warmup: float | None = None
    patience: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    optimiser: Optimiser | None = None
    lr: float | None = None
    min_lr: float | None = None
    weight_decay: float | None = None
    beta2: float | None = None
    layer_decay: float | None = None
    clip: float | None = None
    drop_path: float | None = None
    ema: float | None = None
    smoothing: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    mix_share: float | None = None
    mix_until: float | None = None
    augment: Augment | None = None
    magnitude: float | None = None
    operations: int | None = None
    scale: float | None = None
    flip: bool | None = None
    erasing: float | None = None
    head_scale: float | None = None
    class_weights: ClassWeights | None = None
    freeze: bool | None = None
    teacher: str | None = None
    teacher_labels: str | None = None
    distil: float | None = None
    distil_temperature: float | None = None
    dtype: Dtype | None = None
    compile: bool | None = None
    seed: int | None = None

    @classmethod
    def of(cls, values: JsonObject) -> Self:
        """From values by name, as TOML has them. Raises UsageError for a name that is not a setting."""
        for name in values:
            if name not in NAMES:
                near = get_close_matches(name, NAMES, 3)
                raise UsageError(
                    f"there is no setting {name!r}",
                    f"near: {', '.join(near)}" if near else "docs/train.md lists them all",
                )
        return cls(**values)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a TOML file of settings, such as a run's recipe.toml.

        Raises:
            ModelError: the file cannot be read.
            UsageError: the file does not exist, or names something that is not a setting.
        """
        try:
            values = toml_values(path.read_text("utf-8"))
        except FileNotFoundError:
            raise UsageError(f"{path} does not exist", "check the spelling") from None
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path} cannot be read as settings: {error}", "it is a TOML file of name = value"
            ) from error
        return cls.of(values)

    @classmethod
    def parse(cls, assignments: Iterable[str]) -> Self:
        """From texts such as "mixup=0.2", as ``--set`` takes them; the last one of a name counts.

        Raises:
            UsageError: a text is not an assignment, or names something that is not a setting.
        """
        return cls.of(dict(map(_parse, assignments)))

    def values(self) -> JsonObject:
        """Those that were asked for, by name, as plain values for TOML and JSON."""
        values = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in values.items() if value is not None}

    def updated(self, changes: SettingsChanges) -> Self:
        """With other changes on top of these."""
        return replace(self, **changes.values())

    def provisional(self) -> TrainingSettings:
        """All settings before the data has decided any. Raises UsageError as ``complete``."""
        start = "default" if self.start is None else self.start
        arch = "convnext_atto" if start == SCRATCH and self.arch is None else self.arch
        return replace(self, start=start, arch=arch).complete()

    def complete(self) -> TrainingSettings:
        """All settings, with the defaults for those that nobody asked for.

        Raises:
            UsageError: a value is out of range, or settings contradict each other.
        """
        return make(self.values())


def _parse(text: str) -> tuple[str, JsonValue]:
    """``name=value``, the value as in TOML; a bare word is text."""
    name, sign, value = text.partition("=")
    name = name.strip()
    if not sign:
        raise UsageError(f"{text!r} sets nothing", "write --set name=value, such as --set mixup=0.2")
    SettingsChanges.of({name: None})
    try:
        return name, toml_values(f"value = {value}")["value"]
    except ValueError:
        return name, value.strip()
