"""Card: the description of a model, stored as JSON in its safetensors metadata under ``convnext``."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from convnext_cli import labels as label_sets
from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import JsonObject, JsonValue, json_value, well_formed
from convnext_cli.labels import LabelSet, json_form
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing

SCHEMA_VERSION = 1
_FETCH = "download or export the file again"
Task = Literal["classification", "embedding", "features"]
# One class a photo (softmax), any number of classes (sigmoid), or a quantity that is not a score (plain logits).
Problem = Literal["single_label", "multi_label", "regression"]

METADATA_KEY = "convnext"  # under which a model file of any format holds the card as JSON


@dataclass(frozen=True)
class Export:
    """The input and output of a file that ``convnext export`` made.

    Args:
        format: as ``--to`` names it.
        dtype: the precision in which it computes.
        batch: photos in one call; None for any number.
        size: (height, width) of the input tensor; None for any.
        photos: whether the preprocessing is in the file. Its one input is then "photos", uint8 (N, height, width, 3) of
            any one size; otherwise "pixel_values", float32 (N, 3, height, width), preprocessed.
        output: the name of the first output, (N, classes): "logits" or "scores".
        features: whether there is a second output "features", (N, C): the pooled features that the classifier reads.
        made_with: the versions of the libraries that made it.
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
    def from_dict(cls, values: JsonObject) -> Export:
        """From a card's JSON; unknown keys raise TypeError."""
        size = values.pop("size", None)
        return cls(size=None if size is None else (int(size[0]), int(size[1])), **values)


@dataclass(frozen=True)
class Card:
    """All that is needed to use the weights that come with it.

    Args:
        config: the shape of the network.
        preprocessing: how a photo becomes the network's input; "recipe" in JSON.
        name: of the model.
        architecture: a key of ``config.VARIANTS``; "" for none.
        labels: the name of a bundled set, a label set, or None when the names of the classes are not known.
        task: "classification"; "embedding" when the head projects (CLIP towers); "features" when there is no head.
        problem: "single_label", "multi_label" or "regression", as the classifier was trained (transformers'
            ``problem_type``); only for classification.
        license: an SPDX identifier, or the publisher's own name for it.
        source: the address from which the weights come.
        description: in a few words.
        sha256: of the canonical tensors (``checkpoints.canonical.fingerprint``); "" when not computed.
        metrics: figures by name, for example {"imagenet-1k top-1": 82.066}.
        temperature: logits are divided by it before the softmax; None when none was fitted.
        training: the settings of ``convnext train``, as plain values by name.
        export: the input and output of an exported file; None for weights.

    Raises:
        ValueError: a value is not valid; the message has the name of the field.
    """

    config: ConvNextConfig
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
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
    training: JsonObject = field(default_factory=dict)
    export: Export | None = None

    def __post_init__(self) -> None:
        for name in ("name", "architecture", "license", "source", "description", "sha256"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, not {getattr(self, name)!r}")
            object.__setattr__(self, name, well_formed(getattr(self, name)))
        for name, allowed in (("task", get_args(Task)), ("problem", get_args(Problem))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
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
        """The names of the classes; ``class_0`` … when they are not known.

        Raises:
            ModelError: the number of names is not that of the classifier's rows.
        """
        n = self.config.num_labels
        if self.labels is None:
            return LabelSet.numbered(n)
        label_set = label_sets.load(self.labels) if isinstance(self.labels, str) else self.labels
        if len(label_set) != n:
            raise ModelError(
                f"the classifier has {n} classes, but the label set {label_set.name!r} has {len(label_set)} names",
                "name the classes with a file of one line for each class: --labels FILE",
            )
        return label_set

    def named(self, labels: str | Path | None) -> LabelSet:
        """The names in a label file, or in the bundled set of that name; for None the card's own.

        Raises:
            ModelError: the file cannot be read as labels, or the number of names does not fit.
        """
        if labels is None:
            return self.label_set()
        if str(labels) in label_sets.names() and not Path(labels).exists():
            return self.replace(labels=str(labels)).label_set()
        return label_sets.read(Path(labels), self.label_set())

    replace = dataclasses.replace  # a copy with other fields

    def to_json(self, *, full: bool = False) -> str:
        """The card as JSON.

        Args:
            full: write out the names of a bundled label set, for programs that do not have it.
        """
        values = {
            key: value
            for key, value in vars(self).items()
            if key not in ("config", "preprocessing", "labels", "export") and value not in ("", None, {})
        }
        if self.export is not None:
            values["export"] = asdict(self.export)
        named = self.label_set() if full and self.labels is not None else self.labels
        labels = json_form.to_dict(named, full=full) if isinstance(named, LabelSet) else named
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                **values,
                "config": self.config.to_dict(),
                "recipe": self.preprocessing.to_dict(),
                "labels": labels,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Card:
        """The inverse of ``to_json``.

        Raises:
            ModelError: the card is damaged, or of a newer schema.
        """
        try:
            values = json_value(text)
            version = values.pop("schema_version")
            export = values.pop("export", None)
            if version > SCHEMA_VERSION:
                raise ModelError(
                    f"the model's card has schema version {version}; this program reads up to {SCHEMA_VERSION}",
                    "pip install --upgrade convnext-cli",
                )
            config, preprocessing = (
                ConvNextConfig.from_dict(values.pop("config")),
                Preprocessing.from_dict(values.pop("recipe")),
            )
            if min(preprocessing.size) < config.stride:
                raise ValueError(
                    f"photos of {min(preprocessing.size)} pixels are below the network's stride, {config.stride}"
                )
            return cls(
                config=config,
                preprocessing=preprocessing,
                labels=_label_set(values.pop("labels")),
                export=None if export is None else Export.from_dict(export),
                **values,
            )
        except KeyError as error:
            raise ModelError(f"the model's card is damaged: it lacks {error}", _FETCH) from error
        except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ModelError(f"the model's card is damaged: {error}", _FETCH) from error


def _label_set(values: JsonValue) -> str | LabelSet | None:
    """The labels of a card's JSON.

    Raises:
        ValueError: the names are not text.
        KeyError, TypeError: the JSON is damaged.
    """
    if not isinstance(values, dict):
        return values  # type: ignore[no-any-return]  # Card looks at it
    if "bundled" in values:
        return str(values["bundled"])
    if not (isinstance(values["names"], list) and isinstance(values["lemmas"], list)):
        raise ValueError("labels must be lists of text")
    label_set = json_form.from_dict(values)
    texts = (
        label_set.name,
        *label_set.names,
        *label_set.lemmas,
        *label_set.definitions,
        *(i for i in label_set.ids if i is not None),
    )
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("labels must be lists of text")
    return label_set


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
