"""The pixels of a Preprocessing against those of the libraries that the weights come from."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext_cli.huggingface.image_processor import ConvNextImageProcessor
from convnext_cli.model.preprocessing import CLIP_MEAN, INCEPTION_MEAN, INCEPTION_STD, Preprocessing
from convnext_cli.photos.decode import decode
from convnext_cli.photos.resize import apply_preprocessing
from tests.helpers.peer_preprocessing import furthest, photos, timm_peer
from tests.helpers.photos import picture

pytestmark = pytest.mark.peers


def test_there_are_at_least_200_photos() -> None:
    assert len(photos()) >= 200


@pytest.mark.parametrize(
    "cfg",
    [
        {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"},
        {"input_size": (3, 288, 288), "crop_pct": 0.95, "interpolation": "bilinear"},
        {"input_size": (3, 160, 160), "crop_pct": 0.95, "mean": INCEPTION_MEAN, "std": INCEPTION_STD},
        {"input_size": (3, 384, 384), "crop_pct": 1.0, "crop_mode": "squash"},
        {"input_size": (3, 224, 224), "crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"},
        {"input_size": (3, 256, 224), "crop_pct": 0.95},
    ],
    ids=["center-bicubic", "center-bilinear", "center-160", "squash-384", "squash-crop", "oblong"],
)
def test_timm(cfg: dict[str, Any]) -> None:
    cfg = {"interpolation": "bicubic", "mean": Preprocessing().mean, "std": Preprocessing().std, **cfg}
    preprocessing, peer = Preprocessing.from_timm(cfg), timm_peer(cfg)
    if cfg["input_size"][1] == cfg["input_size"][2]:
        assert furthest(preprocessing, peer, 1 if "crop_mode" not in cfg else 3) <= 1e-6
    else:  # timm rounds the short side of a thread to nothing, and fails
        for size in ((640, 480), (333, 500), (100, 90), (225, 223)):
            photo = picture(*size)
            assert np.abs(apply_preprocessing(preprocessing, photo) - np.asarray(peer(photo))).max() <= 1e-6


@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_timm_border(crop_pct: float) -> None:
    cfg = {"input_size": (3, 224, 224), "crop_pct": crop_pct, "crop_mode": "border", "interpolation": "bicubic"}
    preprocessing, peer = (
        Preprocessing.from_timm(cfg),
        timm_peer({**cfg, "mean": Preprocessing().mean, "std": Preprocessing().std}),
    )
    for ours, theirs in photos()[::3]:
        if max(ours.size) < 2 * 224 * min(ours.size):  # else timm rounds the short side to nothing, and fails
            assert np.abs(apply_preprocessing(preprocessing, ours) - np.asarray(peer(theirs))).max() <= 1e-6


def test_timms_usual_recipe_of_every_architecture() -> None:
    import timm
    from timm.data import resolve_data_config

    from convnext_cli.checkpoints.layouts import timm as layout
    from convnext_cli.model.config import VARIANTS

    known = [name for name in timm.list_models("*convnext*") if name in VARIANTS]
    assert len(known) > 25
    for name in known:
        cfg = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
        assert layout.usual(name) == Preprocessing.from_timm(cfg), name


@pytest.mark.parametrize("variant", ["tiny", "small", "base", "large"])
def test_torchvision(variant: str) -> None:
    import torchvision.models as models

    weights = models.get_model_weights(f"convnext_{variant}").DEFAULT
    assert (
        furthest(Preprocessing.from_torchvision(variant), weights.transforms(), 1 if variant == "tiny" else 3) <= 1e-6
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
        {"size": {"shortest_edge": 224}, "crop_pct": 0.95, "resample": 2},
        {"size": {"shortest_edge": 384}, "resample": 3},
        {"size": {"shortest_edge": 224}, "do_normalize": False},
        {"size": {"shortest_edge": 224}, "do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
    ],
    ids=["bicubic", "bilinear", "squash", "plain", "bytes"],
)
def test_transformers(fields: dict[str, Any]) -> None:
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    theirs = ConvNextImageProcessorPil(**fields)
    preprocessing = Preprocessing.from_huggingface(
        {**theirs.to_dict(), "image_processor_type": "ConvNextImageProcessor"}
    )
    step = (
        1 if preprocessing == Preprocessing(mean=preprocessing.mean, std=preprocessing.std, crop_offset="floor") else 3
    )
    assert furthest(preprocessing, lambda image: theirs(image, return_tensors="np")["pixel_values"][0], step) <= 1e-6


def test_transformers_dinov3() -> None:
    from transformers.models.dinov3_vit.image_processing_dinov3_vit import DINOv3ViTImageProcessor

    theirs = DINOv3ViTImageProcessor()
    preprocessing = Preprocessing.from_huggingface(
        {**theirs.to_dict(), "image_processor_type": "DINOv3ViTImageProcessorFast"}
    )
    assert preprocessing.float_resize
    assert furthest(preprocessing, lambda image: theirs(image, return_tensors="np")["pixel_values"][0], 2) <= 1e-6


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_open_clip(mode: str) -> None:
    from open_clip.transform import image_transform

    preprocessing = Preprocessing.from_open_clip(224, {"resize_mode": mode})
    assert preprocessing.mean == CLIP_MEAN
    peer = image_transform(224, is_train=False, resize_mode=mode)
    for ours, theirs in photos()[::3]:
        if mode != "longest" or max(ours.size) < 2 * 224 * min(ours.size):
            assert np.abs(apply_preprocessing(preprocessing, ours) - np.asarray(peer(theirs))).max() <= 1e-6


def test_our_processor_is_theirs() -> None:
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    mean, std = list(Preprocessing().mean), list(Preprocessing().std)
    theirs = ConvNextImageProcessorPil(size={"shortest_edge": 224}, image_mean=mean, image_std=std)
    ours = ConvNextImageProcessor(size={"shortest_edge": 224})
    batch = [picture(640, 480), picture(224, 231), picture(90, 100)]
    expected = theirs(batch, return_tensors="pt").pixel_values
    found = ours(batch, return_tensors="pt").pixel_values
    assert found.shape == expected.shape and float((found - expected).abs().max()) <= 1e-6


def test_transformers_and_torchvision_crop_apart_where_the_excess_leaves_3_by_4() -> None:
    photo = picture(227, 224)
    rounded = apply_preprocessing(Preprocessing(resize_to=(224, 224)), photo)
    floored = apply_preprocessing(Preprocessing(resize_to=(224, 224), crop_offset="floor"), photo)
    assert np.array_equal(rounded[:, :, :-1], floored[:, :, 1:])
    assert not np.array_equal(rounded, floored)


def test_peers_ignore_orientation() -> None:
    """What docs/preprocessing.md says of timm, torchvision and transformers' processor."""
    from tests.helpers.photos import encoded, exif_orientation

    data = encoded(picture(300, 200), "JPEG", exif=exif_orientation(6))
    cfg = {
        "input_size": (3, 224, 224),
        "mean": Preprocessing().mean,
        "std": Preprocessing().std,
        "interpolation": "bicubic",
    }
    theirs = np.asarray(timm_peer(cfg)(Image.open(io.BytesIO(data)).convert("RGB")))
    ours = apply_preprocessing(Preprocessing(), decode(data).image)
    assert np.abs(ours - theirs).max() > 0.1
    # The same picture lying down, but for the order of the resize's two passes: a few of 255 levels.
    assert np.abs(np.rot90(ours, axes=(1, 2)) - theirs).mean() < 0.01
