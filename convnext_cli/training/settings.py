"""TrainingSettings: all that decides what comes out of a training run, as data, written to and read from TOML.

The names are the field's: those of "A ConvNet for the 2020s" (arXiv 2201.03545), appendix A, where it has them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

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
T = TypeVar("T")


@dataclass(frozen=True)
class Need:
    """A condition that other settings fulfil.

    Args:
        holds: whether it is fulfilled.
        otherwise: the end of a sentence such as "mixup has no effect …".
        chosen: whether the data may choose these settings, so that it is known only then.
    """

    holds: Callable[[TrainingSettings], bool]
    otherwise: str
    chosen: bool = False


TRAINED = Need(lambda s: not s.freeze, "with freeze, which fits the classifier alone")
FROM_SCRATCH = Need(lambda s: s.start == SCRATCH, "unless start is scratch: other weights have an architecture")
FALLS = Need(lambda s: s.warmup < 1, "with warmup = 1: the learning rate rises to the end")
TAUGHT = Need(lambda s: s.teacher is not None, "without a teacher")
HEEDED = Need(lambda s: s.distil > 0, "with distil = 0, the share of the teacher's loss")
LABELLED = Need(lambda s: s.teacher is None or s.distil < 1, "with distil = 1: the teacher's loss is all of it")
MIXES = Need(lambda s: s.mixup > 0 or s.cutmix > 0, "without mixup or cutmix", chosen=True)
SHARED = Need(lambda s: s.mix_share > 0, "with mix_share = 0: no batch is mixed")
BEGUN = Need(lambda s: s.mix_until > 0, "with mix_until = 0: no batch is mixed")
STRONG = Need(lambda s: s.augment in ("rand", "affine"), "unless augment is rand or affine")
COUNTED = Need(lambda s: s.augment == "rand", "unless augment is rand")

Check = Callable[[str, object], None]  # of a setting's name and value; raises ValueError


def setting(default: T, check: Check, *needs: Need) -> T:
    """A field of ``TrainingSettings``.

    Args:
        default: its value if nobody asks for another; None skips the check.
        check: refuses other values.
        needs: without which it has no effect.
    """
    return dataclasses.field(default=default, metadata={"check": check, "needs": needs})


def _whole(least: int) -> Check:
    def check(name: str, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")

    return check


def _real(most: float, *, above: bool = False) -> Check:
    """A number from 0, or with ``above`` above 0, to ``most``."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most or value == math.inf:
            limits = "from 0" if most == math.inf else f"from 0 to {most:g}"
            raise ValueError(f"{name} must be a number {limits}, not {value!r}")
        if above and value == 0:
            raise ValueError(f"{name} must be above 0")

    return check


def _one_of(kind: object) -> Check:
    def check(name: str, value: object) -> None:
        if value not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}")

    return check


def _kind(kind: type, words: str) -> Check:
    def check(name: str, value: object) -> None:
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be {words}, not {value!r}")

    return check


def _check_sizes(name: str, pairs: object) -> None:
    if not isinstance(pairs, list | tuple) or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs
    ):
        raise ValueError(f"{name} must be pairs of a share of the run and an edge in pixels, such as [[0.3, 48]]")
    shares = [float(until) for until, _ in pairs]
    for _, size in pairs:
        _whole(1)(name, size)
    if shares != sorted(shares) or any(not 0 < share <= 1 for share in shares):
        raise ValueError(f"{name} must have rising shares of the run, above 0 and at most 1")


_SHARE, _TEXT, _FLAG = _real(1.0), _kind(str, "text"), _kind(bool, "true or false")


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

    Raises:
        ValueError: a value is out of range, or two contradict each other.
    """

    start: str = setting("default", _TEXT)
    arch: str = setting("", _TEXT, FROM_SCRATCH)
    patch_size: int | None = setting(None, _whole(1), FROM_SCRATCH)
    layer_scale: float | None = setting(None, _real(10.0), FROM_SCRATCH)
    size: int = setting(224, _whole(1))
    sizes: tuple[tuple[float, int], ...] = setting((), _check_sizes, TRAINED)
    resize: Fit = setting("shortest", _one_of(Fit))
    crop_pct: float = setting(0.95, _real(1.0, above=True))
    search_size: bool = setting(False, _FLAG)
    epochs: float | None = setting(None, _real(math.inf, above=True), TRAINED)
    minutes: float | None = setting(None, _real(math.inf, above=True), TRAINED)
    warmup: float = setting(0.05, _SHARE, TRAINED)
    patience: int = setting(0, _whole(0), TRAINED)
    batch_size: int = setting(64, _whole(1), TRAINED)
    accumulate: int = setting(1, _whole(1), TRAINED)
    optimiser: Optimiser = setting("adamw", _one_of(Optimiser), TRAINED)
    lr: float = setting(1e-3, _real(10.0, above=True), TRAINED)
    min_lr: float = setting(0.01, _SHARE, TRAINED, FALLS)
    weight_decay: float = setting(0.05, _real(10.0), TRAINED)
    beta2: float = setting(0.999, _real(0.999999), TRAINED)
    layer_decay: float = setting(1.0, _real(1.0, above=True), TRAINED)
    clip: float = setting(5.0, _real(math.inf), TRAINED)
    drop_path: float = setting(0.0, _real(0.99), TRAINED)
    ema: float = setting(0.999, _real(0.999999), TRAINED)
    smoothing: float = setting(0.1, _SHARE, LABELLED)
    mixup: float = setting(0.0, _real(100.0), TRAINED, SHARED, BEGUN)
    cutmix: float = setting(0.0, _real(100.0), TRAINED, SHARED, BEGUN)
    mix_share: float = setting(1.0, _SHARE, TRAINED, MIXES, BEGUN)
    mix_until: float = setting(1.0, _SHARE, TRAINED, MIXES, SHARED)
    augment: Augment = setting("trivial", _one_of(Augment), TRAINED)
    magnitude: float = setting(9, _real(30.0), TRAINED, STRONG)
    operations: int = setting(2, _whole(1), TRAINED, COUNTED)
    scale: float = setting(0.25, _real(1.0, above=True), TRAINED)
    flip: bool = setting(True, _FLAG)
    erasing: float = setting(0.0, _SHARE, TRAINED)
    head_scale: float = setting(1.0, _real(100.0), TRAINED)
    class_weights: ClassWeights = setting("none", _one_of(ClassWeights), LABELLED)
    freeze: bool = setting(False, _FLAG)
    teacher: str | None = setting(None, _TEXT, TRAINED, HEEDED)
    teacher_labels: str | None = setting(None, _TEXT, TRAINED, TAUGHT, HEEDED)
    distil: float = setting(0.5, _SHARE, TRAINED, TAUGHT)
    distil_temperature: float = setting(2.0, _real(100.0, above=True), TRAINED, TAUGHT, HEEDED)
    dtype: Dtype = setting("auto", _one_of(Dtype))
    compile: bool = setting(False, _FLAG, TRAINED)
    seed: int = setting(0, _whole(0))

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if value is not None or entry.default is not None:
                entry.metadata["check"](entry.name, value)
        object.__setattr__(self, "sizes", tuple((float(until), size) for until, size in self.sizes))
        if self.start == SCRATCH and self.arch not in VARIANTS:
            raise ValueError(f"arch must be a known variant to train one from scratch, not {self.arch!r}")
        if self.start == SCRATCH and self.freeze:
            raise ValueError("freeze needs weights to begin with, not scratch")
        if self.largest > _MOST_PIXELS:
            raise ValueError(f"size must be at most {_MOST_PIXELS} pixels, not {self.largest}")

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
