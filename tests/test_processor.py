"""ConvNextImageProcessor as its documentation page describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext_cli.errors import ModelError, UsageError
from convnext_cli.photos.processor import ConvNextFeatureExtractor, ConvNextImageProcessor
from convnext_cli.photos.recipe import IMAGENET_MEAN, Recipe
from tests.photos_made import encoded, exif_orientation, picture


def test_defaults() -> None:
    processor = ConvNextImageProcessor()
    assert processor.recipe == Recipe((384, 384), (384, 384), "squash", crop_offset="floor")
    assert processor.size == {"shortest_edge": 384} and processor.image_mean == list(IMAGENET_MEAN)
    assert ConvNextFeatureExtractor is ConvNextImageProcessor


def test_arguments() -> None:
    processor = ConvNextImageProcessor(
        size=224, crop_pct=0.95, resample="bilinear", do_rescale=False, image_mean=0.5, image_std=[0.1, 0.2, 0.3]
    )
    assert processor.recipe == Recipe(
        resize_to=(235, 235),
        interpolation="bilinear",
        crop_offset="floor",
        rescale=1.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.1, 0.2, 0.3),
    )
    assert processor.crop_pct == 0.95 and "235" in repr(processor)


@pytest.mark.parametrize("tensors", ["pt", "np", None])
def test_what_comes_back(tensors: Any) -> None:
    processor = ConvNextImageProcessor(size=224)
    photos = [picture(300, 200), picture(200, 300)]
    batch = processor(photos, return_tensors=tensors)
    assert batch["pixel_values"] is batch.pixel_values and set(batch) == {"pixel_values"}
    assert len(batch.pixel_values) == 2
    for found, photo in zip(batch.pixel_values, photos, strict=True):
        assert np.array_equal(np.asarray(found), processor.recipe.apply(photo))
    if tensors:
        assert tuple(batch.pixel_values.shape) == (2, 3, 224, 224)
        assert tuple(processor.preprocess(photos[0], return_tensors=tensors).pixel_values.shape) == (1, 3, 224, 224)
    with pytest.raises(AttributeError):
        _ = batch.labels


def test_arrays_and_tensors_are_photos_too() -> None:
    import torch

    processor = ConvNextImageProcessor(size=224)
    array = np.asarray(picture(300, 200))
    planes = array.transpose(2, 0, 1)
    wanted = processor(picture(300, 200), return_tensors="np").pixel_values
    for same in (array, planes, torch.tensor(array), torch.tensor(planes), array[None], [planes]):
        assert np.array_equal(processor(same, return_tensors="np").pixel_values, wanted)
    grey = np.asarray(picture(300, 200, "L"))
    wanted = processor(picture(300, 200, "L"), return_tensors="np").pixel_values
    for same in (grey, grey[None], grey[..., None]):
        assert np.array_equal(processor(same, return_tensors="np").pixel_values, wanted)


def test_a_pil_image_is_made_upright_and_opaque() -> None:
    import io

    processor = ConvNextImageProcessor(size=224)
    turned = Image.open(
        io.BytesIO(encoded(picture(300, 200).transpose(Image.Transpose.ROTATE_90), exif=exif_orientation(6)))
    )
    assert np.array_equal(processor(turned).pixel_values[0], processor(picture(300, 200)).pixel_values[0])
    clear = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    assert np.array_equal(
        processor(clear).pixel_values[0], processor(Image.new("RGB", (300, 200), "white")).pixel_values[0]
    )


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((9, 9, 3), np.float32), np.zeros((2, 9, 9, 9), np.uint8), np.zeros((0, 9, 3), np.uint8), "a.jpg", None],
)
def test_what_is_no_photo_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError):
        ConvNextImageProcessor()(wrong)


def test_what_makes_no_batch_is_refused() -> None:
    processor = ConvNextImageProcessor(do_resize=False)
    photos = [picture(30, 20), picture(20, 30)]
    assert [array.shape for array in processor(photos).pixel_values] == [(3, 20, 30), (3, 30, 20)]
    with pytest.raises(UsageError, match="unlike"):
        processor(photos, return_tensors="pt")
    with pytest.raises(UsageError, match="tf"):
        processor(photos, return_tensors="tf")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(crop_offset="floor"),
        Recipe(resize_to=(235, 235), interpolation="bilinear", crop_offset="floor", mean=(0.5,) * 3),
        Recipe((384, 384), (384, 384), "squash", crop_offset="floor"),
        Recipe((224, 224), (224, 224), "squash", "bilinear", "floor", float_resize=True),
        Recipe((192, 256), (192, 256), "squash", crop_offset="floor", rescale=1.0),
        Recipe(resize="none", resize_to=(224, 224), crop_offset="floor", mean=(0.0,) * 3, std=(1.0,) * 3),
    ],
)
def test_saved_and_loaded(recipe: Recipe, tmp_path: Path) -> None:
    file = ConvNextImageProcessor.from_recipe(recipe).save_pretrained(tmp_path / "new")
    assert ConvNextImageProcessor.from_pretrained(tmp_path / "new").recipe == recipe
    assert ConvNextImageProcessor.from_pretrained(file).recipe == recipe


def test_transformers_reads_what_is_saved(tmp_path: Path) -> None:
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    ours = ConvNextImageProcessor(size=224, crop_pct=0.95)
    ours.save_pretrained(tmp_path)
    theirs = ConvNextImageProcessorPil.from_pretrained(tmp_path)
    photo = picture(333, 500)
    found = ours(photo, return_tensors="np").pixel_values
    assert np.abs(found - theirs(photo, return_tensors="np").pixel_values).max() <= 1e-6


def test_what_the_file_cannot_say_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="longest"):
        ConvNextImageProcessor.from_recipe(Recipe(resize="longest")).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_field_of_a_file_counts(tmp_path: Path) -> None:
    fields = {"size": 192, "crop_pct": 0.8, "resample": 2, "do_normalize": False, "rescale_factor": 0.01}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    assert ConvNextImageProcessor.from_pretrained(tmp_path).recipe == Recipe(
        size=(192, 192),
        resize_to=(240, 240),
        interpolation="bilinear",
        crop_offset="floor",
        rescale=0.01,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"size": {"depth": 3}}'])
def test_a_damaged_file_is_a_model_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ModelError):
        ConvNextImageProcessor.from_pretrained(tmp_path)
