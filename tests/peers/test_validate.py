"""``convnext evaluate`` against what timm's validate.py does: same checkpoint, same photos, same figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.command import Run
from tests.helpers.peers import randomise, save_timm, timm_named
from tests.helpers.photos import encoded, picture

pytestmark = pytest.mark.peers
CLASSES, PHOTOS = 12, 240
NAME = "test_convnext"
# Not the architecture's own, so that what the checkpoint says is what counts.
RECIPE = {"input_size": (3, 96, 96), "crop_pct": 0.9, "interpolation": "bilinear", "test_input_size": (3, 128, 128)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    sizes = [(100 + 7 * (i % 13), 90 + 11 * (i % 9)) for i in range(PHOTOS)]
    return [encoded(picture(*size, seed=i)) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, photos: list[bytes]) -> Path:
    """A folder of timm's, whose answers are spread over the classes."""
    model = timm_named(NAME, num_classes=CLASSES, pretrained_cfg_overlay=RECIPE).eval()
    randomise(model)
    with torch.inference_mode():
        inputs = torch.stack([_transform(model, size=False)(_opened(data)) for data in photos[::4]])
        logits = model(inputs)
        model.head.fc.bias.sub_(logits.mean(0)).div_(logits.std(0))
        model.head.fc.weight.div_(logits.std(0)[:, None])
    return save_timm(model, tmp_path_factory.mktemp("timm"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: list[bytes]) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for i, data in enumerate(photos):
        path = made / f"class_{i % CLASSES:02}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return made


def _opened(data: bytes):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")


def _config(model: torch.nn.Module, *, size: bool) -> dict:
    from timm.data import resolve_data_config

    return resolve_data_config({}, model=model, use_test_size=size)


def _transform(model: torch.nn.Module, *, size: bool):
    from timm.data import create_transform

    return create_transform(**_config(model, size=size))


def validated(checkpoint: Path, folder: Path, *, size: bool) -> dict[str, float]:
    """Per cent, as validate.py counts them; size: at the test size, which --use-train-size turns off."""
    import timm
    from timm.data import create_dataset, create_loader
    from timm.utils import AverageMeter, accuracy

    model = timm.create_model(f"local-dir:{checkpoint}", pretrained=True).eval()
    config = _config(model, size=size)
    loader = create_loader(
        create_dataset("", root=str(folder), split="validation"),
        input_size=config["input_size"],
        batch_size=16,
        use_prefetcher=False,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        num_workers=0,
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        pin_memory=False,
    )
    meters = {"top1": AverageMeter(), "top5": AverageMeter()}
    with torch.inference_mode():
        for images, target in loader:
            for meter, share in zip(meters.values(), accuracy(model(images), target, topk=(1, 5)), strict=True):
                meter.update(share.item(), len(images))
    return {name: meter.avg for name, meter in meters.items()}


@pytest.mark.parametrize("size", [False, True], ids=["train size", "test size"])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_evaluate_is_validate(convnext: Run, checkpoint: Path, folder: Path, size: bool, engine: str) -> None:
    theirs = validated(checkpoint, folder, size=size)
    arguments = ["--size", "test"] if size else []
    done = convnext("evaluate", folder, "-m", checkpoint, "--by-index", "--json", "-e", engine, *arguments)
    assert done.status == 0, done.err
    ours = json.loads(done.out)
    assert ours["recipe"]["size"] == ([128, 128] if size else [96, 96])
    # one photo in a thousand: of 240, none
    for name, share in theirs.items():
        assert 1 < share < 99
        assert abs(100 * ours[name]["value"] - share) < 0.1, name


def test_the_two_sizes_differ(checkpoint: Path, folder: Path) -> None:
    """Else the test above could not tell one from the other."""
    assert validated(checkpoint, folder, size=False) != validated(checkpoint, folder, size=True)
