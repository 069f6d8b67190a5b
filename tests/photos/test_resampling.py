"""A resize pass by pass, of only the part that a crop keeps, gives the bits of turning and resizing the whole photo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from convnext_cli.model.preprocessing import INTERPOLATIONS, Preprocessing
from convnext_cli.photos import resampling
from convnext_cli.photos.filter_weights import Axis, gives_same_bits
from convnext_cli.photos.photo import Decoded
from convnext_cli.photos.resampling import resized_box, resized_part
from convnext_cli.photos.resize import apply_preprocessing, resized_size
from convnext_cli.photos.turning import UPRIGHT, Turn
from tests.helpers.photos import picture

TURNS = {
    1: (),
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_270,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}
Sizes = tuple[int, int]


def upright(image: Image.Image, orientation: int) -> Image.Image:
    for method in TURNS[orientation]:
        image = image.transpose(method)
    return image


def plainly_prepared(preprocessing: Preprocessing, image: Image.Image) -> np.ndarray[Any, Any]:
    """The tensor of an upright RGB image: the whole is resized, then cropped or padded, then normalised."""
    to_height, to_width = resized_size(preprocessing, image.height, image.width)
    if preprocessing.float_resize:
        import torch
        from torch.nn.functional import interpolate

        floats = np.asarray(image).astype(np.float32) * np.float32(preprocessing.rescale)
        if (to_height, to_width) != floats.shape[:2]:
            planes = torch.from_numpy(floats.transpose(2, 0, 1).copy())[None]
            smooth = preprocessing.interpolation != "nearest"
            mode = preprocessing.interpolation if smooth else "nearest-exact"
            floats = interpolate(planes, (to_height, to_width), mode=mode, antialias=smooth)[0].numpy()
            floats = floats.transpose(1, 2, 0)
        pixels = floats
    else:
        if (to_width, to_height) != image.size:
            image = image.resize((to_width, to_height), Image.Resampling[preprocessing.interpolation.upper()])
        pixels = np.asarray(image)
    height, width = preprocessing.size
    result = np.zeros((height, width, 3), pixels.dtype)
    if preprocessing.resize == "longest" and preprocessing.fill == "mean":
        result[:] = [round(255 * mean) for mean in preprocessing.mean]
    spans = []
    for have, want in ((pixels.shape[0], height), (pixels.shape[1], width)):
        excess = have - want
        halves = (
            (excess // 2, -(excess // 2)) if preprocessing.crop_offset == "floor" else (round(excess / 2), -excess // 2)
        )
        start, place = (halves[0], 0) if excess >= 0 else (0, halves[1])
        spans.append((start, place, min(have, want)))
    (top, down, rows), (left, across, columns) = spans
    result[down : down + rows, across : across + columns] = pixels[top : top + rows, left : left + columns]
    rescale = 1.0 if preprocessing.float_resize else preprocessing.rescale
    std, mean = np.array(preprocessing.std), np.array(preprocessing.mean)
    planes = result.transpose(2, 0, 1) * (rescale / std).astype(np.float32)[:, None, None]
    return planes.astype(np.float32) - (mean / std).astype(np.float32)[:, None, None]


@st.composite
def spans(draw: st.DrawFn, edge: int) -> tuple[int, int]:
    low = draw(st.integers(0, edge - 1))
    return low, draw(st.integers(low + 1, edge))


# edges of which some are exact fractions of each other, and some are not
EDGES = st.one_of(st.integers(1, 260), st.sampled_from([64, 96, 128, 150, 192, 256]))
LIGHT = settings(max_examples=150, deadline=None)


@LIGHT
@given(EDGES, EDGES, EDGES, EDGES, st.sampled_from(list(TURNS)), st.sampled_from(INTERPOLATIONS), st.data())
def test_a_part_has_the_bits_of_the_whole(
    width: int, height: int, to_width: int, to_height: int, orientation: int, interpolation: str, data: st.DataObject
) -> None:
    (left, right), (top, bottom) = data.draw(spans(to_width)), data.draw(spans(to_height))
    image = picture(width, height, data.draw(st.sampled_from(["RGB", "L"])))
    turned = upright(image, orientation)
    expected = turned.resize((to_width, to_height), Image.Resampling[interpolation.upper()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "WHOLE_UP_TO", 0)
        patch.setattr(resampling, "BAND_PIXELS", data.draw(st.sampled_from([1, 3000, 10**6])))
        part = (left, top, right, bottom)
        result = resized_part(image, Turn(orientation), (to_width, to_height), interpolation, part)
    assert result.mode == image.mode and result.size == (right - left, bottom - top)
    assert result.tobytes() == expected.crop(part).tobytes()


@settings(LIGHT, max_examples=60)
@given(EDGES, EDGES, EDGES, EDGES, st.sampled_from(list(TURNS)), st.sampled_from(INTERPOLATIONS), st.data())
def test_a_box_has_the_bits_of_pillows_box(
    width: int, height: int, to_width: int, to_height: int, orientation: int, interpolation: str, data: st.DataObject
) -> None:
    image = picture(width, height)
    turned = upright(image, orientation)
    shares = sorted(data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True)))
    box = (turned.width * shares[0], turned.height * shares[0], turned.width * shares[1], turned.height * shares[1])
    assume(box[2] - box[0] > 0.1 and box[3] - box[1] > 0.1)
    expected = turned.resize((to_width, to_height), Image.Resampling[interpolation.upper()], box)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "WHOLE_UP_TO", 0)
        result = resized_box(image, Turn(orientation), (to_width, to_height), interpolation, box)
    assert result.tobytes() == expected.tobytes()


@st.composite
def preprocessings(draw: st.DrawFn) -> Preprocessing:
    edge = st.integers(4, 90)
    sizes = st.one_of(edge.map(lambda side: (side, side)), st.tuples(edge, edge))
    is_float = draw(st.integers(0, 4)) == 0
    filters = ("nearest", "bilinear", "bicubic") if is_float else INTERPOLATIONS
    return Preprocessing(
        size=draw(sizes),
        resize_to=draw(sizes),
        resize=draw(st.sampled_from(["shortest", "squash", "longest"])),
        interpolation=draw(st.sampled_from(filters)),
        crop_offset=draw(st.sampled_from(["round", "floor"])),
        fill=draw(st.sampled_from(["mean", "black"])),
        float_resize=is_float,
    )


@LIGHT
@given(preprocessings(), st.tuples(EDGES, EDGES), st.sampled_from(list(TURNS)), st.booleans())
@example(Preprocessing(), (640, 480), 6, False)
@example(Preprocessing(), (480, 640), 8, False)
@example(Preprocessing(resize="squash"), (640, 480), 7, False)
@example(Preprocessing(resize_to=(235, 235)), (300, 900), 5, True)
def test_a_tensor_is_that_of_the_photo_turned_and_resized_whole(
    preprocessing: Preprocessing, size: Sizes, orientation: int, is_grey: bool
) -> None:
    image = picture(*size, "L" if is_grey else "RGB")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "WHOLE_UP_TO", 0)
        patch.setattr(resampling, "BAND_PIXELS", 5000)
        turn = Turn(orientation)
        photo = Decoded(image, *turn.upright_size(image.size), "png", turn)
        tensor = apply_preprocessing(preprocessing, photo)
    expected = plainly_prepared(preprocessing, upright(image, orientation).convert("RGB"))
    assert tensor.dtype == expected.dtype and np.array_equal(tensor, expected)


@pytest.mark.parametrize("orientation", TURNS)
def test_boxes_and_views_of_the_stored_pixels(orientation: int) -> None:
    image, turn = picture(7, 5), Turn(orientation)
    expected = upright(image, orientation)
    assert turn.upright(image).tobytes() == expected.tobytes() and turn.upright_size(image.size) == expected.size
    assert np.array_equal(turn.upright_view(np.asarray(image)), np.asarray(expected))
    box = (1, 2, 4, 3)
    assert turn.upright(image.crop(turn.stored_box(box, image.size))).tobytes() == expected.crop(box).tobytes()


def test_the_order_of_this_pillows_passes_is_known() -> None:
    assert resampling._order() is not None


def test_without_a_known_order_photos_are_resized_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(300, 200)
    monkeypatch.setattr(resampling, "WHOLE_UP_TO", 0)
    monkeypatch.setattr(resampling, "_order", lambda: None)
    part = resized_part(image, Turn(6), (40, 60), "bicubic", (3, 2, 30, 50))
    assert part.tobytes() == upright(image, 6).resize((40, 60)).crop((3, 2, 30, 50)).tobytes()


@pytest.mark.parametrize(
    ("source", "target", "low", "high", "made"),
    [
        (3000, 256, 16, 240, 224),  # the scale is a fraction that float32 holds
        (3024, 256, 16, 240, 224),
        (6000, 384, 80, 304, 224),
        (6000, 352, 64, 288, 242),  # steps of 11
        (4000, 341, 58, 282, 341),  # no part has the same weights
        (224, 224, 10, 20, 224),
    ],
)
def test_the_least_that_has_the_same_weights_is_made(source: int, target: int, low: int, high: int, made: int) -> None:
    for mirrored in (False, True):
        least = resampling._exact_pass(Axis.whole(source, target), low, high, "bicubic", mirrored=mirrored)
        assert least is not None and least.axis.target == made and least.count == high - low


def test_weights_that_differ_are_noticed() -> None:
    """Pillow rounds the ends of a box to float32, and a box of one pixel on each side is not symmetric."""
    whole, part = Axis.whole(4000, 341), Axis(4000, 224, 58 * 4000 / 341, 282 * 4000 / 341)
    assert not gives_same_bits(whole, 58, 282, part, 0, "bicubic", False)
    assert gives_same_bits(whole, 58, 282, whole, 58, "bicubic", False)
    assert resampling._exact_pass(Axis.whole(3, 2), 0, 2, "box", mirrored=True) is None
    assert resampling._exact_pass(Axis.whole(3, 2), 0, 2, "box") is not None


@pytest.mark.parametrize("orientation", TURNS)
def test_no_large_photo_is_turned_whole(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(image: Image.Image, method: Image.Transpose) -> Image.Image:
        pixels.append(image.width * image.height)
        return transpose(image, method)

    pixels: list[int] = []
    transpose = Image.Image.transpose
    monkeypatch.setattr(Image.Image, "transpose", turned)
    image, turn = Image.new("RGB", (1500, 1000)), Turn(orientation)
    apply_preprocessing(Preprocessing(), Decoded(image, *turn.upright_size(image.size), "png", turn))
    assert max(pixels, default=0) < 500_000
    assert bool(pixels) == (turn != UPRIGHT)
