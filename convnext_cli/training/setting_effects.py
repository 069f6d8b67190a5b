"""Which settings have an effect beside which others: one table, by which those without one are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from convnext_cli.base.errors import UsageError
from convnext_cli.training.settings import SCRATCH, TrainingSettings

_SHOWN = 6  # names in a message


@dataclass(frozen=True)
class Need:
    """A condition of other settings. otherwise: when it does not hold, as the end of "mixup has no effect …".

    chosen: whether it depends on settings that the data may choose, and is known only when they are.
    """

    holds: Callable[[TrainingSettings], bool]
    otherwise: str
    chosen: bool = False


TRAINED = Need(lambda r: not r.freeze, "with freeze, which fits the classifier alone")
FROM_SCRATCH = Need(lambda r: r.start == SCRATCH, "unless start is scratch: other weights have an architecture")
FALLS = Need(lambda r: r.warmup < 1, "with warmup = 1: the learning rate rises to the end")
TAUGHT = Need(lambda r: r.teacher is not None, "without a teacher")
HEEDED = Need(lambda r: r.distil > 0, "with distil = 0, the share of the teacher's loss")
LABELLED = Need(lambda r: r.teacher is None or r.distil < 1, "with distil = 1: the teacher's loss is all of it")
MIXES = Need(lambda r: r.mixup > 0 or r.cutmix > 0, "without mixup or cutmix", chosen=True)
SHARED = Need(lambda r: r.mix_share > 0, "with mix_share = 0: no batch is mixed")
BEGUN = Need(lambda r: r.mix_until > 0, "with mix_until = 0: no batch is mixed")
STRONG = Need(lambda r: r.augment in ("rand", "affine"), "unless augment is rand or affine")
COUNTED = Need(lambda r: r.augment == "rand", "unless augment is rand")

# What each setting needs to have an effect.
NEEDS: Mapping[str, tuple[Need, ...]] = {
    "start": (),
    **dict.fromkeys(("arch", "patch_size", "layer_scale"), (FROM_SCRATCH,)),
    "size": (),
    "sizes": (TRAINED,),
    **dict.fromkeys(("resize", "crop_pct", "search_size"), ()),
    **dict.fromkeys(("epochs", "minutes", "warmup", "patience", "batch_size", "accumulate"), (TRAINED,)),
    **dict.fromkeys(("optimiser", "lr", "weight_decay", "beta2", "layer_decay", "clip"), (TRAINED,)),
    "min_lr": (TRAINED, FALLS),
    **dict.fromkeys(("drop_path", "ema"), (TRAINED,)),
    **dict.fromkeys(("smoothing", "class_weights"), (LABELLED,)),
    **dict.fromkeys(("mixup", "cutmix"), (TRAINED, SHARED, BEGUN)),
    "mix_share": (TRAINED, MIXES, BEGUN),
    "mix_until": (TRAINED, MIXES, SHARED),
    "augment": (TRAINED,),
    "magnitude": (TRAINED, STRONG),
    "operations": (TRAINED, COUNTED),
    "scale": (TRAINED,),
    "flip": (),
    "erasing": (TRAINED,),
    "head_scale": (TRAINED,),
    "freeze": (),
    "teacher": (TRAINED, HEEDED),
    "teacher_labels": (TRAINED, TAUGHT, HEEDED),
    "distil": (TRAINED, TAUGHT),
    "distil_temperature": (TRAINED, TAUGHT, HEEDED),
    "dtype": (),
    "compile": (TRAINED,),
    "seed": (),
}
_DEFAULTS = {field.name: field.default for field in fields(TrainingSettings)}
_OPTIONS = {"start": "--from", "resize": "--resize-mode", "minutes": "--time", "batch_size": "--batch-size"}
_PLAIN_OPTIONS = ("arch", "epochs", "size", "lr", "freeze", "teacher", "dtype", "compile", "seed")


def in_force(recipe: TrainingSettings) -> dict[str, object]:
    """The settings that have an effect, as plain values for TOML and JSON."""
    return {name: value for name, value in recipe.to_dict().items() if all(need.holds(recipe) for need in NEEDS[name])}


def check(recipe: TrainingSettings, named: Mapping[str, str], *, chosen: bool = True) -> None:
    """Raise UsageError for settings that were asked for and have no effect.

    named: the file that names a setting, "" for the command itself, by the setting's name. chosen: whether the recipe
    has the settings that the data choose.
    """
    idle: dict[tuple[str, str], list[str]] = {}
    for name, file in named.items():
        for need in NEEDS[name] if asked_for(recipe, named, name) else ():
            if (chosen or not need.chosen) and not need.holds(recipe):
                idle.setdefault((file, need.otherwise), []).append(name)
                break
    if idle:
        refuse(*next(iter(idle.items())))


def asked_for(recipe: TrainingSettings, named: Mapping[str, str], name: str) -> bool:
    """Whether a setting is named: by the command, or by a file with a value that is not the default.

    The recipes of earlier runs list defaults, which ask for nothing.
    """
    return name in named and not (named[name] and getattr(recipe, name) == _DEFAULTS[name])


def refuse(cause: tuple[str, str], names: list[str]) -> None:
    """Raise UsageError. cause: the file that names the settings, "" for the command, and why they have no effect."""
    file, otherwise = cause
    shown = ", ".join((names if file else [option(name) for name in names])[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    verb = "has" if len(names) == 1 else "have"
    what = f"{file} sets {shown}{more}, which {verb}" if file else f"{shown}{more} {verb}"
    them = "it" if len(names) == 1 else "them"
    raise UsageError(f"{what} no effect {otherwise}", f"remove {them} from {file}" if file else f"leave {them} out")


def option(name: str) -> str:
    """How a setting is called on the command line."""
    if name in _PLAIN_OPTIONS:
        return f"--{name}"
    return _OPTIONS.get(name, name)
