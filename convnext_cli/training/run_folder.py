"""The folder of a run: what is in it, and how it is written so that a kill at any moment leaves it whole.

recipe.toml               every setting, as it was used
run.json                  data, classes, environment, command; and the results, when it is done
splits.csv                path, label, split of every photo, where the splits were made here
log.jsonl                 a line every few seconds and one an evaluation
checkpoints/last.pt       all that is needed to go on
checkpoints/ema.safetensors, best.safetensors
                          the averaged weights, and those of the best evaluation, as models of their own
model.safetensors         the best, with its card, when it is done
curves.png confusion.png reliability.png
former/                   the run before, where this one is to take its place and is not done
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch

from convnext_cli.base.errors import ModelError, OutputError
from convnext_cli.base.files import replacing, sync_folder, unwritten
from convnext_cli.base.text import JsonObject, json_value
from convnext_cli.training.records import Evaluation, NeededFacts, RunFacts, Step

State: TypeAlias = dict[str, Any]  # of a trainer, as torch reads it
_DAMAGED = "start again with --overwrite, or in another folder"


def _is_part(name: str) -> bool:
    """What a killed process left of a file that it wrote."""
    return name.startswith(".convnext-") and name.endswith(".part")


def _link(path: Path, kept: Path) -> None:
    """The same file by another name; a copy where the file system has no such names."""
    try:
        kept.hardlink_to(path)
    except OSError:
        shutil.copy2(path, kept)


def _is_sound(facts: object) -> bool:
    return isinstance(facts, dict) and facts.keys() >= NeededFacts.__annotations__.keys()


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe, self.facts, self.splits = path / "recipe.toml", path / "run.json", path / "splits.csv"
        self.log, self.model = path / "log.jsonl", path / "model.safetensors"
        self.last = path / "checkpoints" / "last.pt"
        self.best, self.ema = (path / "checkpoints" / f"{name}.safetensors" for name in ("best", "ema"))
        self.former, self._leaving = path / "former", path / ".former.part"
        self.curves, self.confusion, self.reliability = (
            path / f"{name}.png" for name in ("curves", "confusion", "reliability")
        )

    def begun(self) -> bool:
        """Whether a run is in it."""
        return self.facts.exists()

    def free(self) -> bool:
        """Whether a run may begin in it: nothing is there, or what one leaves that was cut before it began."""
        if not self.path.exists():
            return True
        if not self.path.is_dir():
            return False
        names = {entry.name for entry in self.path.iterdir() if not _is_part(entry.name)}
        inside = self.last.parent
        return names <= {self.recipe.name, self.splits.name, inside.name, self.former.name} and not (
            inside.is_dir() and any(not _is_part(entry.name) for entry in inside.iterdir())
        )

    def check(self) -> None:
        """Raises OutputError where it cannot be made, for what can be known without making it."""
        place = next(place for place in (self.path.absolute(), *self.path.absolute().parents) if place.exists())
        if place.is_dir() and not os.access(place, os.W_OK):
            raise OutputError(f"{self.path} cannot be written: {place} is not writable", "name another folder")
        if not place.is_dir() and place != self.path.absolute():
            raise OutputError(f"{self.path} cannot be written: {place} is not a folder", "name another folder")

    def make(self) -> None:
        """Raises OutputError where nothing can be written, before hours have gone into it."""
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}", "name another folder"
            ) from error

    def set_aside(self) -> None:
        """Keep the run as ``former`` until another one is done; one that is kept already was never replaced.

        Raises OutputError where it cannot be kept; then all stays as it is.
        """
        if not self.former.exists():
            try:
                shutil.rmtree(self._leaving, ignore_errors=True)
                for path in filter(Path.exists, self._files()):
                    kept = self._leaving / path.relative_to(self.path)
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    _link(path, kept)
                self._leaving.rename(self.former)
                sync_folder(self.path)
            except OSError as error:
                shutil.rmtree(self._leaving, ignore_errors=True)
                raise unwritten(self.former, error) from error
        self.clear()

    def forget_former(self) -> None:
        """Another run is done: the one before it goes."""
        if self.former.is_dir():
            RunFolder(self.former).clear()

    def _files(self) -> list[Path]:
        """All that a run may have, the one that says that it is there last."""
        pictures = [self.curves, self.confusion, self.reliability]
        return [self.last, self.ema, self.best, self.recipe, self.splits, self.log, self.model, *pictures, self.facts]

    def clear(self) -> None:
        """Remove a run, and nothing else in its folder."""
        for path in self._files():
            path.unlink(missing_ok=True)
        self.tidy()
        for place in (self.last.parent, self.path):
            with suppress(OSError):  # it holds something else
                place.rmdir()

    def tidy(self) -> None:
        """Remove what killed processes left of files that they wrote."""
        for place in (self.path, self.last.parent):
            for path in place.glob(".convnext-*.part"):
                path.unlink(missing_ok=True)
        shutil.rmtree(self._leaving, ignore_errors=True)

    def read_facts(self) -> RunFacts:
        """Raises ModelError when they are damaged."""
        try:
            facts: RunFacts = json_value(self.facts.read_text("utf-8", "surrogateescape"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.facts} cannot be read: {error}", _DAMAGED) from error
        if not _is_sound(facts):
            raise ModelError(f"{self.facts} is damaged", _DAMAGED)
        return facts

    def write_facts(self, values: RunFacts) -> None:
        with replacing(self.facts) as file:
            file.write(
                (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(
                    "utf-8", "surrogateescape"
                )
            )

    def read_state(self) -> State | None:
        """The state that ``write_state`` wrote; None before the first. Raises ModelError when it is damaged."""
        if not self.last.exists():
            return None
        try:
            state: State = torch.load(self.last, map_location="cpu", weights_only=True)
            return state
        except Exception as error:  # torch raises whatever the damage leads to
            raise ModelError(f"{self.last} is damaged", _DAMAGED) from error

    def write_state(self, values: State) -> None:
        with replacing(self.last) as file:
            torch.save(values, file)

    def cut_log(self, step: int) -> None:
        """Forget what was logged after a step, which will be done again."""
        if not self.log.exists():
            return
        kept = []
        for line in self.log.read_text("utf-8").splitlines():
            try:
                if json_value(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):  # half a line
                break
        with replacing(self.log) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())

    def add_to_log(self, values: Step | Evaluation) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, allow_nan=False) + "\n")

    def read_log(self) -> list[JsonObject]:
        if not self.log.exists():
            return []
        return [json_value(line) for line in self.log.read_text("utf-8").splitlines()]
