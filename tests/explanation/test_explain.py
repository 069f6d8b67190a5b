"""``convnext explain`` as its users meet it: maps where the network saw them, files with safe names, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from convnext_cli import ExplainRequest, PhotoSelection, PredictorOptions, classify, explain, open_explanations
from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.checkpoints import canonical
from convnext_cli.cli import render
from convnext_cli.explanation import picture
from convnext_cli.explanation.fonts import font_for
from convnext_cli.explanation.maps import Explanation
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES
from tests.helpers.photos import exif_orientation
from tests.helpers.rows import rows_of
from tests.helpers.weights import SMALL, write_model

CAT, COFFEE, ROCKET = SAMPLES
COLOURS = ("red", "green", "blue")
PLAIN = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}


def write_colours(path: Path, preprocessing: Preprocessing, *, patch: int = 8) -> Path:
    """A network whose feature map is the mean colour of each patch, and whose logits are the mean of that."""
    config = ConvNextConfig(
        depths=(1,), hidden_sizes=(3,), patch_size=patch, stem_norm=False, head_norm="none", num_labels=3
    )
    tensors = {name: torch.zeros(shape) for name, shape in config.shapes().items()}  # the block adds nothing
    for colour in range(3):
        tensors["stem.weight"][colour, colour] = 1 / patch**2
    tensors["head.weight"] = torch.eye(3)
    card = Card(config, preprocessing, path.stem, labels=LabelSet.from_names("colours", COLOURS))
    canonical.write(path, tensors, card.replace(sha256=canonical.fingerprint(tensors)))
    return path


def save_photo(path: Path, size: tuple[int, int], square: tuple[int, int, int, int], *, orientation: int = 1) -> Path:
    """A blue photo with a red square, upright in the given place."""
    image = Image.new("RGB", size, (0, 0, 255))
    ImageDraw.Draw(image).rectangle(square, (255, 0, 0))
    if orientation == 6:  # stored turned to the left
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.save(path, exif=exif_orientation(orientation))
    return path


def explain_one(model: Path, photo: Path | str, **options: object) -> Explanation:
    predictor = PredictorOptions.of(model=model, threads=1, k=3, device="cpu", **options)
    (explanation,) = explain(ExplainRequest(photos=(photo,), predictor=predictor)).explanations
    assert explanation.row.error is None
    return explanation


# Where the map is drawn -----------------------------------------------------------------------------------------------

MODES = {
    "shortest": Preprocessing(size=(64, 64), resize_to=(72, 72), **PLAIN),
    "larger than the photo": Preprocessing(size=(96, 96), resize_to=(64, 64), **PLAIN),
    "squash": Preprocessing(size=(64, 64), resize_to=(64, 64), resize="squash", **PLAIN),
    "squash and crop": Preprocessing(size=(64, 48), resize_to=(80, 80), resize="squash", **PLAIN),
    "longest": Preprocessing(size=(64, 64), resize_to=(64, 64), resize="longest", **PLAIN),
    "none": Preprocessing(resize="none", **PLAIN),
    "a size that patches do not divide": Preprocessing(size=(67, 71), resize_to=(80, 80), **PLAIN),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(200, 120), (120, 200)], ids=["landscape", "portrait"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_map_is_drawn_where_the_network_saw_the_photo(
    mode: str, size: tuple[int, int], orientation: int, tmp_path: Path
) -> None:
    model = write_colours(tmp_path / "colours.safetensors", MODES[mode])
    square = (80, 30, 139, 89) if size[0] > size[1] else (30, 80, 89, 139)
    photo = save_photo(tmp_path / "photo.png", size, square, orientation=orientation)
    explanation = explain_one(model, photo)
    assert (explanation.row.width, explanation.row.height) == size
    red = next(one for one in explanation.maps if one.prediction.label == "red")
    values = picture.values_on(size, explanation, red)
    assert values.shape == size[::-1]
    y, x = np.mgrid[0 : size[1], 0 : size[0]] + 0.5
    left, top, right, bottom = explanation.box
    assert np.array_equal(values == 0, (x < left) | (x > right) | (y < top) | (y > bottom))
    # within a patch of the square's edge it is between the two
    margin = max((right - left) / red.evidence.shape[1], (bottom - top) / red.evidence.shape[0])
    depth = np.minimum.reduce([x - square[0], square[2] + 1 - x, y - square[1], square[3] + 1 - y])
    inside, outside = values[depth > margin], values[(depth < -margin) & (values != 0)]
    assert inside.size and outside.size
    assert inside.min() > 0.1 * explanation.scale > outside.max()


@pytest.mark.parametrize("mode", MODES)
def test_the_evidence_of_a_network_of_colours_is_the_colour_of_each_patch(mode: str, tmp_path: Path) -> None:
    from convnext_cli.photos.resize import apply_preprocessing

    model = write_colours(tmp_path / "colours.safetensors", MODES[mode])
    tensor = apply_preprocessing(MODES[mode], Image.open(COFFEE).convert("RGB"))
    rows, columns = (edge // 8 for edge in tensor.shape[1:])
    patches = tensor[:, : 8 * rows, : 8 * columns].reshape(3, rows, 8, columns, 8).mean((2, 4), dtype=np.float64)
    expected = (patches - patches.mean(0)) / (rows * columns)
    for one in explain_one(model, COFFEE).maps:
        assert one.evidence == pytest.approx(expected[one.prediction.index], abs=1e-6 * np.ptp(expected))
        assert one.logit == pytest.approx(patches[one.prediction.index].mean(), abs=1e-6)


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (1, 1), (3, 2)])
def test_threads_and_pixels_are_explained(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, (250, 20, 20)).save(tmp_path / "thin.png")
    model = write_colours(tmp_path / "colours.safetensors", MODES["shortest"])
    request = ExplainRequest(
        photos=(tmp_path / "thin.png",), predictor=PredictorOptions.of(model=model, k=1), output=tmp_path / "maps"
    )
    (explanation,) = explain(request).explanations
    assert explanation.maps[0].prediction.label == "red"
    assert Image.open(tmp_path / "maps" / "thin-1.png").width > 0


def test_the_frame_is_the_crop(tmp_path: Path) -> None:
    model = write_colours(tmp_path / "colours.safetensors", MODES["shortest"])
    photo = save_photo(tmp_path / "photo.png", (320, 180), (0, 0, 319, 179))
    explanation = explain_one(model, photo)
    side = 180 * 64 / 72
    assert explanation.crop == pytest.approx((160 - side / 2, 90 - side / 2, 160 + side / 2, 90 + side / 2))
    image = Image.open(photo).convert("RGB")
    picture.draw_frame(image, explanation)
    white = np.argwhere((np.asarray(image) == 255).all(-1))
    assert white.min(0).tolist() == [10, 80]
    assert white.max(0).tolist() == [169, 239]


# Answers --------------------------------------------------------------------------------------------------------------


def test_guesses_are_those_of_classify() -> None:
    explanation = explain_one(Path("default"), CAT)
    (row,) = classify(CAT, model="default", engine="torch", device="cpu", k=3, threads=1)
    assert [one.prediction.label for one in explanation.maps] == [guess.label for guess in row.predictions]
    assert [one.prediction.score for one in explanation.maps] == pytest.approx(
        [guess.score for guess in row.predictions], abs=1e-5
    )


def pasted(left: str, right: str) -> Image.Image:
    """Two photos side by side in a square, the middle of each."""
    image = Image.new("RGB", (480, 480))
    for place, name in enumerate((left, right)):
        photo = Image.open(name).convert("RGB")
        photo = photo.resize((round(photo.width * 480 / photo.height), 480))
        middle = (photo.width - 240) // 2
        image.paste(photo.crop((middle, 0, middle + 240, 480)), (240 * place, 0))
    return image


def test_each_class_has_its_half_of_two_pasted_photos(tmp_path: Path) -> None:
    """Each half alone decides which class is its own; whatever the bundled model calls it."""
    shares = []
    for names in ((COFFEE, ROCKET), (ROCKET, COFFEE)):
        pasted(*names).save(tmp_path / "pasted.png")
        labels = [classify(name, model="default", k=1, threads=1)[0].predictions[0].label for name in names]
        explanation = explain_one(Path("default"), tmp_path / "pasted.png", classes=",".join(labels))
        by_label = {one.prediction.label: one for one in explanation.maps}
        for place, label in enumerate(labels):
            values = picture.values_on((480, 480), explanation, by_label[label]).clip(min=0)
            shares.append(values[:, 240 * place : 240 * (place + 1)].sum() / values.sum())
    assert min(shares) > 0.6, shares
    assert np.mean(shares) >= 0.8, shares


def test_a_hidden_layer_is_said_to_be_a_linearisation(convnext: Run, tmp_path: Path) -> None:
    model = write_model(tmp_path / "deep.safetensors", SMALL.replace(head_hidden_size=9))
    explanation = explain_one(model, CAT)
    assert explanation.linearised
    (logits,) = classify(CAT, model=model, engine="torch", device="cpu", k=0, threads=1, scores="logits")
    by_index = {guess.index: guess.score for guess in logits.predictions}
    for one in explanation.maps:
        assert one.logit == pytest.approx(by_index[one.prediction.index], abs=1e-5)
    done = convnext("explain", CAT, "-m", model, "-k", "1", "-o", tmp_path / "maps")
    assert "linearisations around each photo" in done.err
    exact = convnext("explain", CAT, "-m", "default", "-k", "1", "-o", tmp_path / "more")
    assert "linearisation" not in exact.err


def test_a_model_of_independent_labels_is_not_compared(tmp_path: Path) -> None:
    tensors = write_model(tmp_path / "one.safetensors", SMALL)
    from convnext_cli import checkpoints

    checkpoint = checkpoints.load(tensors)
    checkpoint.card = checkpoint.card.replace(problem="multi_label")
    checkpoints.save(checkpoint, tmp_path / "several.safetensors")
    for name, compared in (("one", True), ("several", False)):
        explanation = explain_one(tmp_path / f"{name}.safetensors", CAT)
        assert [one.mean_logit != 0 for one in explanation.maps] == [compared] * 3


def test_json_has_the_maps_as_numbers(convnext: Run, tmp_path: Path) -> None:
    done = convnext("explain", "-m", "default", "-k", "2", "--json", CAT, tmp_path / "missing.jpg")
    assert done.status == 1
    cat, missing = rows_of(done.out)
    assert (cat["status"], missing["status"], missing["error"]["kind"]) == ("ok", "failed", "missing")
    assert missing["maps"] == []
    assert cat["linearised"] is False
    assert [one["label"] for one in cat["maps"]] == [one["label"] for one in cat["predictions"]]
    for one in cat["maps"]:
        assert np.sum(one["evidence"]) == pytest.approx(one["logit"] - one["mean_logit"])
        assert one["file"] is None


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_picture_for_each_guess(convnext: Run, tmp_path: Path) -> None:
    done = convnext("explain", CAT, COFFEE, "-k", "2", "-o", tmp_path / "maps")
    assert done.status == 0, done.err
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [Path(file).name for file, _, _ in lines] == ["cat-1.png", "cat-2.png", "coffee-1.png", "coffee-2.png"]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [Path(file).name for file, _, _ in lines]
    for file, label, score in lines:
        image = Image.open(file)
        assert image.text["Title"] == label
        assert score in image.text["Description"]
        assert image.width > 900


def test_photos_of_equal_names_have_pictures_of_their_own(convnext: Run, tmp_path: Path) -> None:
    for name in ("a/cat.jpg", "b/cat.jpg", "b/Cat.png", "b/…:con.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(CAT).resize((60, 40)).save(path)
    done = convnext("explain", tmp_path / "photos", "-k", "1", "-o", tmp_path / "maps", "--json")
    assert done.status == 0, done.err
    files = [row["maps"][0]["file"] for row in rows_of(done.out)]
    assert len({file.casefold() for file in files}) == 4
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {Path(file).name for file in files}
    assert all(not set(Path(file).name) & set('/\\:*?"<>|') for file in files)
    again = convnext("explain", tmp_path / "photos", "-k", "1", "-o", tmp_path / "maps", "--json", "--overwrite")
    assert [row["maps"][0]["file"] for row in rows_of(again.out)] == files


def test_photos_as_bytes_have_pictures_of_their_own(tmp_path: Path) -> None:
    data = Path(CAT).read_bytes()
    request = ExplainRequest(
        photos=(data, data), predictor=PredictorOptions.of(model="default", k=1), output=tmp_path / "maps"
    )
    files = [one.maps[0].file for one in explain(request).explanations]
    assert [file and file.name for file in files] == ["photo-1.png", "photo~2-1.png"]


def test_pictures_are_replaced_only_when_asked(convnext: Run, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    assert convnext("explain", CAT, "-k", "1", "-o", maps).status == 0
    before = (maps / "cat-1.png").read_bytes()
    refused = convnext("explain", CAT, "-k", "1", "-o", maps)
    assert (refused.status, refused.out) == (2, "")
    assert "cat-1.png already exists" in refused.err and "--overwrite" in refused.err
    assert convnext("explain", COFFEE, "-k", "1", "-o", maps).status == 0  # another photo may join them
    assert convnext("explain", CAT, "-k", "1", "-o", maps, "--overwrite").status == 0
    assert (maps / "cat-1.png").read_bytes() == before


def test_no_other_file_is_ever_replaced(convnext: Run, tmp_path: Path) -> None:
    photo = tmp_path / "cat-1.png"
    Image.open(CAT).save(photo)
    before = photo.read_bytes()
    Image.open(CAT).save(tmp_path / "cat.jpg")
    done = convnext("explain", tmp_path / "cat.jpg", "-k", "1", "-o", tmp_path, "--overwrite")
    assert (done.status, photo.read_bytes()) == (2, before)
    assert "is not a picture of convnext explain" in done.err


def test_a_picture_holds_nothing_of_the_photos_metadata(convnext: Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    Image.open(CAT).save(tmp_path / "cat.jpg", exif=exif, comment=b"a secret word")
    assert convnext("explain", tmp_path / "cat.jpg", "-k", "1", "-o", tmp_path / "maps").status == 0
    assert b"secret" not in (tmp_path / "maps" / "cat-1.png").read_bytes()


# Bad input ------------------------------------------------------------------------------------------------------------


def test_a_photo_that_fails_is_named_and_the_others_go_on(convnext: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(Path(CAT).read_bytes()[:2000])
    done = convnext("explain", CAT, tmp_path / "broken.jpg", COFFEE, "-k", "1", "-o", tmp_path / "maps")
    assert done.status == 1
    assert f"failed: {tmp_path / 'broken.jpg'}: truncated" in done.err
    assert [line.split("\t")[0].rpartition("/")[2] for line in done.out.splitlines()] == ["cat-1.png", "coffee-1.png"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "Name at least one photo"),
        ([CAT], 2, "name a folder with -o, or print numbers with --json"),
        ([CAT, "--overwrite", "--json"], 2, "--overwrite is for -o"),
        ([CAT, "-o", "map.png"], 2, "-o names a folder"),
        ([CAT, "-o", "s3://bucket/maps"], 2, "is a URL"),
        ([CAT, "-o", "missing/maps"], 74, "mkdir -p missing"),
        ([CAT, "-k", "0", "--json"], 2, "0"),
        ([CAT, "--json", "-m", "exported.xml"], 3, "name the weights that it was exported from with -m"),
        ([CAT, "--json", "-m", "backbone.safetensors"], 3, "without a classifier"),
        ([CAT, "--json", "-d", "cuda:all"], 2, "on one device"),
        ([CAT, "--json", "--classes", "unicorn"], 3, "unicorn"),
        (["missing.jpg", "--json"], 2, "missing.jpg"),
    ],
    ids=lambda value: " ".join(value)[-60:] if isinstance(value, list) else None,
)
def test_bad_input_is_refused(
    arguments: list[str], status: int, words: str, convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported.xml").write_text("<net/>")
    write_model(tmp_path / "backbone.safetensors", SMALL.replace(num_labels=0))
    card = Card(SMALL.replace(num_labels=0), Preprocessing(size=(64, 64)), task="features")
    tensors = {name: torch.ones(shape) for name, shape in card.config.shapes().items()}
    canonical.write(tmp_path / "backbone.safetensors", tensors, card.replace(sha256=canonical.fingerprint(tensors)))
    done = convnext("explain", *arguments)
    assert done.status == status, done.err
    assert words in done.err
    assert done.err.count("\n") == 2, done.err  # an error and a hint
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "openvino"},
        {"compiled": True},
        {"dtype": "bfloat16"},
        {"batch_size": 2},
        {"k": 0},
        {"min_score": 0.5},
        {"floors": {"tabby": 0.5}},
        {"sure": 0.9},
        {"sets": 0.9},
    ],
    ids=str,
)
def test_options_without_an_effect_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ExplainRequest(photos=(CAT,), predictor=PredictorOptions.of(**options))


def test_a_model_without_a_classifier_is_refused_from_python(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    request = ExplainRequest(photos=(CAT,), predictor=PredictorOptions.of(model=tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match="a map needs the weights"):
        explain(request)


def test_explanations_come_one_by_one(tmp_path: Path) -> None:
    selection = PhotoSelection(paths=(CAT, str(tmp_path / "missing.jpg"), COFFEE))
    request = ExplainRequest(photos=selection, predictor=PredictorOptions.of(model="default", k=1, threads=1))
    with open_explanations(request) as explaining:
        first = next(explaining.explanations)
        assert (first.row.path, len(first.maps)) == (CAT, 1)
        rest = list(explaining.explanations)
    assert [one.row.status for one in rest] == ["failed", "ok"]
    assert rest[0].maps == ()


# The terminal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "lines_of_pictures"), [(140, 1), (80, 2)])
def test_maps_are_drawn_on_a_terminal(
    columns: int, lines_of_pictures: int, convnext: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    done = convnext("explain", CAT, "-k", "3")
    assert done.status == 0, done.err
    assert done.out.count("▀") == 4 * render.THUMBNAIL_WIDTH * (render.picture_size(Image.open(CAT))[1] // 2)
    pictures = [line for line in done.out.splitlines() if "▀" in line]
    assert len(pictures) == lines_of_pictures * (render.picture_size(Image.open(CAT))[1] // 2)
    assert "the photo" in done.out
    monkeypatch.setenv("NO_COLOR", "1")
    assert convnext("explain", CAT).status == 2


def test_a_picture_has_the_photo_beside_its_map(tmp_path: Path) -> None:
    explanation = explain_one(Path("default"), CAT)
    image = picture.draw(explanation, explanation.maps[0])
    photo = explanation.row.thumbnail
    assert photo is not None
    left = image.crop((14, 14, 14 + photo.width, 14 + photo.height))
    framed = photo.copy()
    picture.draw_frame(framed, explanation)
    assert left.tobytes() == framed.tobytes()
    right = image.crop((24 + photo.width, 14, 24 + 2 * photo.width, 14 + photo.height))
    assert right.tobytes() == picture.draw_map(photo, explanation, explanation.maps[0]).tobytes()


@pytest.mark.parametrize("text", ["tabby", "Café – Œuf", "白い猫", "a\N{COMBINING ACUTE ACCENT}", "\U000e0041"])
def test_every_label_can_be_drawn(text: str) -> None:
    font, drawn = font_for(text, 19)
    missing = font.getmask("\uffff")
    glyphs = [font.getmask(character) for character in drawn if not character.isspace()]
    assert glyphs
    assert all((mask.size, bytes(mask)) != (missing.size, bytes(missing)) for mask in glyphs)
    if text.isascii():
        assert drawn == text
