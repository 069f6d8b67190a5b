"""Learning from networks for a runtime, and from teachers that know some of the classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.runtimes.select import open_engine
from convnext_cli.training import mixup
from convnext_cli.training.teacher import Classes, EngineTeacher, ModelTeacher, open_teacher
from convnext_cli.training.validation import normaliser
from tests.helpers.command import Run
from tests.helpers.foreign_classifier import SIZE, train_foreign, write_foreign
from tests.helpers.training import (
    ALONE,
    COLOURS,
    LEARN,
    ONE_STEP,
    TRAIN,
    recipe_of,
    sets,
    start_of,
    trainer_of,
    write_labelled,
)
from tests.helpers.weights import SMALL

NAMES = ("scarf", *reversed(COLOURS))  # a class more than the data has, in another order


def colours(folders: Path) -> tuple[list[Path], list[int]]:
    """The training photos, and their classes as rows of a teacher of NAMES."""
    paths = sorted((folders / "train").rglob("*.png"))
    return paths, [NAMES.index(path.parent.name) for path in paths]


@pytest.fixture
def names(tmp_path: Path) -> Path:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return tmp_path / "names.txt"


@pytest.mark.parametrize("softmax", [False, True])
def test_a_foreign_file_teaches_its_classes(
    convnext: Run, folders: Path, names: Path, tmp_path: Path, undrawn: None, softmax: bool
) -> None:
    """Its labels are told wrong in one way, and learnt so; without its labels alone, true ones would be."""
    photos, rows = colours(folders)
    assert train_foreign(tmp_path / "teacher.onnx", photos, rows, len(NAMES), softmax=softmax) > 0.9
    turned = [NAMES[0], *NAMES[2:], NAMES[1]]
    names.write_text("\n".join(turned))
    given = (*LEARN, "--epochs", "20", *sets("distil=1.0", "search_size=false", f"teacher_labels={names}"))
    done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *given, "--teacher", tmp_path / "teacher.onnx")
    assert done.status == 0, done.err
    assert "teacher.onnx has no card; taken as usual" in done.err
    answers = json.loads(convnext("classify", "-e", "torch", "-m", tmp_path / "run", "--json", *photos).out)
    wrong = [turned[row] for row in rows]
    assert sum(row["predictions"][0]["label"] == name for row, name in zip(answers, wrong, strict=True)) > 22


@pytest.mark.parametrize("inside", [False, True], ids=["photos as floats", "preprocessing inside"])
def test_an_engine_sees_what_classify_sees(convnext: Run, folders: Path, tmp_path: Path, inside: bool) -> None:
    """The teacher's logits of photos that the student has normalised in its own way."""
    path = write_labelled(tmp_path / "t.safetensors", NAMES, seed=4, size=SIZE, mean=(0.4,) * 3, std=(0.3,) * 3)
    file = tmp_path / "t.onnx"
    more = ("--with-preprocessing",) if inside else ()
    done = convnext("export", "-m", path, "-o", file, *more, "--no-check")
    assert done.status == 0, done.err
    photos, _ = colours(folders)
    pixels = [Image.open(photo).convert("RGB").resize((SIZE, SIZE)) for photo in photos[:5]]
    for number, picture in enumerate(pixels):
        picture.save(tmp_path / f"{number}.png")
    predictor = open_predictor(PredictorOptions.of(model=file, k=0, scores="logits", threads=1))
    rows = list(predictor.rows(pipeline_photos([tmp_path / f"{number}.png" for number in range(5)])))
    expected = [{guess.label: guess.score for guess in row.predictions} for row in rows]
    preprocessing = Preprocessing(size=(SIZE, SIZE), mean=(0.5, 0.45, 0.4), std=(0.2, 0.25, 0.3))
    teacher = open_teacher(
        file,
        photos=5,
        classes=tuple(COLOURS),
        preprocessing=preprocessing,
        device=ALONE.device,
        dtype=torch.float32,
        threads=1,
    )
    assert isinstance(teacher, EngineTeacher) and teacher.columns is None
    x = torch.from_numpy(np.stack([np.asarray(picture) for picture in pixels])).permute(0, 3, 1, 2)
    found = teacher(normaliser(preprocessing, ALONE.device)(x), torch.arange(5))
    for logits, row in zip(found.tolist(), expected, strict=True):
        assert logits == pytest.approx([row[name] for name in COLOURS], abs=2e-4)


def pipeline_photos(paths: list[Path]) -> list[object]:
    from convnext_cli.photos.photo import Photo

    return [Photo(str(path)) for path in paths]


def test_photos_of_other_sizes_are_resized_for_it(tmp_path: Path) -> None:
    write_foreign(tmp_path / "t.onnx", np.eye(3, 4), np.zeros(4))
    engine = open_engine(tmp_path / "t.onnx")
    engine.card = engine.card.replace(labels=LabelSet.from_names("own", ["a", "b", "c", "d"]))
    teacher = EngineTeacher(engine, ("c", "a"), Preprocessing.official(), ALONE.device)
    x = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    means = F.interpolate(x, (SIZE, SIZE), mode="bicubic", antialias=True).mean((2, 3))
    torch.testing.assert_close(teacher(x, torch.arange(2)), means[:, [2, 0]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blend", [None, mixup.Mix(0.7, None)])
def test_a_teacher_of_some_classes_counts_for_their_photos(tmp_path: Path, blend: mixup.Mix | None) -> None:
    """Photos of the others are learnt from their labels alone; the scores are over the classes that both know."""
    path = write_labelled(tmp_path / "teacher.safetensors", ("d", "x", "b", "a"), seed=5)
    start, remarks = start_of(), list[str]()
    teacher = ModelTeacher(path, tuple("abcd"), start.preprocessing, ALONE.device, torch.float32, say=remarks.append)
    assert "knows 3 of 4 classes" in remarks[0] and remarks[0].endswith(": c")
    trainer = trainer_of(
        recipe_of(distil=0.3, distil_temperature=3.0, smoothing=0.1), tmp_path, start=start, teacher=teacher
    )
    numbers = torch.tensor([3, 1, 6, 2])  # of the classes d, b, c, c
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    rows = trainer.photos.train_labels[numbers]
    kept = 1.0 if blend is None else blend.share
    other = [1, 0, 3, 2]
    mixed = kept * x + (1 - kept) * x[other]
    hard = F.one_hot(rows, 4).double() * 0.9 + 0.1 / 4
    hard = kept * hard + (1 - kept) * hard[other]
    answers = (teacher(mixed, numbers).double() / 3).softmax(1)
    logits = trainer.network(mixed).logits.double()
    shared = (logits[:, [0, 1, 3]] / 3).log_softmax(1)
    by_label = -(hard * logits.log_softmax(1)).sum(1)
    by_teacher = 9 * (answers * (answers.log() - shared)).sum(1)
    share = 0.3 * torch.tensor([1.0, 1.0, 0.0, 0.0]).double()
    expected = ((1 - share) * by_label + share * by_teacher).mean().detach()
    found = trainer._loss(x, rows, numbers, blend).detach()
    assert float(found) == pytest.approx(float(expected), rel=2e-5)


def test_a_label_of_several_classes_has_their_probability() -> None:
    config = SMALL.replace(num_labels=3)
    labels = LabelSet.from_names("own", ["cat", "dog"])
    object.__setattr__(labels, "groups", ((0, 2), (1,)))
    object.__setattr__(labels, "lemmas", ("cat", "dog", "kitten"))
    object.__setattr__(labels, "ids", (None, None, None))
    card = Card(config, Preprocessing(), "grouped", labels=labels)
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    found = Classes(card, None, ("dog", "cat"))(logits)
    torch.testing.assert_close(found.softmax(1), logits.softmax(1) @ torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))


class TestRefusals:
    def refused(self, convnext: Run, folders: Path, tmp_path: Path, *given: object) -> tuple[int, str]:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *ONE_STEP, *given)
        assert done.err.splitlines()[-1].startswith("hint: ") or done.status == 2
        assert not (tmp_path / "run" / "run.json").exists()
        return done.status, done.err

    def test_labels_that_are_not_known(self, convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
        write_foreign(tmp_path / "t.onnx", np.eye(3, 5), np.zeros(5))
        status, text = self.refused(convnext, folders, tmp_path, "--from", model, "--teacher", tmp_path / "t.onnx")
        assert status == 3 and "knows none of the 4 classes: its first labels are class_0, class_1" in text
        assert "teacher_labels=FILE" in text

    def test_one_class_in_common(self, convnext: Run, folders: Path, model: Path, names: Path, tmp_path: Path) -> None:
        write_foreign(tmp_path / "t.onnx", np.eye(3, 5), np.zeros(5))
        names.write_text("red\na\nb\nc\nd")
        given = ("--from", model, "--teacher", tmp_path / "t.onnx", *sets(f"teacher_labels={names}"))
        status, text = self.refused(convnext, folders, tmp_path, *given)
        assert status == 3 and "knows 1 of the 4 classes" in text

    def test_a_label_file_of_another_length(
        self, convnext: Run, folders: Path, model: Path, names: Path, tmp_path: Path
    ) -> None:
        write_foreign(tmp_path / "t.onnx", np.eye(3, 4), np.zeros(4))
        given = ("--from", model, "--teacher", tmp_path / "t.onnx", *sets(f"teacher_labels={names}"))
        assert self.refused(convnext, folders, tmp_path, *given)[0] == 3

    def test_labels_without_a_teacher(
        self, convnext: Run, folders: Path, model: Path, names: Path, tmp_path: Path
    ) -> None:
        status, text = self.refused(convnext, folders, tmp_path, "--from", model, *sets(f"teacher_labels={names}"))
        assert status == 2 and "teacher_labels" in text and "without a teacher" in text

    def test_labels_of_a_file_of_logits(
        self, convnext: Run, folders: Path, model: Path, names: Path, tmp_path: Path
    ) -> None:
        np.save(tmp_path / "logits.npy", np.zeros((32, 4), np.float32))
        given = ("--from", model, "--teacher", tmp_path / "logits.npy", *sets(f"teacher_labels={names}"))
        status, text = self.refused(convnext, folders, tmp_path, *given)
        assert status == 2 and "the columns of a file of logits are those of the data" in text

    def test_scores_that_are_not_finite(
        self, convnext: Run, folders: Path, model: Path, names: Path, tmp_path: Path
    ) -> None:
        write_foreign(tmp_path / "t.onnx", np.eye(3, 5), np.full(5, np.nan))
        given = ("--from", model, "--teacher", tmp_path / "t.onnx", *sets(f"teacher_labels={names}"))
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *ONE_STEP, *given)
        assert done.status == 3 and "the teacher returns scores that are not finite" in done.err

    def test_a_file_that_is_not_there(self, convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
        status, text = self.refused(convnext, folders, tmp_path, "--from", model, "--teacher", tmp_path / "gone.onnx")
        assert status in (2, 3) and "gone.onnx" in text
