"""TrainingSettings: all that decides what comes out of a training run, as data, written to and read from TOML.

The names are the field's: those of "A ConvNet for the 2020s" (arXiv 2201.03545), appendix A, where it has them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args

from convnext_cli.base.errors import UsageError
from convnext_cli.base.text import JsonObject
from convnext_cli.model.config import VARIANTS
from convnext_cli.model.preprocessing import Fit

SCRATCH = "scratch"
Optimiser = Literal["adamw", "muon"]
Augment = Literal["none", "rand", "trivial", "affine"]
ClassWeights = Literal["none", "balanced"]
Dtype = Literal["auto", "float32", "bfloat16"]
_MOST_PIXELS = 4096


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    start: the weights to begin with (a name or a path), or "scratch". arch: the variant, for scratch. patch_size: of
        its stem, for scratch; None is the variant's own. layer_scale: that its blocks begin with, likewise.
    size: edge of the photos in pixels. sizes: smaller ones before: pairs of (until this share of the run, edge).
    resize: how a photo becomes a square: "shortest" crops the longer side, "squash" and "longest" keep all of it,
        distorted or with a border. crop_pct: share of the resized edge that is kept when photos are judged.
    search_size: whether larger inputs are tried in the end, and the best one taken (photos look larger in random crops
        than they are; arXiv 1906.06423).
    epochs, minutes: the budget; with both, whichever is spent first. warmup: share of the run in which the learning
        rate rises. patience: evaluations without a better one before it ends; 0 for never.
    batch_size: photos that one step of the optimiser sees, over all processes. accumulate: parts that a process takes
        its share in.
    optimiser: "adamw", or "muon" for the pointwise layers (K. Jordan, 2024) and AdamW for the rest. lr: at its
        highest. min_lr: where the cosine ends, as a share of it. beta2: AdamW's. layer_decay: factor of the learning
        rate from a group of three blocks to the one below. clip: most norm of the gradients; 0 for none.
    drop_path: stochastic depth. ema: how much of the averaged weights each step keeps; 0 for no average.
    smoothing: of labels. mixup, cutmix: their alpha; 0 for none. mix_share: of the batches that are mixed.
        mix_until: share of the run after which none is.
    augment: "rand" (RandAugment) or "trivial" (TrivialAugment) a photo at a time, by torchvision; "affine": flips,
        crops, rotation, shear and colours of a whole batch on the device, of photos that are kept as squares.
        magnitude, operations: of RandAugment; of "affine", magnitude is in tenths. scale: least share of a photo's
        area that a random crop has. flip: whether mirrored photos mean the same. erasing: share of photos with a part
        erased.
    head_scale: factor for a new classifier's first weights. class_weights: "balanced" counts rare classes for more.
    freeze: only the classifier is fitted, on features that are computed once.
    teacher: a model to learn from as well, or a file of its logits (docs/distill.md). teacher_labels: a label file or
        a bundled set that names its classes. distil: the share of its loss. distil_temperature: its scores are
        softened by.
    dtype: of the products; "auto" measures which one is faster here. compile: by torch.
    seed: of everything random.

    Raises ValueError for values that make no recipe, with the name of the field.
    """

    start: str = "default"
    arch: str = ""
    patch_size: int | None = None
    layer_scale: float | None = None
    size: int = 224
    sizes: tuple[tuple[float, int], ...] = ()
    resize: Fit = "shortest"
    crop_pct: float = 0.95
    search_size: bool = False
    epochs: float | None = None
    minutes: float | None = None
    warmup: float = 0.05
    patience: int = 0
    batch_size: int = 64
    accumulate: int = 1
    optimiser: Optimiser = "adamw"
    lr: float = 1e-3
    min_lr: float = 0.01
    weight_decay: float = 0.05
    beta2: float = 0.999
    layer_decay: float = 1.0
    clip: float = 5.0
    drop_path: float = 0.0
    ema: float = 0.999
    smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_share: float = 1.0
    mix_until: float = 1.0
    augment: Augment = "trivial"
    magnitude: float = 9
    operations: int = 2
    scale: float = 0.25
    flip: bool = True
    erasing: float = 0.0
    head_scale: float = 1.0
    class_weights: ClassWeights = "none"
    freeze: bool = False
    teacher: str | None = None
    teacher_labels: str | None = None
    distil: float = 0.5
    distil_temperature: float = 2.0
    dtype: Dtype = "auto"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        pairs = self.sizes
        if not isinstance(pairs, list | tuple) or any(
            not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs
        ):
            raise ValueError("sizes must be pairs of a share of the run and an edge in pixels, such as [[0.3, 48]]")
        object.__setattr__(self, "sizes", tuple((float(until), size) for until, size in pairs))
        for name in ("size", "batch_size", "accumulate", "operations"):
            _whole(name, getattr(self, name), 1)
        for name in ("patience", "seed"):
            _whole(name, getattr(self, name), 0)
        for _, size in self.sizes:
            _whole("sizes", size, 1)
        if self.patch_size is not None:
            _whole("patch_size", self.patch_size, 1)
        if self.layer_scale is not None:
            _real("layer_scale", self.layer_scale, 10.0)
        shares = ("warmup", "min_lr", "mix_share", "mix_until", "scale", "erasing", "distil", "smoothing")
        for name, most in (
            *((name, 1.0) for name in shares),
            *(("layer_decay", 1.0), ("crop_pct", 1.0), ("drop_path", 0.99), ("ema", 0.999999), ("beta2", 0.999999)),
            *(("lr", 10.0), ("weight_decay", 10.0), ("clip", math.inf), ("mixup", 100.0), ("cutmix", 100.0)),
            *(("magnitude", 30.0), ("head_scale", 100.0), ("distil_temperature", 100.0)),
        ):
            _real(name, getattr(self, name), most)
        for name in ("lr", "crop_pct", "scale", "layer_decay", "distil_temperature"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be above 0")
        for name in ("epochs", "minutes"):
            if getattr(self, name) is not None:
                _real(name, getattr(self, name), math.inf)
                if getattr(self, name) == 0:
                    raise ValueError(f"{name} must be above 0")
        for name, kind in (
            *(("optimiser", Optimiser), ("augment", Augment), ("class_weights", ClassWeights), ("dtype", Dtype)),
            ("resize", Fit),
        ):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        for name in ("start", "arch"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, not {getattr(self, name)!r}")
        for name in ("teacher", "teacher_labels"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name} must be text, not {getattr(self, name)!r}")
        for name in ("search_size", "flip", "freeze", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if self.start == SCRATCH and self.arch not in VARIANTS:
            raise ValueError(f"arch must be a known variant to train one from scratch, not {self.arch!r}")
        if self.start == SCRATCH and self.freeze:
            raise ValueError("freeze needs weights to begin with, not scratch")
        if list(self.sizes) != sorted(self.sizes) or any(not 0 < until <= 1 for until, _ in self.sizes):
            raise ValueError("sizes must have rising shares of the run, above 0 and at most 1")
        most = max(self.size, *(size for _, size in self.sizes)) if self.sizes else self.size
        if most > _MOST_PIXELS:
            raise ValueError(f"size must be at most {_MOST_PIXELS} pixels, not {most}")

    @property
    def largest(self) -> int:
        """The largest edge that photos are trained at."""
        return max(self.size, *(size for _, size in self.sizes)) if self.sizes else self.size

    def to_dict(self) -> dict[str, object]:
        """Plain values for TOML and JSON, without what is None."""
        values = dataclasses.asdict(self)
        values["sizes"] = [list(pair) for pair in self.sizes]
        return {name: value for name, value in values.items() if value is not None}


NAMES = tuple(field.name for field in dataclasses.fields(TrainingSettings))


def make(values: JsonObject) -> TrainingSettings:
    """The settings with these values. Raises UsageError for values that make no sense."""
    try:
        return TrainingSettings(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"these settings do not work: {error}", "docs/train.md says what each setting means"
        ) from error


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _real(name: str, value: object, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most or value == math.inf:
        limits = "from 0" if most == math.inf else f"from 0 to {most:g}"
        raise ValueError(f"{name} must be a number {limits}, not {value!r}")
