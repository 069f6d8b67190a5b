"""Card: what a model file says of itself. It travels as JSON in the safetensors metadata under ``convnext``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from convnext_cli import labels as label_sets
from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import json_value, well_formed
from convnext_cli.labels import LabelSet, json_form
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing

SCHEMA_VERSION = 1
_FETCH = "fetch or export the file again"
Task = Literal["classification", "embedding", "features"]
# One class a photo (softmax), any number of classes (sigmoid), or a quantity that is no score (logits as they are).
Problem = Literal["single_label", "multi_label", "regression"]

METADATA_KEY = "convnext"  # under which a model file of any format holds the card as JSON


@dataclass(frozen=True)
class Export:
    """What goes into a file that ``convnext export`` made, and what comes out of it.

    format: as ``--to`` names it. dtype: what it computes in. batch, size: photos a call and (height, width) of the
    tensor, None where any will do.
    photos: whether its one input is "photos", uint8 (N, height, width, 3) of any one size, with the recipe inside; else
        it is "pixel_values", float32 (N, 3, height, width) that the recipe made.
    output: what the first output is, and its name: "logits", or "scores" of (N, classes).
    features: whether a second output "features" (N, C) holds the pooled features that the classifier reads.
    made_with: versions by library.
    """

    format: str
    dtype: str = "float32"
    batch: int | None = None
    size: tuple[int, int] | None = None
    photos: bool = False
    output: Literal["logits", "scores"] = "logits"
    features: bool = False
    made_with: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Export:
        """From a card's JSON; unknown keys raise TypeError."""
        size = values.pop("size", None)
        return cls(size=None if size is None else (int(size[0]), int(size[1])), **values)


@dataclass(frozen=True)
class Card:
    """All that is needed to use the weights beside it.

    labels: the name of a bundled set, a set of its own, or None when the classes have no known names.
    task: "classification"; "embedding" when the head projects (CLIP towers); "features" when there is no head.
    problem: what the classifier was trained for: "single_label" of N classes, "multi_label" or "regression"
        (transformers' ``problem_type``); meaningful for classification alone.
    sha256: of the canonical tensors (``checkpoints.canonical.fingerprint``), empty when not computed.
    metrics: figures by name, for example {"imagenet-1k top-1": 82.066}.
    temperature: logits are divided by it before the softmax; None when none was fitted.
    training: settings that ``convnext train`` made the weights with, plain values by name.
    export: of a file in another program's format, how it is called; None for weights.

    Raises ValueError for a value of a wrong kind, with the name of the field.
    """

    config: ConvNextConfig
    recipe: Preprocessing = field(default_factory=Preprocessing)
    name: str = ""
    architecture: str = ""
    labels: str | LabelSet | None = None
    task: Task = "classification"
    problem: Problem = "single_label"
    license: str = ""
    source: str = ""
    description: str = ""
    sha256: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    temperature: float | None = None
    training: dict[str, Any] = field(default_factory=dict)
    export: Export | None = None

    def __post_init__(self) -> None:
        for name in ("name", "architecture", "license", "source", "description", "sha256"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, not {getattr(self, name)!r}")
            object.__setattr__(self, name, well_formed(getattr(self, name)))
        for name, known in (("task", get_args(Task)), ("problem", get_args(Problem))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if not (self.labels is None or isinstance(self.labels, LabelSet) or self.labels in label_sets.names()):
            raise ValueError(f"labels must be a label set or the name of a bundled one, not {self.labels!r}")
        if not (isinstance(self.metrics, dict) and all(map(_finite, self.metrics.values()))):
            raise ValueError(f"metrics must be finite numbers by name, not {self.metrics!r}")
        object.__setattr__(self, "metrics", {well_formed(str(name)): value for name, value in self.metrics.items()})
        if not isinstance(self.training, dict):
            raise ValueError(f"training must be settings by name, not {self.training!r}")
        if self.temperature is not None and not (_finite(self.temperature) and 1e-3 <= self.temperature <= 1e3):
            raise ValueError(f"temperature must be a number from 0.001 to 1000, not {self.temperature!r}")

    def label_set(self) -> LabelSet:
        """The names of the classes; ``class_0`` … when none are known.

        Raises ModelError when there are not as many names as the classifier has rows.
        """
        n = self.config.num_labels
        if self.labels is None:
            return LabelSet.numbered(n)
        found = label_sets.load(self.labels) if isinstance(self.labels, str) else self.labels
        if len(found) != n:
            raise ModelError(
                f"the classifier has {n} classes, but the label set {found.name!r} has {len(found)} names",
                "name a label file with one line a class: --labels FILE",
            )
        return found

    def named(self, labels: str | Path | None) -> LabelSet:
        """The names in a label file, or of the bundled set of that name; with None the card's own.

        Raises ModelError as ``label_set`` does, and for a file that cannot be read as labels.
        """
        if labels is None:
            return self.label_set()
        if str(labels) in label_sets.names() and not Path(labels).exists():
            return self.replace(labels=str(labels)).label_set()
        return label_sets.read(Path(labels), self.label_set())

    def replace(self, **changes: Any) -> Card:
        return replace(self, **changes)

    def to_json(self, *, whole: bool = False) -> str:
        """whole: with the names of a bundled label set written out, for programs that do not have it."""
        values: dict[str, Any] = {
            key: value
            for key, value in vars(self).items()
            if key not in ("config", "recipe", "labels", "export") and value not in ("", None, {})
        }
        if self.export is not None:
            values["export"] = asdict(self.export)
        named = self.label_set() if whole and self.labels is not None else self.labels
        labels = json_form.to_dict(named, whole=whole) if isinstance(named, LabelSet) else named
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                **values,
                "config": self.config.to_dict(),
                "recipe": self.recipe.to_dict(),
                "labels": labels,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Card:
        """The inverse of ``to_json``. Raises ModelError when it is damaged or of a newer schema."""
        try:
            values = json_value(text)
            version = values.pop("schema_version")
            export = values.pop("export", None)
            if version > SCHEMA_VERSION:
                raise ModelError(
                    f"the model's card has schema version {version}, this program reads up to {SCHEMA_VERSION}",
                    "upgrade: pip install --upgrade convnext-cli",
                )
            config, recipe = (
                ConvNextConfig.from_dict(values.pop("config")),
                Preprocessing.from_dict(values.pop("recipe")),
            )
            if min(recipe.size) < config.stride:
                raise ValueError(f"photos of {min(recipe.size)} pixels are below the network's stride, {config.stride}")
            return cls(
                config=config,
                recipe=recipe,
                labels=_label_set(values.pop("labels")),
                export=None if export is None else Export.from_dict(export),
                **values,
            )
        except KeyError as error:
            raise ModelError(f"the model's card is damaged: it lacks {error}", _FETCH) from error
        except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ModelError(f"the model's card is damaged: {error}", _FETCH) from error


def _label_set(values: Any) -> str | LabelSet | None:
    """Of a card's JSON. Raises what ``json_form.from_dict`` raises, and ValueError for names that are not text."""
    if not isinstance(values, dict):
        return values  # type: ignore[no-any-return]  # Card looks at it
    if "bundled" in values:
        return str(values["bundled"])
    if not (isinstance(values["names"], list) and isinstance(values["lemmas"], list)):
        raise ValueError("labels must be lists of text")
    found = json_form.from_dict(values)
    texts = (found.name, *found.names, *found.lemmas, *found.definitions, *(i for i in found.ids if i is not None))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("labels must be lists of text")
    return found


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
