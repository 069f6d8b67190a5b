"""Reads from a library's JSON what its tensors do not show: epsilons, activation, preprocessing, labels.

Formats: transformers' config.json and preprocessor_config.json in every spelling since 4.17, timm's config.json in
both forms, OpenCLIP's open_clip_config.json.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import JsonObject, JsonValue
from convnext_cli.checkpoints.companion_files import PROCESSOR
from convnext_cli.checkpoints.layouts import huggingface
from convnext_cli.checkpoints.layouts.huggingface import DINO_PROCESSOR
from convnext_cli.labels import LabelSet, json_form
from convnext_cli.model.card import Problem, Task
from convnext_cli.model.config import VARIANTS, ConvNextConfig, Norm
from convnext_cli.model.preprocessing import Preprocessing

Ours = TypeVar("Ours")
_NORMS: dict[str, Norm] = {
    "layernorm": "layer",
    "layernorm2d": "layer",
    "rmsnorm": "rms",
    "rmsnorm2d": "rms",
    "simplenorm": "simple",
    "simplenorm2d": "simple",
}
PROBLEMS: dict[str, Problem] = {theirs: ours for ours, theirs in huggingface.PROBLEMS.items()}


@dataclass
class Description:
    """The description of a checkpoint before its tensors are read. What the tensors show takes precedence.

    Args:
        by: the source of the description, for messages; "" for none.
        config: fields of ConvNextConfig. Sizes among them are checked against the tensors.
        labels: as in Card; None if there is no information.
    """

    by: str
    config: JsonObject = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    labels: str | LabelSet | None = None
    name: str = ""
    architecture: str = ""
    license: str = ""
    source: str = ""
    task: Task | None = None
    problem: Problem | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def describe(files: Mapping[str, JsonObject]) -> Description | None:
    """Read the JSON files of a folder.

    Args:
        files: their contents by name.

    Returns:
        The description; None if no file describes a network.

    Raises:
        ModelError: they describe another network than a ConvNeXt.
    """
    config = files.get("config.json", {})
    if "architecture" in config or "pretrained_cfg" in config:
        with reading("config.json"):
            return _timm(config)
    if "open_clip_config.json" in files:
        with reading("open_clip_config.json"):
            return _openclip(files["open_clip_config.json"])
    processor = files.get(PROCESSOR)
    if "model_type" in config or "architectures" in config or "hidden_sizes" in config:
        with reading("config.json"):
            return _huggingface(config, processor)
    return Description(PROCESSOR, preprocessing=_preprocessing(processor)) if processor is not None else None


@contextlib.contextmanager
def reading(file: str) -> Iterator[None]:
    """Say in plain words which file has a value of a wrong kind: a ModelError for whatever its parsing raises."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ModelError(f"{file} has a wrong value: {error}", "fix it, or download the model again") from error


def _preprocessing(processor: JsonObject, image_size: int | None = None) -> Preprocessing:
    with reading(PROCESSOR):
        return Preprocessing.from_huggingface(processor, image_size)


def _huggingface(config: JsonObject, processor: JsonObject | None) -> Description:
    kind = str(config.get("model_type") or "convnext")
    if kind not in ("convnext", "convnextv2", "dinov3_convnext"):
        raise ModelError(f"config.json describes a {kind!r} model, not a ConvNeXt", "name the folder of a ConvNeXt")
    dino = kind == "dinov3_convnext"

    def value(name: str, default: JsonValue) -> JsonValue:
        setting = config.get(name)
        return default if setting is None else setting

    eps = value("layer_norm_eps", 1e-6 if dino else 1e-12)
    image_size = ConvNextConfig(image_size=value("image_size", 224)).image_size  # a number, whatever its spelling
    notes: list[str] = []
    return Description(
        "config.json",
        {
            "num_channels": value("num_channels", 3),
            "patch_size": 4 if dino else value("patch_size", 4),
            "hidden_sizes": value("hidden_sizes", (96, 192, 384, 768)),
            "depths": value("depths", (3, 3, 9, 3)),
            "use_grn": kind == "convnextv2",
            "hidden_act": value("hidden_act", "gelu"),
            "initializer_range": value("initializer_range", 0.02),
            "layer_norm_eps": eps,
            "norm_eps": eps if dino else 1e-6,  # the others' modules fix all but the last
            "layer_scale_init_value": 0.0 if kind == "convnextv2" else value("layer_scale_init_value", 1e-6),
            "drop_path_rate": value("drop_path_rate", 0.0),
            "image_size": image_size,
        },
        preprocessing=_preprocessing(processor or (DINO_PROCESSOR if dino else {}), image_size),
        labels=_labels(config.get("id2label"), notes),
        source=str(config.get("_name_or_path") or ""),
        problem=_translated(PROBLEMS, problem, "problem_type") if (problem := config.get("problem_type")) else None,
        notes=notes,
    )


def _timm(config: JsonObject) -> Description:
    # Older files have all fields at the top; newer ones in pretrained_cfg, where the top overrides.
    top = {name: config[name] for name in ("num_classes", "label_names", "label_descriptions") if name in config}
    cfg = {**config.get("pretrained_cfg", config), **top}
    architecture = str(config.get("architecture") or cfg.get("architecture") or "")
    variant = VARIANTS.get(architecture)
    if variant is None and "convnext" not in architecture:
        raise ModelError(
            f"config.json describes a {architecture or 'nameless'!r} model, not a ConvNeXt",
            "name the folder of a ConvNeXt",
        )
    preprocessing = Preprocessing.from_timm(cfg)
    changes: JsonObject = {"image_size": preprocessing.size[0]}
    if variant:
        understood = ("depths", "hidden_sizes", "kernel_sizes", "hidden_act", "layer_norm_eps", "norm_eps", "norm")
        changes |= {name: getattr(variant, name) for name in understood}
    notes = _timm_arguments(config.get("model_args") or {}, changes)
    pool = config.get("global_pool", "avg")
    if pool not in ("avg", "fast", "", None):
        raise ModelError(
            f"config.json asks for {pool!r} pooling; only the mean is supported", "use a model with average pooling"
        )
    names = cfg.get("label_names") or cfg.get("labels")
    tag = cfg.get("tag")
    return Description(
        "config.json",
        changes,
        preprocessing=preprocessing,
        labels=_labels(names, notes),
        architecture=architecture,
        license=str(cfg.get("license") or ""),
        source=f"timm/{architecture}.{tag}" if tag else "",
        notes=notes,
    )


def _timm_arguments(arguments: JsonObject, changes: JsonObject) -> list[str]:
    """Apply the overrides of the constructor to ``changes``, and return notes on those that are not supported."""
    seen_in_shapes = {
        "num_classes", "in_chans", "ls_init_value", "stem_type", "patch_size", "head_hidden_size", "conv_mlp",
        "conv_bias", "use_grn", "head_norm_first", "drop_rate", "head_init_scale", "global_pool",
    }  # fmt: skip
    notes = []
    for name, value in arguments.items():
        if name == "depths":
            changes["depths"] = value
        elif name == "dims":
            changes["hidden_sizes"] = value
        elif name == "kernel_sizes":
            changes["kernel_sizes"] = value if isinstance(value, list | tuple) else (value,) * 4
        elif name == "norm_eps" and value is not None:
            changes |= {"norm_eps": value, "layer_norm_eps": value}
        elif name == "act_layer" and value is not None:
            changes["hidden_act"] = value
        elif name == "norm_layer" and value is not None:
            changes["norm"] = _translated(_NORMS, value, "norm_layer")
        elif name == "drop_path_rate":
            changes["drop_path_rate"] = value or 0.0
        elif name == "output_stride" and value != 32:
            raise ModelError(
                f"config.json asks for an output stride of {value}; dilated networks are not supported",
                "use one of stride 32",
            )
        elif name not in seen_in_shapes and name not in ("norm_eps", "act_layer", "norm_layer", "output_stride"):
            notes.append(f"config.json has an unknown model argument {name!r}, which was ignored")
    return notes


def _openclip(config: JsonObject) -> Description:
    model = config.get("model_cfg", config)
    vision, preprocess = model.get("vision_cfg", {}), config.get("preprocess_cfg", {})
    architecture = str(vision.get("timm_model_name") or "")
    if "convnext" not in architecture:
        what = architecture or "a network of OpenCLIP's own"
        raise ModelError(f"open_clip_config.json describes {what}, not a ConvNeXt", "use a convnext_* tower")
    preprocessing = Preprocessing.from_open_clip(vision.get("image_size", 224), preprocess)
    changes: JsonObject = {"image_size": preprocessing.size[0]}
    if variant := VARIANTS.get(architecture):
        understood = ("depths", "hidden_sizes", "kernel_sizes", "hidden_act", "layer_norm_eps", "norm_eps", "norm")
        changes |= {name: getattr(variant, name) for name in understood}
    return Description(
        "open_clip_config.json",
        changes,
        preprocessing=preprocessing,
        architecture=architecture,
        task="embedding",
    )


def _labels(names: JsonValue, notes: list[str]) -> LabelSet | None:
    """The classes that the JSON names, as a list or by number; None, and a note, if they are not usable."""
    if not names:
        return None
    mapping = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        # a class without a name gets transformers' placeholder
        mapping = {key: name or f"LABEL_{key}" for key, name in mapping.items()}
        return json_form.from_id2label(mapping)
    except (ModelError, AttributeError) as error:
        notes.append(f"the class names in config.json cannot be used: {error}")
        return None


def _translated(table: Mapping[str, Ours], name: JsonValue, what: str) -> Ours:
    ours = table.get(str(name).lower())
    if ours is None:
        raise ValueError(f"{what} must be one of {', '.join(table)}, not {name!r}")
    return ours
