"""What a run must not lose, and must not say that is not so."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from convnext_cli.certainty.temperature import fit_temperature
from convnext_cli.datasets import open_data
from convnext_cli.evaluation.run_splits import with_splits_of
from convnext_cli.training import finish, plots
from convnext_cli.training.photo_cache import load
from tests.helpers.command import Run
from tests.helpers.training import EVALUATE, TRAIN, facts, place, sets, split

FROZEN = ("--freeze", *sets("search_size=false"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders without splits."""
    return place(tmp_path_factory.mktemp("data") / "photos", 7)


@pytest.fixture
def finished(convnext: Run, parts: Path, model: Path, tmp_path: Path, undrawn: None) -> Path:
    """A run that is done."""
    run = tmp_path / "run"
    done = convnext(*TRAIN, parts, "-o", run, "--from", model, *FROZEN)
    assert done.status == 0, done.err
    return run


class TestOverwrite:
    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            (("-d", "cuda:9"), 4),
            (("--val", "0.6", "--test", "0.6"), 2),
            (("--from", "nowhere"), 3),
            (("--teacher", "no.npy"), 2),
        ],
        ids=["device", "shares", "weights", "teacher"],
    )
    def test_what_cannot_begin_ends_nothing(
        self, convnext: Run, finished: Path, parts: Path, model: Path, arguments: tuple[str, ...], status: int
    ) -> None:
        before = {path.name: path.read_bytes() for path in finished.glob("*.*")}
        start = () if "--from" in arguments else ("--from", model)
        kind = () if "--teacher" in arguments else ("--freeze",)
        done = convnext(*TRAIN, parts, "-o", finished, *start, *kind, "--overwrite", *arguments)
        assert done.status == status, done.err
        assert {path.name: path.read_bytes() for path in finished.glob("*.*")} == before

    def test_broken_photos_end_nothing(self, convnext: Run, finished: Path, model: Path, tmp_path: Path) -> None:
        bad = place(tmp_path / "bad", 4)
        (bad / "red" / "300.png").write_bytes(b"no photo")
        assert convnext(*TRAIN, bad, "-o", finished, "--from", model, *FROZEN, "--overwrite").status == 3
        assert (finished / "model.safetensors").exists()

    def test_it_may_begin_with_what_it_replaces(self, convnext: Run, finished: Path, parts: Path) -> None:
        more = ("--recipe", finished / "recipe.toml", "--from", finished, "--seed", "1", "--overwrite")
        done = convnext(*TRAIN, parts, "-o", finished, *more)
        assert done.status == 0, done.err
        assert facts(finished)["seed"] == 1 and facts(finished)["begun_with"] == "run"


class TestAgain:
    def test_a_finished_run_says_that_nothing_was_trained(
        self, convnext: Run, finished: Path, parts: Path, model: Path
    ) -> None:
        done = convnext(*TRAIN, parts, "-o", finished, "--from", model)
        assert done.status == 0 and "nothing was trained" in done.err and "written" not in done.err

    @pytest.mark.parametrize("other", [("--val", "0.3"), ("--test", "0.4"), ("--skip-bad",)])
    def test_other_shares_are_refused(
        self, convnext: Run, finished: Path, parts: Path, model: Path, other: tuple[str, ...]
    ) -> None:
        done = convnext(*TRAIN, parts, "-o", finished, "--from", model, *other)
        assert done.status == 2 and "--overwrite" in done.err
        assert convnext(*TRAIN, parts, "-o", finished, "--from", model, "--val", "0.15").status == 0

    def test_a_run_does_not_go_on_with_fewer_photos(
        self, convnext: Run, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        data, run = split(tmp_path / "data"), tmp_path / "run"
        arguments = (*TRAIN, data, "-o", run, "--from", model, *FROZEN, "--skip-bad")
        assert convnext(*arguments).status == 0
        values = facts(run)
        del values["results"]  # cut before its end
        (run / "run.json").write_text(json.dumps(values))
        photo = min((data / "train" / "red").iterdir())
        whole = photo.read_bytes()
        photo.write_bytes(whole[:60])
        done = convnext(*arguments)
        assert done.status == 3 and "31 for train and 12 for val, then 32 and 12" in done.err, done.err
        photo.write_bytes(whole)
        assert convnext(*arguments).status == 0


class TestTheEnd:
    @pytest.mark.parametrize("lost", [1, 12])
    def test_test_photos_that_are_gone(
        self,
        convnext: Run,
        model: Path,
        tmp_path: Path,
        undrawn: None,
        monkeypatch: pytest.MonkeyPatch,
        lost: int,
    ) -> None:
        data, run = split(tmp_path / "data"), tmp_path / "run"

        def later(*arguments: object, **more: object) -> object:
            for path in sorted((data / "test").rglob("*.png"))[:lost]:
                path.unlink()
            return load(*arguments, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(finish, "load", later)
        done = convnext(*TRAIN, data, "-o", run, "--from", model, *FROZEN)
        assert done.status == 0, done.err
        assert f"{lost} photos of test can no longer be read" in done.err
        assert (run / "model.safetensors").exists() and ("test" in facts(run)["results"]) == (lost < 12)

    def test_a_few_right_answers_are_no_certainty(self) -> None:
        found, labels = torch.eye(3) * 2, torch.arange(3)
        scores = (found / fit_temperature(found.numpy(), labels.numpy())).softmax(1).max(1).values
        assert 0.7 < float(scores.min()) < 0.9
        many = torch.eye(3).repeat(1000, 1) * 2
        temperature = fit_temperature(many.numpy(), labels.repeat(1000).numpy())
        assert float((many / temperature).softmax(1).max(1).values.min()) > 0.999


class TestClasses:
    def test_all_of_whose_photos_are_broken(self, convnext: Run, model: Path, tmp_path: Path, undrawn: None) -> None:
        data, run = split(tmp_path / "data"), tmp_path / "run"
        for photo in (data / "train" / "red").iterdir():
            photo.write_bytes(b"no photo")
        done = convnext(*TRAIN, data, "-o", run, "--from", model, *FROZEN, "--skip-bad")
        assert done.status == 0, done.err
        assert "classes without a photo that can be read: red" in done.err
        assert facts(run)["classes"] == ["blue", "green", "grey"]
        assert facts(run)["photos"] == {"train": 24, "val": 9, "test": 9}

    def test_names_that_differ_in_capitals(self, convnext: Run, model: Path, tmp_path: Path, undrawn: None) -> None:
        data, run = place(tmp_path / "data", 7, ("red", "blue")), tmp_path / "run"
        shutil.move(data / "blue", data / "Red")
        assert convnext(*TRAIN, data, "-o", run, "--from", model, *FROZEN).status == 0
        done = convnext(*EVALUATE, "-m", run, data, "--split", "all", "--json")
        assert done.status == 0 and json.loads(done.out)["top1"]["photos"] == 14, done.err

    def test_names_in_other_scripts(self, convnext: Run, model: Path, tmp_path: Path) -> None:
        if not plots.available():
            pytest.skip("matplotlib is not here")
        data, run = place(tmp_path / "data", 7, ("red", "blue")), tmp_path / "run"
        shutil.move(data / "blue", data / "帽子")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            done = convnext(*TRAIN, data, "-o", run, "--from", model, *FROZEN)
        assert done.status == 0 and "Glyph" not in done.err and (run / "confusion.png").exists(), done.err


class TestSplits:
    """A model is measured on what it did not learn from, where that was parted by its run."""

    def test_the_same_folder(self, convnext: Run, finished: Path, parts: Path, tmp_path: Path) -> None:
        elsewhere = shutil.copytree(parts, tmp_path / "elsewhere")
        for data in (parts, f"{elsewhere}/"):
            done = convnext(*EVALUATE, "-m", finished, data, "--json")
            found = json.loads(done.out)
            assert "was trained on a part of these photos" in done.err
            assert found["data"]["split"] == "test" and found["top1"]["photos"] == facts(finished)["photos"]["test"]
            assert found["top1"]["value"] == pytest.approx(facts(finished)["results"]["test"]["top1"])
        done = convnext(*EVALUATE, "-m", finished, parts, "--split", "all", "--json")
        assert json.loads(done.out)["top1"]["photos"] == 28

    def test_a_zip(self, convnext: Run, parts: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        packed, run = shutil.make_archive(str(tmp_path / "photos"), "zip", parts), tmp_path / "run"
        assert convnext(*TRAIN, packed, "-o", run, "--from", model, *FROZEN).status == 0
        done = convnext(*EVALUATE, "-m", run, packed, "--json")
        assert json.loads(done.out)["data"]["split"] == "test", done.err

    def test_other_photos(self, finished: Path, tmp_path: Path) -> None:
        other = str(place(tmp_path / "other", 5))
        with_splits = str(split(tmp_path / "split"))
        for data in (other, with_splits):
            assert with_splits_of(finished, open_data([data]), [data]) is None
        assert with_splits_of(tmp_path, open_data([other]), [other]) is None


def test_offline_opens_no_connection(convnext: Run, tmp_path: Path) -> None:
    done = convnext(*TRAIN, "s3://somewhere/photos", "-o", tmp_path / "run", "--offline")
    assert done.status == 2 and "without --offline" in done.err
