"""Print the table of docs/preprocessing.md: the largest difference between a Preprocessing's pixels and each library's.

Run in the repository: python -m benchmarks.preprocessing
"""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import version
from typing import Any

import torchvision.models
from open_clip.transform import image_transform
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.dinov3_vit.image_processing_dinov3_vit import DINOv3ViTImageProcessor

from convnext_cli.model.preprocessing import Preprocessing
from tests.helpers.peer_preprocessing import Peer, furthest, photos, timm_peer

LIBRARIES = ("pillow", "timm", "torchvision", "transformers", "open_clip_torch", "torch")


def processor(theirs: Any, kind: str) -> tuple[Preprocessing, Peer]:
    preprocessing = Preprocessing.from_huggingface({**theirs.to_dict(), "image_processor_type": kind})
    return preprocessing, lambda image: theirs(image, return_tensors="np")["pixel_values"][0]


def pairs() -> dict[str, tuple[Preprocessing, Peer]]:
    plain = {"mean": Preprocessing().mean, "std": Preprocessing().std}
    found: dict[str, tuple[Preprocessing, Peer]] = {}
    for mode, size, crop_pct in (("center", 224, 0.875), ("center", 288, 0.95), ("squash", 384, 1.0)):
        for interpolation in ("bicubic", "bilinear"):
            cfg = {"input_size": (3, size, size), "crop_pct": crop_pct, "crop_mode": mode, **plain}
            cfg["interpolation"] = interpolation
            found[f"timm {mode}, {size}, {crop_pct}, {interpolation}"] = Preprocessing.from_timm(cfg), timm_peer(cfg)
    for variant in ("tiny", "small", "base", "large"):
        peer = torchvision.models.get_model_weights(f"convnext_{variant}").DEFAULT.transforms()
        found[f"torchvision {variant}"] = Preprocessing.from_torchvision(variant), peer
    for size in (224, 384):
        theirs = ConvNextImageProcessorPil(size={"shortest_edge": size})
        found[f"transformers, PIL path, {size}"] = processor(theirs, "ConvNextImageProcessor")
    found["transformers, DINOv3"] = processor(DINOv3ViTImageProcessor(), "DINOv3ViTImageProcessorFast")
    for mode in ("shortest", "squash"):
        peer = image_transform(256, is_train=False, resize_mode=mode)
        found[f"OpenCLIP {mode}, 256"] = Preprocessing.from_open_clip(256, {"resize_mode": mode}), peer
    return found


def main() -> None:
    print(f"{len(photos())} photos; {platform.machine()}, Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in LIBRARIES), end="; ")
    print(datetime.datetime.now(tz=datetime.UTC).date())
    print("| library and preprocessing | largest difference |\n| --- | --- |")
    for name, (preprocessing, peer) in pairs().items():
        print(f"| {name} | {furthest(preprocessing, peer):.1e} |", flush=True)


if __name__ == "__main__":
    main()
