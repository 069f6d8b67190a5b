"""Preprocessing in other libraries' words: timm's ``pretrained_cfg`` and transformers' preprocessor_config.json.

The inverses are ``Preprocessing.from_timm`` and ``Preprocessing.from_huggingface``; ``unsaid`` compares the
two.
"""

from __future__ import annotations

from typing import Any

from convnext_cli.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, SQUASH_FROM, Preprocessing

_TIMM_MODES = {"shortest": "center", "squash": "squash", "longest": "border"}
# Each library rounds the crop in its own way, by a pixel at most, and the test size is advice: no file says either.
_ADVICE = ("crop_offset", "test_size", "test_resize_to")


def to_timm(recipe: Preprocessing, channels: int = 3) -> dict[str, Any]:
    """The fields of timm's ``pretrained_cfg`` that come nearest to a recipe. channels: of the photo."""
    cfg: dict[str, Any] = {
        "input_size": [channels, *recipe.size],
        "interpolation": recipe.interpolation,
        "crop_pct": recipe.crop_pct,
        "crop_mode": _TIMM_MODES.get(recipe.resize, "center"),
        "mean": list(recipe.mean),
        "std": list(recipe.std),
    }
    if recipe.test_size is not None:
        at_test = recipe.at_test_size()
        cfg |= {"test_input_size": [channels, *at_test.size], "test_crop_pct": at_test.crop_pct}
    return cfg


def to_huggingface(recipe: Preprocessing) -> dict[str, Any]:
    """The fields of preprocessor_config.json that come nearest to a recipe."""
    normalized = recipe.mean != (0.0,) * 3 or recipe.std != (1.0,) * 3
    rescaled, height, width = recipe.rescale != 1.0, *recipe.size
    dino = recipe.float_resize
    warped = dino or height != width or (recipe.resize == "squash" and height < SQUASH_FROM)
    # transformers' ConvNext processor knows no height and width; ViT's warps to them
    kind = "DINOv3ViTImageProcessorFast" if dino else "ViTImageProcessor" if warped else "ConvNextImageProcessor"
    return {
        "image_processor_type": kind,
        "do_resize": recipe.resize != "none",
        "size": {"height": height, "width": width} if warped else {"shortest_edge": height},
        "crop_pct": recipe.crop_pct if recipe.resize == "shortest" else None,
        "resample": INTERPOLATIONS.index(recipe.interpolation),
        "do_rescale": rescaled,
        "rescale_factor": recipe.rescale if rescaled else 1 / 255,
        "do_normalize": normalized,
        "image_mean": list(recipe.mean if normalized else IMAGENET_MEAN),
        "image_std": list(recipe.std if normalized else IMAGENET_STD),
    }


def unsaid(recipe: Preprocessing, said: Preprocessing) -> list[str]:
    """The fields in which what a library's file says differs from the recipe that it was to say."""
    wanted, found = recipe.to_dict(), said.to_dict()
    passed = _ADVICE if recipe.resize == "longest" else (*_ADVICE, "fill")  # nothing else is padded with it
    return [name for name in wanted if name not in passed and wanted[name] != found[name]]
