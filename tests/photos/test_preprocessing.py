"""Recipes from every spelling of every library's metadata, and what they do to pixels that can be foretold."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convnext_cli.base.errors import ModelError
from convnext_cli.model.preprocessing import (
    CLIP_MEAN,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
)
from convnext_cli.photos.resize import apply_preprocessing
from tests.helpers.photos import picture

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "rescale": 1.0}


def test_recipe_imports_nothing_heavy() -> None:
    script = "import sys, convnext_cli.model.preprocessing; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "set()"


def test_json_there_and_back() -> None:
    preprocessing = Preprocessing(test_size=(288, 288), test_resize_to=(288, 288), fill="black", float_resize=True)
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    with pytest.raises(TypeError):
        Preprocessing.from_dict({"sise": [1, 1]})


@pytest.mark.parametrize(
    ("preprocessing", "line"),
    [
        (Preprocessing(), "224×224, shortest side 256, bicubic, centre crop"),
        (Preprocessing.official(384), "384×384, squashed, bicubic"),
        (Preprocessing(resize="squash"), "224×224, squashed to 256×256, bicubic, centre crop"),
        (Preprocessing(resize="longest", resize_to=(224, 224)), "224×224, longest side 224, bicubic, padded"),
        (Preprocessing(resize="none"), "at the photo's own size"),
        (Preprocessing(size=(256, 224), resize_to=(292, 256)), "256×224, shortest side 292×256, bicubic, centre crop"),
        (
            Preprocessing(resize="squash", resize_to=(224, 224), interpolation="bilinear", float_resize=True),
            "224×224, squashed, bilinear on floats",
        ),
    ],
)
def test_describe(preprocessing: Preprocessing, line: str) -> None:
    assert preprocessing.describe() == line


@pytest.mark.parametrize(
    ("size", "crop_pct", "edge"),
    [
        (224, 0.875, 256),
        (224, 0.95, 235),
        (224, 0.9, 248),
        (288, 0.95, 303),
        (288, 1.0, 288),
        (256, 0.875, 292),
        (320, 0.875, 365),
        (160, 0.95, 168),
    ],
)
def test_edges_met_in_practice(size: int, crop_pct: float, edge: int) -> None:
    preprocessing = Preprocessing.from_timm({"input_size": [3, size, size], "crop_pct": crop_pct})
    assert preprocessing.resize_to == (edge, edge)
    assert preprocessing.crop_pct == crop_pct


@given(st.integers(16, 1024), st.integers(16, 2048))
def test_crop_pct_explains_the_edge(size: int, edge: int) -> None:
    preprocessing = Preprocessing(size=(size, size), resize_to=(edge, edge))
    assert preprocessing.at_size(size) == preprocessing


def test_another_size_keeps_the_crop_and_the_test_size_is_used_on_request() -> None:
    preprocessing = Preprocessing.from_timm({"crop_pct": 0.95, "test_input_size": [3, 288, 288], "test_crop_pct": 1.0})
    assert preprocessing.at_size(288).resize_to == (303, 303)
    assert preprocessing.at_size((288, 224)).resize_to == (303, 235)
    assert preprocessing.at_size(288, crop_pct=1.0).resize_to == (288, 288)
    tested = preprocessing.at_test_size()
    assert (tested.size, tested.resize_to) == ((288, 288), (288, 288))
    assert Preprocessing().at_test_size() == Preprocessing()
    assert Preprocessing(test_size=(288, 288)).at_test_size().resize_to == (329, 329)
    assert preprocessing.changed(crop_pct=1.0, resize="squash").resize_to == (224, 224)


def test_official() -> None:
    assert Preprocessing.official() == Preprocessing()
    assert Preprocessing.official(320).resize_to == (365, 365)
    assert Preprocessing.official(384).resize == "squash"


def test_torchvision() -> None:
    preprocessing = Preprocessing.from_torchvision("convnext_small")
    assert (preprocessing.resize_to, preprocessing.interpolation) == ((230, 230), "bilinear")
    assert Preprocessing.from_torchvision("large").resize_to == (232, 232)
    with pytest.raises(ModelError, match="xlarge"):
        Preprocessing.from_torchvision("convnext_xlarge")


def test_timm() -> None:
    assert Preprocessing.from_timm({}) == Preprocessing()
    preprocessing = Preprocessing.from_timm(
        {"input_size": [3, 384, 384], "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}
        | {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "test_input_size": None, "test_crop_pct": None}
    )
    assert preprocessing == Preprocessing(
        (384, 384), (384, 384), "squash", "bilinear", mean=INCEPTION_MEAN, std=INCEPTION_STD
    )
    assert Preprocessing.from_timm({"crop_mode": "border"}).resize == "longest"
    for wrong in ({"crop_mode": "spiral"}, {"interpolation": "magic"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Preprocessing.from_timm(wrong)


def test_open_clip() -> None:
    preprocessing = Preprocessing.from_open_clip(256)
    assert (preprocessing.size, preprocessing.resize_to, preprocessing.mean) == ((256, 256), (256, 256), CLIP_MEAN)
    preprocessing = Preprocessing.from_open_clip(
        [320, 320], {"interpolation": "bilinear", "resize_mode": "squash", "mean": [0.1] * 3}
    )
    assert (preprocessing.resize, preprocessing.interpolation, preprocessing.mean) == (
        "squash",
        "bilinear",
        (0.1, 0.1, 0.1),
    )


OLD: dict[str, Any] = {"feature_extractor_type": "ConvNextFeatureExtractor", "do_resize": True, "do_normalize": True}
NEW: dict[str, Any] = {"image_processor_type": "ConvNextImageProcessor", "do_rescale": True}


@pytest.mark.parametrize(
    ("file", "size", "edge", "resize", "interpolation", "mean"),
    [
        ({**OLD, "size": 224, "resample": 3, "crop_pct": 0.875}, 224, 256, "shortest", "bicubic", IMAGENET_MEAN),
        ({**OLD, "size": 224, "crop_pct": None, "image_mean": [0.1] * 3}, 224, 256, "shortest", "bicubic", (0.1,) * 3),
        ({**OLD}, 224, 256, "shortest", "bicubic", IMAGENET_MEAN),
        ({**OLD, "size": 384, "crop_pct": None}, 384, 384, "squash", "bicubic", IMAGENET_MEAN),
        (
            {**OLD, **NEW, "size": {"shortest_edge": 224}, "resample": 2},
            224,
            256,
            "shortest",
            "bilinear",
            INCEPTION_MEAN,
        ),
        ({**NEW, "size": {"shortest_edge": 288}, "crop_pct": 0.95}, 288, 303, "shortest", "bicubic", INCEPTION_MEAN),
        ({**NEW, "size": 224}, 224, 256, "shortest", "bicubic", INCEPTION_MEAN),
        ({**NEW}, 384, 384, "squash", "bicubic", INCEPTION_MEAN),
        ({**NEW, "size": {"height": 224, "width": 224}}, 224, 224, "squash", "bicubic", INCEPTION_MEAN),
        (
            {"image_processor_type": "ConvNextImageProcessorFast", "size": {"shortest_edge": 224}, "resample": 3},
            224,
            256,
            "shortest",
            "bicubic",
            INCEPTION_MEAN,
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}, "resample": 2},
            224,
            224,
            "squash",
            "bilinear",
            INCEPTION_MEAN,
        ),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 224}, 224, 224, "squash", "bicubic", IMAGENET_MEAN),
        (
            {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 256}, "do_center_crop": True}
            | {"crop_size": {"height": 224, "width": 224}, "image_mean": list(CLIP_MEAN)},
            *(224, 256, "shortest", "bicubic", CLIP_MEAN),
        ),
        ({"size": 224}, 224, 256, "shortest", "bicubic", IMAGENET_MEAN),
        ({}, 224, 256, "shortest", "bicubic", IMAGENET_MEAN),
    ],
)
def test_huggingface(file: dict[str, Any], size: int, edge: int, resize: str, interpolation: str, mean: Any) -> None:
    preprocessing = Preprocessing.from_huggingface(file)
    assert (preprocessing.size, preprocessing.resize_to) == ((size, size), (edge, edge))
    assert (preprocessing.resize, preprocessing.interpolation, preprocessing.mean) == (resize, interpolation, mean)
    assert preprocessing.crop_offset == "floor" and not preprocessing.float_resize


def test_huggingface_switches() -> None:
    assert Preprocessing.from_huggingface({"do_resize": False}).resize == "none"
    assert Preprocessing.from_huggingface({"do_rescale": False}).rescale == 1.0
    assert Preprocessing.from_huggingface({"rescale_factor": 0.5}).rescale == 0.5
    assert Preprocessing.from_huggingface({"do_normalize": False}).std == (1.0, 1.0, 1.0)
    assert Preprocessing.from_huggingface({}, image_size=288).size == (288, 288)
    assert Preprocessing.from_huggingface({"size": {"shortest_edge": 160}}, image_size=288).size == (160, 160)
    dino = Preprocessing.from_huggingface(
        {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 224, "width": 224}, "resample": 2}
    )
    assert dino.float_resize and dino.resize == "squash" and dino.mean == IMAGENET_MEAN
    assert Preprocessing.from_huggingface({"image_mean": 0, "image_std": 1}).mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [0, -3, 2.5, 100_000, True, "big", [], [224, None], {"longest": 3}, float("nan")])
def test_sizes_that_are_none(size: Any) -> None:
    for make in (
        lambda: Preprocessing(size=size),
        lambda: Preprocessing.from_huggingface({"size": size}),
        lambda: Preprocessing.from_huggingface({"size": {"shortest_edge": size}}),
        lambda: Preprocessing.from_huggingface({"size": {"height": 224, "width": size}}),
        lambda: Preprocessing.from_timm({"input_size": [3, size, 224]}),
        lambda: Preprocessing.from_open_clip(size),
    ):
        with pytest.raises(ValueError, match="size must be whole numbers of pixels from 1 to 4096"):
            make()


NO_NUMBERS = [None, "x", True, float("nan"), float("inf")]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("crop_pct", [0, -1, 1.5, *NO_NUMBERS[1:]]),
        ("rescale_factor", [0, -1, *NO_NUMBERS[1:]]),
        ("image_mean", [[0.5] * 2, [0.5, 0.5, None], [], *NO_NUMBERS[1:]]),
        ("image_std", [0, [0.2, 0.2, 0], [-0.1] * 3, [0.5] * 4, *NO_NUMBERS[1:]]),
        ("resample", [17, -1, "magic", True]),
        ("do_resize", [1, "yes"]),
        ("do_normalize", ["no"]),
    ],
)
def test_values_of_a_file_that_make_no_recipe_are_refused_by_name(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{field} must be"):
            Preprocessing.from_huggingface({field: value})


@pytest.mark.parametrize(
    "wrong",
    [
        *({"resize_to": value} for value in (0, (256, -1), 100_000, "x")),
        *({"rescale": value} for value in (0, *NO_NUMBERS)),
        *({"mean": value} for value in ((0.5,), *NO_NUMBERS)),
        *({"std": value} for value in (0, (1, 1, 0), *NO_NUMBERS)),
        *({name: "what"} for name in ("resize", "interpolation", "crop_offset", "fill", "float_resize")),
        *({name: (0, 0)} for name in ("test_size", "test_resize_to")),
    ],
    ids=str,
)
def test_a_recipe_checks_itself(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be"):
        Preprocessing(**wrong)


def test_numbers_and_arrays_stand_for_channels() -> None:
    assert Preprocessing(mean=0, std=1).mean == (0.0, 0.0, 0.0)  # type: ignore[arg-type]
    found = Preprocessing(mean=np.array([0.1, 0.2, 0.3]), std=np.float64(0.5))  # type: ignore[arg-type]
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert Preprocessing(size=192).size == (192, 192)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="crop_pct"):
        Preprocessing().at_size(224, crop_pct=0)


def test_a_grey_photo_is_normalised() -> None:
    found = apply_preprocessing(Preprocessing(), Image.new("RGB", (300, 200), (51, 102, 204)))
    assert found.shape == (3, 224, 224) and found.dtype == np.float32 and found.flags.c_contiguous
    wanted = (np.array([0.2, 0.4, 0.8]) - IMAGENET_MEAN) / IMAGENET_STD
    assert np.abs(found - wanted[:, None, None]).max() < 1e-6


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_only_rgb_is_taken(mode: str) -> None:
    with pytest.raises(ValueError, match=mode):
        apply_preprocessing(Preprocessing(), Image.new(mode, (3, 3)))


@pytest.mark.parametrize(("rule", "starts"), [("round", [0, 0, 1, 2, 2, 2, 3, 4]), ("floor", [0, 0, 1, 1, 2, 2, 3, 3])])
def test_crop_offsets(rule: Any, starts: list[int]) -> None:
    for excess, start in enumerate(starts):
        row = np.arange(8 + excess, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
        preprocessing = Preprocessing((8, 8), (8, 8), "shortest", crop_offset=rule, **PLAIN)  # type: ignore[arg-type]
        assert apply_preprocessing(preprocessing, Image.fromarray(row))[0, 0, 0] == start
        assert apply_preprocessing(preprocessing, Image.fromarray(row.transpose(1, 0, 2).copy()))[0, 0, 0] == start


@pytest.mark.parametrize(("rule", "before"), [("round", 1), ("floor", 2)])
def test_padding_is_black_and_the_odd_pixel_is_each_librarys(rule: Any, before: int) -> None:
    preprocessing = Preprocessing((8, 8), (5, 5), "shortest", crop_offset=rule, **PLAIN)  # type: ignore[arg-type]
    found = apply_preprocessing(preprocessing, Image.new("RGB", (5, 5), "white"))[0]
    assert found[before : before + 5, before : before + 5].min() == 255
    assert found.sum() == 25 * 255


def test_border_is_filled_with_the_mean() -> None:
    preprocessing = Preprocessing(resize="longest", resize_to=(224, 224))
    found = apply_preprocessing(preprocessing, Image.new("RGB", (200, 100), "white"))
    assert np.abs(found[:, :50]).max() < 0.01  # the mean is zero after normalising, but for the rounding to bytes
    assert found[:, 112].min() > 2
    black = apply_preprocessing(preprocessing.changed(fill="black"), Image.new("RGB", (200, 100), "white"))
    assert black[:, :50].max() < -1.7


def test_the_photo_is_left_as_it_is() -> None:
    photo = picture(37, 21)
    found = apply_preprocessing(Preprocessing(resize="none", **PLAIN), photo)  # type: ignore[arg-type]
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(photo))


def test_an_exact_photo_is_not_resized() -> None:
    photo = picture(224, 224)
    preprocessing = Preprocessing(resize_to=(224, 224), **PLAIN)  # type: ignore[arg-type]
    assert np.array_equal(apply_preprocessing(preprocessing, photo).transpose(1, 2, 0), np.asarray(photo))


def test_the_photo_itself_stays_untouched() -> None:
    photo = picture(300, 200)
    before = photo.tobytes()
    apply_preprocessing(Preprocessing(), photo)
    assert photo.tobytes() == before


@pytest.mark.parametrize("size", [(1, 65_000), (65_000, 1), (40_000, 2)])
@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_threads_cost_no_memory(size: tuple[int, int], resize: Any) -> None:
    assert apply_preprocessing(Preprocessing(resize=resize), Image.new("RGB", size)).shape == (3, 224, 224)


def test_what_the_crop_keeps_is_the_same_when_only_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for photo in (picture(900, 31), picture(480, 640), picture(640, 480)):
        whole = apply_preprocessing(Preprocessing(**PLAIN), photo)  # type: ignore[arg-type]
        monkeypatch.setattr("convnext_cli.photos.resize.WHOLE_BELOW", 0)
        part = apply_preprocessing(Preprocessing(**PLAIN), photo)  # type: ignore[arg-type]
        monkeypatch.undo()
        assert np.abs(whole - part).max() <= 1  # of 255 levels
