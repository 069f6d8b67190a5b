"""Maps in the report: those of ``convnext explain``, drawn when they are asked for."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convnext_cli import ExplainRequest, LabelRequest, PhotoSelection, PredictorOptions, explain, label
from convnext_cli.explanation.maps import Explanation, GuessMap
from convnext_cli.jobs.report.maps import MOST_PLACES, compact
from convnext_cli.predict.rows import Prediction, Row
from tests.helpers import browser as browsers
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two samples, with maps, and of a broken photo."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "photos").mkdir()
    for sample in SAMPLES[:2]:
        shutil.copy(sample, folder / "photos")
    (folder / "photos" / "broken.jpg").write_bytes(Path(SAMPLES[0]).read_bytes()[:3000])
    label(
        LabelRequest(
            photos=PhotoSelection(paths=(str(folder / "photos"),)),
            predictor=PredictorOptions.of(model="default", threads=1),
            output=folder / "labels.jsonl",
            report=folder / "report.html",
            explain=True,
        )
    )
    return folder / "report.html"


def maps_in(page: Path) -> dict[int, dict[str, Any]]:
    elements = re.findall(r'<script type="application/json" id="m(\d+)">(.*?)</script>', page.read_text())
    return {int(number): json.loads(text) for number, text in elements}


def values_of(maps: dict[str, Any], guess: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(maps["values"][guess]), np.int8).reshape(maps["size"]).astype(float)


def test_a_report_has_the_maps_of_explain(report: Path) -> None:
    maps = maps_in(report)
    assert sorted(maps) == [1, 2]  # the broken photo has none
    predictor = PredictorOptions.of(model="default", threads=1, k=3)
    photos = tuple(report.parent / "photos" / name for name in ("cat.jpg", "coffee.jpg"))
    for number, explanation in enumerate(explain(ExplainRequest(photos=photos, predictor=predictor)).explanations, 1):
        width, height = explanation.row.width, explanation.row.height
        assert maps[number]["box"] == pytest.approx(
            np.array(explanation.box) / (width, height, width, height), abs=1e-4
        )
        assert len(maps[number]["values"]) == 3
        for guess, one in enumerate(explanation.maps):
            drawn = values_of(maps[number], guess)
            assert drawn == pytest.approx(127 * one.evidence / explanation.scale, abs=0.6)
        assert max(np.abs(values_of(maps[number], guess)).max() for guess in range(3)) == 127


def test_large_maps_are_averaged() -> None:
    evidence = np.random.default_rng(0).standard_normal((3 * MOST_PLACES, 5))
    row = Row("a.jpg", "ok", 320, 900, (Prediction(1, 0, None, "a", 0.5),), "tiny", "")
    explanation = Explanation(
        row, (GuessMap(row.predictions[0], evidence, 0.0, 0.0),), (0, 0, 320, 900), (0, 0, 320, 896)
    )
    maps = compact(explanation)
    assert maps["size"] == [MOST_PLACES, 5]
    assert maps["box"] == pytest.approx([0, 0, 1, 896 / 900], abs=1e-4)
    averaged = evidence.reshape(MOST_PLACES, 3, 5).mean(1)
    assert values_of(maps, 0) == pytest.approx(127 * averaged / explanation.scale, abs=0.6)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--explain"], 2, "--explain is for --report"),
        (["--explain", "--report", "page.html", "-m", "model.xml"], 3, "is an exported file"),
    ],
)
def test_maps_that_cannot_be_made_are_refused(
    arguments: list[str], status: int, words: str, convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.xml").write_text("<net/>")
    done = convnext("label", SAMPLES[0], "-o", "rows.jsonl", *arguments)
    assert done.status == status, done.err
    assert words in done.err
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.fixture(scope="module")
def page(report: Path) -> Iterator[browsers.Page]:
    program = browsers.found()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(browsers.NAMES)} is installed")
    with browsers.running(program) as running:
        yield running.open(report)


PIXELS = """(async () => {
  const image = document.querySelector("#view-picture img");
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  return [canvas.width, canvas.height, ...pen.getImageData(0, 0, canvas.width, canvas.height).data];
})()"""


def pixels(page: browsers.Page) -> np.ndarray:
    width, height, *values = page.run(PIXELS)
    return np.array(values).reshape(height, width, 4)[..., :3]


def test_a_map_is_drawn_when_it_is_asked_for(page: browsers.Page, report: Path) -> None:
    place = page.run("found.shown.findIndex((photo) => photo.name === 'coffee.jpg')")
    page.run(f"open({place})")
    photo = pixels(page)
    buttons = "[...document.querySelectorAll('button.map')]"
    assert page.run(f"{buttons}.map((button) => button.getAttribute('aria-pressed'))") == ["false"] * 3
    page.run(f"{buttons}[0].click()")
    page.wait("document.querySelector('#view-picture img').src.startsWith('data:image/png')")
    assert page.run(f"{buttons}.map((button) => button.getAttribute('aria-pressed'))") == ["true", "false", "false"]
    assert page.run("document.getElementById('view-map').hidden") is False
    drawn = pixels(page)
    assert drawn.shape == photo.shape
    maps = maps_in(report)[2]
    left, _, right, _ = np.array(maps["box"]) * drawn.shape[1]
    warmth = drawn[..., 0] - drawn[..., 2]  # of grey 14
    assert np.abs(warmth[:, : int(left) - 1] - 14).max() <= 2
    assert np.abs(warmth[:, int(right) + 2 :] - 14).max() <= 2
    # orange where the map is strongest
    rows, columns = maps["size"]
    row, column = np.unravel_index(values_of(maps, 0).argmax(), (rows, columns))
    y, x = int((row + 0.5) / rows * drawn.shape[0]), int(left + (column + 0.5) / columns * (right - left))
    assert warmth[y, x] > 150
    page.run(f"{buttons}[0].click()")
    assert np.array_equal(pixels(page), photo)
    assert page.run("document.getElementById('view-map').hidden") is True
    assert page.problems == []


def test_photos_without_maps_have_no_buttons(page: browsers.Page) -> None:
    place = page.run("found.shown.findIndex((photo) => photo.name === 'broken.jpg')")
    page.run(f"open({place})")
    assert page.run("document.querySelectorAll('button.map').length") == 0
