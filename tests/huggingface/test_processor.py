"""ConvNextImageProcessor as its documentation page describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.huggingface.image_processor import ConvNextFeatureExtractor, ConvNextImageProcessor
from convnext_cli.model.preprocessing import IMAGENET_MEAN, Preprocessing
from convnext_cli.photos.resize import apply_preprocessing
from tests.helpers.photos import encoded, exif_orientation, picture


def test_defaults() -> None:
    processor = ConvNextImageProcessor()
    assert processor.preprocessing == Preprocessing((384, 384), (384, 384), "squash", crop_offset="floor")
    assert processor.size == {"shortest_edge": 384} and processor.image_mean == list(IMAGENET_MEAN)
    assert ConvNextFeatureExtractor is ConvNextImageProcessor


def test_arguments() -> None:
    processor = ConvNextImageProcessor(
        size=224, crop_pct=0.95, resample="bilinear", do_rescale=False, image_mean=0.5, image_std=[0.1, 0.2, 0.3]
    )
    assert processor.preprocessing == Preprocessing(
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
        assert np.array_equal(np.asarray(found), apply_preprocessing(processor.preprocessing, photo))
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
    [
        np.zeros((9, 9, 3), np.int64),
        np.zeros((9, 9, 4)),
        np.full((9, 9, 3), np.nan),
        [],
        np.zeros((2, 9, 9, 9), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        "a.jpg",
        None,
    ],
)
def test_what_is_no_photo_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError):
        ConvNextImageProcessor()(wrong)


def test_what_makes_no_batch_is_refused() -> None:
    processor = ConvNextImageProcessor(do_resize=False)
    photos = [picture(30, 20), picture(20, 30)]
    assert [array.shape for array in processor(photos).pixel_values] == [(3, 20, 30), (3, 30, 20)]
    with pytest.raises(UsageError, match="different sizes"):
        processor(photos, return_tensors="pt")
    with pytest.raises(UsageError, match="tf"):
        processor(photos, return_tensors="tf")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(crop_offset="floor"),
        Preprocessing(resize_to=(235, 235), interpolation="bilinear", crop_offset="floor", mean=(0.5,) * 3),
        Preprocessing((384, 384), (384, 384), "squash", crop_offset="floor"),
        Preprocessing((224, 224), (224, 224), "squash", "bilinear", "floor", float_resize=True),
        Preprocessing((192, 256), (192, 256), "squash", crop_offset="floor", rescale=1.0),
        Preprocessing(resize="none", resize_to=(224, 224), crop_offset="floor", mean=(0.0,) * 3, std=(1.0,) * 3),
    ],
)
def test_saved_and_loaded(preprocessing: Preprocessing, tmp_path: Path) -> None:
    file = ConvNextImageProcessor.from_preprocessing(preprocessing).save_pretrained(tmp_path / "new")
    assert ConvNextImageProcessor.from_pretrained(tmp_path / "new").preprocessing == preprocessing
    assert ConvNextImageProcessor.from_pretrained(file).preprocessing == preprocessing


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(resize_to=(235, 235), crop_offset="floor"),
        Preprocessing((384, 384), (384, 384), "squash"),
        Preprocessing((160, 160), (160, 160), "squash", mean=(0.5,) * 3),
        Preprocessing((96, 64), (96, 64), "squash", "bilinear"),
    ],
    ids=Preprocessing.describe,
)
def test_transformers_reads_what_is_saved(preprocessing: Preprocessing, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    ours = ConvNextImageProcessor.from_preprocessing(preprocessing)
    ours.save_pretrained(tmp_path)
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    photo = picture(333, 500)
    found = ours(photo, return_tensors="np").pixel_values
    assert np.abs(found - theirs(photo, return_tensors="np").pixel_values).max() <= 1e-6


def test_what_the_file_cannot_say_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="longest"):
        ConvNextImageProcessor.from_preprocessing(Preprocessing(resize="longest")).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_field_of_a_file_counts(tmp_path: Path) -> None:
    fields = {"size": 192, "crop_pct": 0.8, "resample": 2, "do_normalize": False, "rescale_factor": 0.01}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    assert ConvNextImageProcessor.from_pretrained(tmp_path).preprocessing == Preprocessing(
        size=(192, 192),
        resize_to=(240, 240),
        interpolation="bilinear",
        crop_offset="floor",
        rescale=0.01,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )


def test_fields_are_attributes() -> None:
    processor = ConvNextImageProcessor(
        size=224, crop_pct=0.95, do_normalize=False, image_mean=np.array([0.1, 0.2, 0.3])
    )
    assert (processor.do_resize, processor.size, processor.crop_pct) == (True, {"shortest_edge": 224}, 0.95)
    assert (processor.resample, processor.do_rescale, processor.rescale_factor) == (3, True, 1 / 255)
    assert (processor.do_normalize, processor.image_mean) == (False, [0.1, 0.2, 0.3])
    assert json.loads(json.dumps(processor.to_dict()))["image_mean"] == [0.1, 0.2, 0.3]
    with pytest.raises(AttributeError):
        processor.size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "preprocessing"),
    [
        ({"size": 192}, Preprocessing((192, 192), (202, 202))),
        ({"size": {"height": 64, "width": 96}}, Preprocessing((64, 96), (64, 96), "squash")),
        ({"crop_pct": 0.875}, Preprocessing()),
        ({"resample": 2}, Preprocessing(resize_to=(235, 235), interpolation="bilinear")),
        ({"do_rescale": False, "image_mean": 0}, Preprocessing(resize_to=(235, 235), rescale=1.0, mean=(0.0,) * 3)),
        ({"do_normalize": False}, Preprocessing(resize_to=(235, 235), mean=(0.0,) * 3, std=(1.0,) * 3)),
        ({"do_resize": False}, Preprocessing((224, 224), (224, 224), "none")),
        ({"size": None}, Preprocessing(resize_to=(235, 235))),
    ],
    ids=str,
)
def test_one_call_may_change_fields(changes: dict[str, Any], preprocessing: Preprocessing) -> None:
    """What has no field, here the crop's rounding, stays."""
    processor = ConvNextImageProcessor.from_preprocessing(Preprocessing(resize_to=(235, 235)))
    photo = picture(333, 500)
    assert np.array_equal(processor(photo, **changes).pixel_values[0], apply_preprocessing(preprocessing, photo))
    assert np.array_equal(
        processor(photo).pixel_values[0], apply_preprocessing(Preprocessing(resize_to=(235, 235)), photo)
    )


def test_switches_come_back_with_the_values_they_had() -> None:
    photo = picture(64, 64)
    off = ConvNextImageProcessor(do_resize=False, do_rescale=False, do_normalize=False, image_mean=0.3, image_std=0.7)
    on = ConvNextImageProcessor(do_resize=False, image_mean=0.3, image_std=0.7)
    found = off(photo, do_rescale=True, do_normalize=True).pixel_values[0]
    assert np.array_equal(found, on(photo).pixel_values[0])


def test_wrong_values_are_refused_by_name() -> None:
    for wrong in (
        {"size": 0},
        {"crop_pct": 2},
        {"image_std": 0},
        {"resample": "magic"},
        {"rescale_factor": float("nan")},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))) as error:
            ConvNextImageProcessor(**wrong)
        assert "preprocessor_config.json" not in str(error.value)
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ConvNextImageProcessor()(picture(9, 9), **wrong)
    with pytest.raises(TypeError, match="do_convert_rgb"):
        ConvNextImageProcessor()(picture(9, 9), do_convert_rgb=True)
    border = ConvNextImageProcessor.from_preprocessing(Preprocessing(resize="longest"))
    assert border(picture(90, 60), do_normalize=False).pixel_values[0].shape == (3, 224, 224)
    with pytest.raises(ModelError, match="longest"):
        border(picture(90, 60), size=192)


def test_what_is_no_photo_says_so() -> None:
    with pytest.raises(UsageError, match="no photos"):
        ConvNextImageProcessor()([])


def test_batches_move_to_a_device_and_a_dtype() -> None:
    import torch

    batch = ConvNextImageProcessor(size=32)(picture(40, 40), return_tensors="pt")
    assert batch.to("cpu") is batch
    assert batch.to("meta", torch.float16).pixel_values.dtype == torch.float16
    assert batch["pixel_values"].device.type == "meta"


@pytest.mark.parametrize("size", [224, 384])
@pytest.mark.parametrize("resample", [2, 3])
def test_floats_are_resized_as_floats_as_transformers_does(size: int, resample: int) -> None:
    import torch
    from transformers import ConvNextImageProcessor as Theirs

    fields: dict[str, Any] = {"size": {"shortest_edge": size}, "resample": resample}
    mean_and_std = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    photo = torch.from_numpy(np.asarray(picture(333, 500)) / np.float32(255)).permute(2, 0, 1)
    ours, theirs = ConvNextImageProcessor(**fields, **mean_and_std), Theirs(**fields, **mean_and_std)
    expected = theirs(photo, do_rescale=False, return_tensors="pt").pixel_values
    for same in (photo, photo.numpy(), photo.permute(1, 2, 0), photo.double().requires_grad_()):
        found = ours(same, do_rescale=False, return_tensors="pt").pixel_values
        assert found.dtype == torch.float32 and float((found - expected).abs().max()) <= 1e-5


def test_floats_are_rescaled_whatever_they_are() -> None:
    processor = ConvNextImageProcessor(do_resize=False, do_normalize=False)
    plain = processor(np.full((4, 4, 3), 51.0)).pixel_values[0]
    assert np.allclose(plain, 0.2)
    with pytest.warns(UserWarning, match="do_rescale"):
        small = processor(np.full((4, 4), 0.51)).pixel_values[0]
    assert small.shape == (3, 4, 4) and np.allclose(small, 0.002)
    with pytest.raises(ValueError, match="lanczos"):
        ConvNextImageProcessor(size=32, resample="lanczos")(np.full((4, 4, 3), 51.0))


def test_the_card_of_the_weights_comes_before_the_file_beside_them(tmp_path: Path) -> None:
    """So that Python and the command line make the same pixels: the file has no word for the crop's rounding."""
    from convnext_cli import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(depths=(1, 1, 1, 1), hidden_sizes=(8, 8, 8, 8), num_labels=2)
    ConvNextForImageClassification(config).save_pretrained(tmp_path)
    assert (tmp_path / "preprocessor_config.json").is_file()
    assert ConvNextImageProcessor.from_pretrained(tmp_path).preprocessing == Preprocessing()
    named = ConvNextImageProcessor.from_pretrained(tmp_path / "preprocessor_config.json")
    assert named.preprocessing == Preprocessing(crop_offset="floor")
    (tmp_path / "preprocessor_config.json").unlink()
    assert ConvNextImageProcessor.from_pretrained(tmp_path).preprocessing == Preprocessing()


@pytest.mark.parametrize("text", ["{", "[]", '{"size": {"depth": 3}}'])
def test_a_damaged_file_is_a_model_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ModelError):
        ConvNextImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ['{"size":' * 50_000, '{"image_mean": 1' + "0" * 400 + "}", '{"crop_pct": 1e-320}'])
def test_a_file_that_nobody_would_write_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        ConvNextImageProcessor.from_pretrained(tmp_path)
