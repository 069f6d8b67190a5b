"""Refuses settings that have no effect beside the others, as the needs in ``settings.py`` say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from convnext_cli.base.errors import UsageError
from convnext_cli.training.settings import Need, TrainingSettings

_SHOWN = 6  # names in a message


NEEDS: Mapping[str, tuple[Need, ...]] = {entry.name: entry.metadata["needs"] for entry in fields(TrainingSettings)}
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
