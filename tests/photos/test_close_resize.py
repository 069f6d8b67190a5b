"""``--pixels close`` and ``fast``: the kernel that resizes quickly, and where it is used."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convnext_cli import classify
from convnext_cli.base.errors import UsageError
from convnext_cli.base.threads import Budget
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos import decoder_threads
from convnext_cli.photos.close_resize import closely_resized_part
from convnext_cli.photos.decode import decode
from convnext_cli.photos.photo import Photo, PixelLevel
from convnext_cli.photos.resampling import resized_part
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.photos.turning import Turn
from convnext_cli.predict import preprocess
from convnext_cli.predict.preprocess import FEW, Preprocessor


def waves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture with edges and fine detail, the same on every machine."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 120 * np.sin(0.05 * (c + 1) * x + 0.11 * y) * np.cos(0.7 * x - 0.02 * c * y) for c in range(3)]
    return Image.fromarray(np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)).convert(mode)


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    waves(width, height).save(file, "JPEG", quality=90)
    return file.getvalue()


@given(
    size=st.tuples(st.integers(8, 700), st.integers(8, 700)),
    to=st.tuples(st.integers(4, 120), st.integers(4, 120)),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    orientation=st.integers(1, 8),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_it_differs_by_little_from_the_exact_resize(
    size: tuple[int, int],
    to: tuple[int, int],
    corners: tuple[float, float, float, float],
    orientation: int,
    interpolation: str,
    mode: str,
) -> None:
    left, top = int(corners[0] * (to[0] - 1)), int(corners[1] * (to[1] - 1))
    part = (left, top, left + 1 + int(corners[2] * (to[0] - left - 1)), top + 1 + int(corners[3] * (to[1] - top - 1)))
    arguments = waves(*size, mode), Turn(orientation), to, interpolation, part
    close, exact = (np.asarray(resize(*arguments)).astype(int) for resize in (closely_resized_part, resized_part))
    assert close.shape == exact.shape
    assert np.abs(close - exact).max() <= 3


@pytest.mark.parametrize("orientation", [1, 6])
def test_of_a_large_photo_few_values_differ(orientation: int) -> None:
    arguments = waves(1200, 900), Turn(orientation), (101, 76), "bicubic", (10, 4, 90, 70)
    close, exact = (np.asarray(resize(*arguments)).astype(int) for resize in (closely_resized_part, resized_part))
    assert np.abs(close - exact).max() <= 1
    assert 0 < (close != exact).mean() < 0.02


def test_strips_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = waves(900, 640), Turn(6), (60, 90), "bicubic", (3, 20, 55, 70)
    whole = np.asarray(closely_resized_part(*arguments))
    monkeypatch.setattr("convnext_cli.photos.close_resize._STRIP", 5000)
    assert np.array_equal(np.asarray(closely_resized_part(*arguments)), whole)


PREPROCESSING = Preprocessing(size=(64, 64), resize_to=(72, 72))


@pytest.mark.parametrize("level", ["close", "fast"])
def test_torch_resizes_from_a_number_of_photos_on(level: PixelLevel, monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(480, 360)
    preprocessor = Preprocessor(preprocessing=PREPROCESSING, workers=2, pixels=level, kernel_from=3)
    photos = [Photo(f"{number}.jpg", data) for number in range(6)]
    tensors = [ready.tensor for ready in preprocessor.prepared(iter(photos), Budget(2), 4)]
    decoded = decode(data, enough=PREPROCESSING.enough if level == "fast" else None)
    few = apply_preprocessing(PREPROCESSING, decoded, method="exact" if level == "close" else "rough")
    many = apply_preprocessing(PREPROCESSING, decoded, method="close")
    assert not np.array_equal(few, many)
    for number, tensor in enumerate(tensors):
        assert tensor is not None and np.array_equal(tensor, few if number < 3 else many)


def test_one_photo_never_loads_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(preprocess, "load_kernel", load)
    (close,) = classify(jpeg(300, 200), pixels="close", threads=1)
    (exact,) = classify(jpeg(300, 200), threads=1)
    assert close.predictions == exact.predictions
    preprocessor = Preprocessor(preprocessing=PREPROCESSING, workers=1, pixels="close")
    few = [Photo("a.jpg", jpeg(20, 20))] * (FEW - 1)
    assert all(ready.tensor is not None for ready in preprocessor.prepared(iter(few), Budget(1), 4))


@pytest.mark.parametrize(
    ("changes", "keyword"),
    [({"interpolation": "lanczos"}, "lanczos"), ({"float_resize": True}, "floats"), ({"resize": "none"}, "own size")],
)
def test_close_is_refused_where_the_kernel_cannot_resize(changes: dict[str, Any], keyword: str) -> None:
    other = replace(PREPROCESSING, **changes)
    with pytest.raises(UsageError, match=keyword):
        classify(jpeg(20, 20), preprocessing=other, pixels="close")


def heic(width: int, height: int, preview: int | None = None) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(waves(width, height)).save(file, quality=80, thumbnails=[preview] if preview else [])
    return file.getvalue()


def test_fast_takes_the_preview_of_a_heic_photo_that_is_large_enough() -> None:
    data = heic(640, 480, preview=200)
    whole, exact, preview = decode(data, enough=300), decode(data), decode(data, enough=120)
    assert whole.pixels.size == exact.pixels.size == (640, 480)
    assert preview.pixels.size == (200, 150) and (preview.width, preview.height) == (640, 480)
    assert decode(heic(640, 480), enough=120).pixels.size == (640, 480)


@pytest.mark.parametrize("name", ["heic", "avif"])
def test_decoders_share_the_threads(name: str) -> None:
    def taken() -> int:
        if name == "heic":
            return int(pytest.importorskip("pillow_heif").options.DECODE_THREADS)
        from PIL import AvifImagePlugin

        return AvifImagePlugin.DEFAULT_MAX_THREADS

    with decoder_threads.shared_threads(name, 4):
        assert taken() == 4
        with decoder_threads.shared_threads(name, 4):
            assert taken() == 2
        with decoder_threads.shared_threads(name, 1):
            assert taken() == 1
