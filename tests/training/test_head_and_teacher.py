"""The classifier alone, and learning from another model."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from convnext_cli import checkpoints
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.training import classifier_head, mixup
from convnext_cli.training.loop import Trainer
from convnext_cli.training.teacher import FileTeacher, ModelTeacher
from convnext_cli.training.validation import normaliser
from tests.helpers.command import Run
from tests.helpers.training import (
    ALONE,
    COLOURS,
    EVALUATE,
    LEARN,
    ONE_STEP,
    SCRATCH,
    TRAIN,
    body_of,
    evaluations,
    facts,
    killed_at,
    log,
    moved,
    nothing,
    nth,
    recipe_of,
    sets,
    start_of,
    tensors_of,
    trainer_of,
    write_labelled,
)


class TestFreeze:
    def objective(self, x: torch.Tensor, rows: torch.Tensor, w: torch.Tensor, b: torch.Tensor, **of: Any) -> Any:
        """As docs/train.md states it, written anew. x: standardised features. of: smoothing, penalty, weights."""
        classes, n = len(b), len(x)
        share = of.get("weights", torch.ones(classes, dtype=torch.float64))
        target = torch.full((n, classes), of["smoothing"] / classes, dtype=torch.float64)
        target[torch.arange(n), rows] += 1 - of["smoothing"]
        likelihood = (x @ w.T + b).log_softmax(1)
        return -(target * share * likelihood).sum() / n + of["penalty"] * w.square().sum()

    @pytest.mark.parametrize("weighted", [False, True])
    def test_the_solution_is_that_of_newton(self, weighted: bool) -> None:
        rng = np.random.default_rng(3)
        rows = torch.from_numpy(rng.integers(0, 3, 60))
        x = torch.from_numpy(rng.normal(size=(60, 4)) * [1, 5, 0.1, 2] + [0, 3, 1, -2])
        x[:, 1] += 3 * rows
        weights = torch.tensor([0.5, 1.0, 2.0]) if weighted else None
        of = {"smoothing": 0.1, **({"weights": weights.double()} if weights is not None else {})}
        deviation = x.std(0) + 1e-6
        standard = (x - x.mean(0)) / deviation
        solve = classifier_head.Solver(x, rows, x[:30], rows[:30], weights, 0.1)
        for fit in map(solve, (0.1, 0.01, 0.001, 1e-4, 1e-5, 1e-6, 1.0)):  # the last one is stronger than the others
            of["penalty"] = fit.penalty

            def value(flat: torch.Tensor, of: dict[str, Any] = of) -> Any:
                # a shift of all classes changes nothing: the small term makes the solution the one
                return (
                    self.objective(standard, rows, flat[:12].view(3, 4), flat[12:], **of) + 1e-9 * flat.square().sum()
                )

            flat = torch.zeros(15, dtype=torch.float64)
            for _ in range(30):
                slope = torch.autograd.functional.jacobian(value, flat)
                curve = torch.autograd.functional.hessian(value, flat)
                flat = flat - torch.linalg.solve(curve, slope)
            own = flat[:12].view(3, 4) / deviation
            wanted = x @ own.T + flat[12:] - own @ x.mean(0)
            found = x @ fit.weight.double().T + fit.bias.double()
            assert torch.allclose(found.softmax(1), wanted.softmax(1), atol=2e-4), fit.penalty
            assert fit.loss == pytest.approx(float(F.cross_entropy(wanted[:30], rows[:30])), abs=1e-3)
            assert fit.top1 == float((wanted[:30].argmax(1) == rows[:30]).double().mean())

    def test_a_run(self, convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
        target = tmp_path / "run"
        done = convnext(*TRAIN, folders, "-o", target, "--from", model, "--freeze", *sets("smoothing=0.05"))
        assert done.status == 0, done.err
        state = tensors_of(target)
        assert all(torch.equal(state[name], tensor) for name, tensor in body_of(model).items())
        lines = evaluations(target)
        penalties = [line["penalty"] for line in lines]
        assert penalties[:6] == pytest.approx([0.1, 0.01, 0.001, 1e-4, 1e-5, 1e-6])
        best = max(lines, key=lambda line: (line["val_top1"], -line["val_loss"]))
        # the slope of what is to be least, by each of the photos as convnext classify would read it, and mirrored
        loaded = checkpoints.load(target)
        network, paths = checkpoints.build(loaded), sorted((folders / "train").rglob("*.png"))
        pixels = torch.stack(
            [
                torch.from_numpy(apply_preprocessing(loaded.card.preprocessing, Image.open(path).convert("RGB")))
                for path in paths
            ]
        )
        with torch.inference_mode():
            features = torch.cat([network.pool([*network.hidden_states(x)][-1]) for x in (pixels, pixels.flip(-1))])
        x = features.clone().double()
        rows = torch.tensor([list(COLOURS).index(path.parent.name) for path in paths]).repeat(2)
        deviation = x.std(0) + 1e-6
        standard = (x - x.mean(0)) / deviation
        w = (state["head.weight"].double() * deviation).requires_grad_(True)
        b = (state["head.bias"].double() + state["head.weight"].double() @ x.mean(0)).requires_grad_(True)
        slopes = [
            torch.cat([slope.flatten() for slope in torch.autograd.grad(value, (w, b))]).norm()
            for value in (
                self.objective(standard, rows, w, b, smoothing=0.05, penalty=best["penalty"]),
                self.objective(standard, rows, 1.02 * w, b, smoothing=0.05, penalty=best["penalty"]),
            )
        ]
        assert float(slopes[0]) < 2e-4 and float(slopes[0]) < 0.2 * float(slopes[1])
        assert sorted(path.name for path in target.glob("*.png")) == ["confusion.png", "reliability.png"]
        results = facts(target)["results"]
        found = json.loads(convnext(*EVALUATE, folders, "-m", target, "--split", "test", "--json").out)
        assert found["top1"]["right"] == round(results["test"]["top1"] * found["photos"])
        again = convnext(*TRAIN, folders, "-o", target, "--from", model, "--freeze", *sets("smoothing=0.05"))
        assert again.status == 0 and log(target) == lines


class TestTeacher:
    CLASSES = ("a", "b", "c", "d")

    def loss_of(self, trainer: Trainer, x: torch.Tensor, target: torch.Tensor, said: torch.Tensor) -> float:
        """As the papers have it. target: of the labels. said: the teacher's scores, softened."""
        recipe = trainer.recipe
        found = trainer.network(x).logits.double()
        hard = -(target * found.log_softmax(1)).sum(1).mean()
        heat = recipe.distil_temperature
        apart = (said * (said.log() - (found / heat).log_softmax(1))).sum(1).mean()
        return float(((1 - recipe.distil) * hard + recipe.distil * heat**2 * apart).detach())

    def test_a_model(self, tmp_path: Path) -> None:
        names = ("d", "a", "c", "b", "e")
        path = write_labelled(tmp_path / "teacher.safetensors", names, seed=5, mean=(0.4,) * 3, std=(0.3,) * 3)
        start = start_of()
        teacher = ModelTeacher(path, self.CLASSES, start.preprocessing, ALONE.device, torch.float32)
        recipe = recipe_of(distil=0.3, distil_temperature=3.0, smoothing=0.1)
        trainer = trainer_of(recipe, tmp_path, start=start, teacher=teacher)
        numbers = torch.tensor([3, 1, 6, 2])
        pixels = torch.stack([trainer.photos.train[int(number)] for number in numbers])
        x = normaliser(start.preprocessing, ALONE.device)(pixels)
        rows = trainer.photos.train_labels[numbers]
        blend = mixup.Mix(0.7, None)
        mixed = 0.7 * x + 0.3 * x[[1, 0, 3, 2]]
        hard = F.one_hot(rows, 4).double() * 0.9 + 0.1 / 4
        target = 0.7 * hard + 0.3 * hard[[1, 0, 3, 2]]
        # the teacher's own view of the mixed photos: their pixels, by its own mean and deviation
        mean, std = (
            torch.tensor(values).view(3, 1, 1) for values in (start.preprocessing.mean, start.preprocessing.std)
        )
        network = checkpoints.build(checkpoints.load(path))
        answers = network(((mixed * std + mean) - 0.4) / 0.3).logits.double()[:, [names.index(n) for n in self.CLASSES]]
        wanted = self.loss_of(trainer, mixed, target, (answers / 3).softmax(1))
        found = float(trainer._loss(x, rows, numbers, blend).detach())
        assert found == pytest.approx(wanted, rel=2e-5)
        assert found != pytest.approx(
            float(trainer_of(recipe, tmp_path, start=start)._loss(x, rows, numbers, blend).detach())
        )

    def test_a_file(self, tmp_path: Path) -> None:
        said = np.random.default_rng(2).normal(size=(8, 4)).astype(np.float32) * 3
        np.save(tmp_path / "said.npy", said)
        recipe = recipe_of(distil=0.6, distil_temperature=2.0, smoothing=0.0)
        trainer = trainer_of(recipe, tmp_path, teacher=FileTeacher(tmp_path / "said.npy", 8, 4))
        numbers = torch.tensor([5, 0, 7, 2])
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        rows = trainer.photos.train_labels[numbers]
        other = [1, 0, 3, 2]
        box = mixup.Mix(0.5, (0.25, 0.0, 0.5))  # a quarter of the photo
        mixed = x.clone()
        mixed[:, :, 8:24, 0:16] = x[other][:, :, 8:24, 0:16]
        hard = F.one_hot(rows, 4).double()
        answers = (torch.from_numpy(said[numbers.numpy()]).double() / 2).softmax(1)
        # what was said of the whole photos is mixed as they are
        wanted = self.loss_of(trainer, mixed, 0.75 * hard + 0.25 * hard[other], 0.75 * answers + 0.25 * answers[other])
        assert float(trainer._loss(x, rows, numbers, box).detach()) == pytest.approx(wanted, rel=2e-5)

    def test_rows_of_a_file_are_the_photos_in_the_order_of_the_data(
        self, convnext: Run, folders: Path, tmp_path: Path, undrawn: None
    ) -> None:
        """A teacher that is always wrong in the same way teaches that."""
        said = np.zeros((32, 4), np.float32)
        for number in range(32):
            said[number, (number // 8 + 1) % 4] = 12.0
        np.save(tmp_path / "said.npy", said)
        target = tmp_path / "run"
        given = (*LEARN, "--epochs", "20", *sets("distil=1.0", "search_size=false"))
        done = convnext(*TRAIN, folders, "-o", target, *given, "--teacher", tmp_path / "said.npy")
        assert done.status == 0, done.err
        paths = sorted((folders / "train").rglob("*.png"))
        rows = json.loads(convnext("classify", "-e", "torch", "-m", target, "--json", *paths).out)
        answers = [row["predictions"][0]["label"] for row in rows]
        names = list(COLOURS)
        wrong = [names[(names.index(path.parent.name) + 1) % 4] for path in paths]
        assert sum(answer == each for answer, each in zip(answers, wrong, strict=True)) > 22

    def test_a_run_with_a_model(self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        path = write_labelled(tmp_path / "teacher.safetensors", ("grey", "red", "x", "green", "blue"), seed=4)
        for name, more in (("with", ("--teacher", path)), ("without", ())):
            given = ("--from", model, "--epochs", "1", "-b", "8", *more)
            assert convnext(*TRAIN, folders, "-o", tmp_path / name, *given).status == 0
        assert moved(tmp_path / "with", tensors_of(tmp_path / "without")) > 0
        assert tomllib.loads((tmp_path / "with" / "recipe.toml").read_text())["teacher"] == str(path)
        # going on wants the teacher again
        assert convnext(*TRAIN, folders, "-o", tmp_path / "with", "--from", model, "--teacher", path).status == 0

    @pytest.mark.parametrize("done", [False, True], ids=["interrupted", "done"])
    def test_a_run_goes_on_with_the_content_that_it_began_to_learn_from(
        self, convnext: Run, folders: Path, tmp_path: Path, done: bool
    ) -> None:
        logits, target = tmp_path / "logits.npy", tmp_path / "run"
        scores = np.random.default_rng(0).standard_normal((32, 4), np.float32)
        np.save(logits, scores)
        command = (*TRAIN, folders, "-o", target, *SCRATCH, *ONE_STEP, "--epochs", "1", "--teacher", logits)
        if done:
            assert convnext(*command).status == 0
        else:
            killed_at(lambda: nth(Trainer, "_step", 4, nothing), *command)
        before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
        np.save(logits, scores[::-1])
        refused = convnext(*command)
        assert refused.status == 2
        error, hint = refused.err.splitlines()[-2:]
        assert error == f"error: {logits} has changed since the run in {target} began"
        assert hint.startswith("hint: put the earlier file back, or start again with --overwrite")
        assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
        np.save(logits, scores)
        assert convnext(*command).status == 0
        np.save(logits, scores[::-1])
        assert convnext(*command, "--overwrite").status == 0

    def test_a_run_of_an_earlier_version_did_not_note_it(self, convnext: Run, folders: Path, tmp_path: Path) -> None:
        logits, target = tmp_path / "logits.npy", tmp_path / "run"
        np.save(logits, np.zeros((32, 4), np.float32))
        command = (*TRAIN, folders, "-o", target, *SCRATCH, *ONE_STEP, "--teacher", logits)
        assert convnext(*command).status == 0
        facts = json.loads((target / "run.json").read_text())
        del facts["teacher_sha256"]
        (target / "run.json").write_text(json.dumps(facts))
        np.save(logits, np.ones((32, 4), np.float32))
        assert convnext(*command).status == 0

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda path: np.save(path, np.zeros((31, 4), np.float32)), "has logits of (31, 4)"),
            (lambda path: np.save(path, np.zeros((32, 5), np.float32)), "32 photos and 4 classes"),
            (lambda path: np.save(path, np.zeros((32, 4), np.int64)), "has logits of (32, 4)"),
            (lambda path: np.save(path, np.full((32, 4), np.nan, np.float32)), "holds logits that are not finite"),
            (lambda path: path.write_bytes(b"no array"), "cannot be read as logits"),
        ],
    )
    def test_a_file_that_does_not_fit(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, make: Any, said: str
    ) -> None:
        make(tmp_path / "said.npy")
        given = ("--from", model, *ONE_STEP, "--teacher", tmp_path / "said.npy")
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *given)
        assert done.status == 3 and said in done.err and done.err.splitlines()[-1].startswith("hint: ")
        # the run has not begun, so a mended command may
        assert convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP).status == 0

    def test_a_model_that_does_not_know_the_classes(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path
    ) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--teacher", model)
        assert done.status == 3 and "the teacher other knows none of the 4 classes: its first labels are a" in done.err
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--teacher", "gone.pth")
        assert done.status == 3 and "gone.pth" in done.err
