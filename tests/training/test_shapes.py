"""How oblong photos become squares: nothing of them is cropped away where much would be."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext_cli import checkpoints
from convnext_cli.datasets import open_data
from convnext_cli.model.card import Card
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.photo import Decoded
from convnext_cli.training import aspect_ratios
from convnext_cli.training.photo_cache import Judged, Shrunk
from tests.helpers.command import Run
from tests.helpers.photos import encoded
from tests.helpers.training import COLOURS, EVALUATE, ONE_STEP, SCRATCH, TRAIN, facts, place, sets, write_labelled
from tests.helpers.weights import SMALL


def at_an_end(name: str, seed: int, width: int, height: int) -> bytes:
    """A grey photo with noise, and a bar of the colour at its left or right end."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(128, 12, (height, width, 3))
    left = rng.integers(0, 3) if seed % 2 else width - 12 - rng.integers(0, 3)
    pixels[:, left : left + 12] = COLOURS[name]
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


def oblong(folder: Path, *, width: int, height: int = 36) -> Path:
    for split, each, first in (("train", 16, 0), ("val", 8, 100), ("test", 8, 200)):
        for name in COLOURS:
            (folder / split / name).mkdir(parents=True)
            for number in range(each):
                seed = first + number + 1000 * list(COLOURS).index(name)
                (folder / split / name / f"{seed}.png").write_bytes(at_an_end(name, seed, width, height))
    return folder


class TestObjectAtTheEdge:
    def run(self, convnext: Run, data: Path, target: Path, model: Path, *more: object) -> tuple[float, str]:
        done = convnext(*TRAIN, data, "-o", target, "--from", model, "--freeze", *more)
        assert done.status == 0, done.err
        return facts(target)["results"]["test"]["top1"], done.err

    @pytest.mark.parametrize(("width", "chosen"), [(64, "squash"), (108, "longest")])
    def test_a_crop_loses_it_and_the_choice_does_not(
        self, convnext: Run, tmp_path: Path, width: int, chosen: str, undrawn: None
    ) -> None:
        data = oblong(tmp_path / "data", width=width)
        model = write_labelled(tmp_path / "model.safetensors", ("a", "b"), size=64)
        cropped, _ = self.run(convnext, data, tmp_path / "cropped", model, "--resize-mode", "shortest")
        whole, said = self.run(convnext, data, tmp_path / "whole", model)
        assert whole > 0.65 and cropped < 0.45, (cropped, whole)  # one in four is chance
        assert f"half of the photos are {width / 36:.2f} times as long as wide or more" in said
        assert f"--resize-mode {chosen}" in said
        card = checkpoints.read_card(tmp_path / "whole")
        assert card.preprocessing.resize == chosen and card.preprocessing.crop_pct == 1.0
        assert tomllib.loads((tmp_path / "whole" / "recipe.toml").read_text())["resize"] == chosen
        # and the same preprocessing is everybody's
        found = json.loads(convnext(*EVALUATE, data, "-m", tmp_path / "whole", "--split", "test", "--json").out)
        assert found["top1"]["right"] == round(whole * 32) and found["recipe"]["resize"] == chosen

    def test_all_of_training_sees_it(self, convnext: Run, tmp_path: Path, undrawn: None) -> None:
        data = oblong(tmp_path / "data", width=108)
        more = ("--epochs", "14", "-b", "16", "--lr", "0.004", *sets("optimiser=adamw", "ema=0.9", "search_size=false"))
        mild = sets("augment=none", "scale=0.9")
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", *SCRATCH, *more, *mild)
        assert done.status == 0 and facts(tmp_path / "run")["results"]["test"]["top1"] > 0.6, done.out

    def test_it_goes_on_as_it_began(self, convnext: Run, tmp_path: Path, model: Path, undrawn: None) -> None:
        data = oblong(tmp_path / "data", width=108)
        given = (*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert convnext(*given).status == 0
        assert convnext(*given).status == 0
        assert convnext(*given, "--resize-mode", "longest").status == 0
        done = convnext(*given, "--resize-mode", "squash")
        assert done.status == 2 and "holds a run with resize = longest, not squash" in done.err


class TestChoice:
    @pytest.mark.parametrize(
        ("ratios", "resize"),
        [
            ([], "shortest"),
            ([1.0] * 5, "shortest"),
            ([4 / 3] * 5, "shortest"),
            ([1.5] * 5, "squash"),
            ([16 / 9] * 5, "squash"),
            ([3.0] * 5, "longest"),
            ([1.0] * 6 + [9.0] * 5, "shortest"),
        ],
    )
    def test_by_the_typical_photo(self, ratios: list[float], resize: str) -> None:
        found = aspect_ratios.by_ratios(ratios)
        assert found.resize == resize and bool(found.reason) == (resize != "shortest")

    def test_upright_and_lying_photos_count_alike(self, tmp_path: Path) -> None:
        for number, size in enumerate([(30, 60), (60, 30), (40, 40)]):
            (tmp_path / "a").mkdir(exist_ok=True)
            Image.new("RGB", size).save(tmp_path / "a" / f"{number}.png")
        (tmp_path / "a" / "broken.png").write_bytes(b"no photo")
        data = open_data(str(tmp_path))
        assert sorted(aspect_ratios.ratios(data, data.photos)) == [1.0, 2.0, 2.0]

    def test_weights_keep_a_way_that_loses_nothing(self, tmp_path: Path) -> None:
        data = open_data(str(place(tmp_path / "square", 2)))
        squashing = Card(SMALL, Preprocessing(size=(64, 64), resize_to=(64, 64), resize="squash"))
        assert aspect_ratios.suggest(data, data.photos, squashing) == aspect_ratios.Fitting("squash")
        assert aspect_ratios.suggest(data, data.photos, Card(SMALL)) == aspect_ratios.Fitting("shortest")

    def test_square_photos_say_nothing(self, convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, "--freeze")
        assert done.status == 0 and "resize-mode" not in done.err
        assert checkpoints.read_card(tmp_path / "run").preprocessing.resize == "shortest"


class TestShrunk:
    """What random crops are made of is what the model is judged on, but larger."""

    @pytest.mark.parametrize("square", [False, True])
    @pytest.mark.parametrize("size", [(90, 30), (30, 90), (200, 100), (9, 300)])
    @pytest.mark.parametrize("resize", ["squash", "longest"])
    def test_the_whole_photo(self, resize: Any, size: tuple[int, int], square: bool) -> None:
        ramp = np.zeros((size[1], size[0], 3), np.uint8)
        ramp[..., 0] = np.linspace(0, 255, size[0])[None, :]
        ramp[..., 1] = np.linspace(0, 255, size[1])[:, None]
        image = Image.fromarray(ramp)
        preprocessing = Preprocessing(size=(64, 64), resize_to=(64, 64), resize=resize, mean=(0.25, 0.5, 0.75))
        kept = Shrunk(64, square=square, preprocessing=preprocessing)(Decoded.upright(image))
        assert kept.shape[0] == kept.shape[1] <= (64 if square else round(1.15 * 64)) and kept.dtype == np.uint8
        again = np.asarray(Image.fromarray(kept).resize((64, 64), Image.Resampling.BICUBIC)).astype(float)
        wanted = Judged(preprocessing)(Decoded.upright(image)).astype(float)
        assert np.abs(again - wanted).mean() < 12
        if resize == "longest" and max(size) > 2 * min(size):
            assert kept[0, 0].tolist() == kept[-1, -1].tolist() == [64, 128, 191]
