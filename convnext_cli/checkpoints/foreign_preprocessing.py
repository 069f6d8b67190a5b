"""Preprocessing in other libraries' formats: timm's ``pretrained_cfg`` and transformers' preprocessor_config.json.

The inverses are ``Preprocessing.from_timm`` and ``Preprocessing.from_huggingface``; ``inexpressible`` compares both.
"""

from __future__ import annotations

from collections.abc import Callable

from convnext_cli.base.text import JsonObject
from convnext_cli.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, SQUASH_FROM, Preprocessing

_TIMM_MODES = {"shortest": "center", "squash": "squash", "longest": "border"}
# Each library rounds the crop in its own way, by at most a pixel, and the test size is advice: no file has either.
_ADVICE = ("crop_offset", "test_size", "test_resize_to")


def to_timm(preprocessing: Preprocessing, channels: int = 3) -> JsonObject:
    """The fields of timm's ``pretrained_cfg`` that are nearest to a model's preprocessing.

    Args:
        preprocessing: the preprocessing.
        channels: of the photo.
    """
    cfg: JsonObject = {
        "input_size": [channels, *preprocessing.size],
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": _TIMM_MODES.get(preprocessing.resize, "center"),
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }
    if preprocessing.test_size is not None:
        at_test = preprocessing.at_test_size()
        cfg |= {"test_input_size": [channels, *at_test.size], "test_crop_pct": at_test.crop_pct}
    return cfg


def to_huggingface(preprocessing: Preprocessing) -> JsonObject:
    """The fields of preprocessor_config.json that are nearest to a model's preprocessing."""
    normalized = preprocessing.mean != (0.0,) * 3 or preprocessing.std != (1.0,) * 3
    rescaled, height, width = preprocessing.rescale != 1.0, *preprocessing.size
    dino = preprocessing.float_resize
    warped = dino or height != width or (preprocessing.resize == "squash" and height < SQUASH_FROM)
    # transformers' ConvNext processor has no height and width; that of ViT warps to them
    kind = "DINOv3ViTImageProcessorFast" if dino else "ViTImageProcessor" if warped else "ConvNextImageProcessor"
    return {
        "image_processor_type": kind,
        "do_resize": preprocessing.resize != "none",
        "size": {"height": height, "width": width} if warped else {"shortest_edge": height},
        "crop_pct": preprocessing.crop_pct if preprocessing.resize == "shortest" else None,
        "resample": INTERPOLATIONS.index(preprocessing.interpolation),
        "do_rescale": rescaled,
        "rescale_factor": preprocessing.rescale if rescaled else 1 / 255,
        "do_normalize": normalized,
        "image_mean": list(preprocessing.mean if normalized else IMAGENET_MEAN),
        "image_std": list(preprocessing.std if normalized else IMAGENET_STD),
    }


def lost(preprocessing: Preprocessing, read: Callable[[], Preprocessing]) -> list[str]:
    """Like ``inexpressible``; a file that the library would refuse loses everything, for the reason in the list.

    Args:
        preprocessing: the model's preprocessing.
        read: reads it back from the file.
    """
    try:
        return inexpressible(preprocessing, read())
    except ValueError as error:
        return [str(error)]


def inexpressible(preprocessing: Preprocessing, stated: Preprocessing) -> list[str]:
    """The fields of a model's preprocessing that another library's file cannot express.

    Args:
        preprocessing: the model's preprocessing.
        stated: the preprocessing that is read back from the file.
    """
    ours, theirs = preprocessing.to_dict(), stated.to_dict()
    passed = _ADVICE if preprocessing.resize == "longest" else (*_ADVICE, "fill")  # only "longest" uses it
    return [name for name in ours if name not in passed and ours[name] != theirs[name]]
