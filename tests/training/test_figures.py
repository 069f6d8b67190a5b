"""Figures that say something: none is printed or kept that is 100 % by itself, or of too few photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from convnext_cli import checkpoints
from convnext_cli.certainty.temperature import fit_temperature
from convnext_cli.evaluation.figures import BINS
from convnext_cli.training import classifier_head, finish, plots
from convnext_cli.training.validation import FittedTemperature, calibrate, judge
from tests.helpers.command import Run
from tests.helpers.training import EVALUATE, TRAIN, evaluations, facts, place, sets, split

NAMES = ("a", "b", "c", "d", "e", "f")


class TestTop5:
    @pytest.mark.parametrize(("classes", "known"), [(2, False), (5, False), (6, True)])
    def test_of_a_number_of_classes(self, classes: int, known: bool) -> None:
        logits = torch.arange(classes).float().repeat(20, 1)
        found = judge(logits, torch.zeros(20, dtype=torch.int64))
        assert found["top5"] == (0.0 if known else None) and found["ece"] is not None

    def test_four_classes_have_none_anywhere(self, convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
        target = tmp_path / "run"
        done = convnext(*TRAIN, folders, "-o", target, "--from", model, "--epochs", "2", "-b", "8")
        assert done.status == 0, done.err
        assert "top-1" in done.out + done.err and "top-5" not in done.out + done.err
        assert [line["val_top5"] for line in evaluations(target)] == [None, None]
        results = facts(target)["results"]
        assert results["val"]["top5"] is None and results["test"]["top5"] is None
        assert not [name for name in checkpoints.read_card(target).metrics if "top-5" in name]
        shown = convnext(*EVALUATE, folders, "-m", target)
        assert shown.status == 0 and "top-1" in shown.out and "top-5" not in shown.out
        found = json.loads(convnext(*EVALUATE, folders, "-m", target, "--json", "-o", tmp_path / "out").out)
        assert found["top5"] is None and found["top1"]["photos"] == 12
        assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["top5"] is None

    def test_the_live_table(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "120")
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, "--epochs", "2", "-b", "8")
        assert done.status == 0 and "val loss" in done.err and "top-5" not in done.err

    @pytest.mark.parametrize("top5", [None, 0.9])
    def test_the_curves(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top5: float | None) -> None:
        drawn: list[str] = []
        save = Figure.savefig

        def kept(figure: Figure, *arguments: object, **more: object) -> None:
            drawn.extend(str(line.get_label()) for axes in figure.axes for line in axes.get_lines())
            save(figure, *arguments, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(Figure, "savefig", kept)
        step = {"epoch": 1.0, "loss": 1.0, "lr": 0.1, "size": 32}
        plots.curves([step, {"epoch": 1.0, "val_loss": 1.0, "val_top1": 0.5, "val_top5": top5}], tmp_path / "x.png")
        assert "top1" in drawn and ("top5" in drawn) == (top5 is not None)

    def test_a_model_of_more_labels_keeps_its_own(self, convnext: Run, folders: Path, tmp_path: Path) -> None:
        """Four classes of data among six of the model: an answer may be any of the six."""
        from tests.helpers.training import COLOURS, write_labelled

        path = write_labelled(tmp_path / "six.safetensors", (*COLOURS, "x", "y"))
        found = json.loads(convnext(*EVALUATE, folders, "-m", path, "--json").out)
        assert found["top5"]["photos"] == 12
        found = json.loads(convnext(*EVALUATE, folders, "-m", path, "--json", "--only-these").out)
        assert found["top5"] is None
        few = write_labelled(tmp_path / "four.safetensors", tuple(COLOURS))
        shown = convnext(*EVALUATE, folders, "-m", few, "--against", path)
        (row,) = [line for line in shown.out.splitlines() if line.startswith("top-5")]
        assert "six" in row


class TestCalibrationError:
    def test_of_fewer_photos_than_bins(self) -> None:
        logits = torch.randn(BINS, 6, generator=torch.Generator().manual_seed(1))
        rows = torch.zeros(BINS, dtype=torch.int64)
        assert judge(logits, rows)["ece"] is not None and judge(logits[1:], rows[1:])["ece"] is None

    def test_evaluate_leaves_it_out(self, convnext: Run, model: Path, folders: Path, tmp_path: Path) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, "--freeze")
        assert done.status == 0 and "ECE" not in done.out and "val has too few photos to judge one by" in done.err
        results = facts(tmp_path / "run")["results"]
        assert results["temperature"] == 1.0 and results["temperature_fitted"] is None
        assert results["val"]["ece"] is None and results["val_ece_before"] is None
        assert not [name for name in checkpoints.read_card(tmp_path / "run").metrics if "ece" in name]
        shown = convnext(*EVALUATE, folders, "-m", tmp_path / "run")
        assert shown.status == 0 and "ECE" not in shown.out
        assert (
            json.loads(convnext(*EVALUATE, folders, "-m", tmp_path / "run", "--json").out)["calibration"]["ece"] is None
        )


class TestTemperature:
    """One that makes scores less often right as they say is not used."""

    @staticmethod
    def answers(right: list[tuple[float, bool]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of three classes, whose best score is as given, and the row that is true."""
        logits = torch.tensor([[score, (1 - score) / 2, (1 - score) / 2] for score, _ in right]).log()
        return logits, torch.tensor([0 if sure else 1 for _, sure in right])

    def worse(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As often right as they say, but for two sure mistakes that ask the loss for modesty."""
        return self.answers(
            [(0.9, k % 10 > 0) for k in range(60)] + [(0.6, k % 5 > 1) for k in range(40)] + [(0.999, False)] * 2
        )

    def test_one_that_makes_it_worse_is_not_used(self) -> None:
        found = calibrate(*self.worse())
        assert found.fitted is not None and found.fitted > 1.1
        assert found.after["ece"] > found.before["ece"] and found.after["loss"] < found.before["loss"]  # type: ignore[operator]
        assert found.temperature == 1.0 and found.used == found.before == judge(*self.worse())

    def test_one_that_makes_it_better_is_used(self) -> None:
        logits, rows = self.answers([(0.9, k % 10 > 0) for k in range(60)] + [(0.6, k % 5 > 1) for k in range(40)])
        for scale in (0.4, 3.0):
            found = calibrate(scale * logits, rows)
            assert found.temperature == found.fitted == fit_temperature((scale * logits).numpy(), rows.numpy())
            assert found.used == found.after == judge(scale * logits, rows, found.temperature)
            assert found.after["ece"] < found.before["ece"]  # type: ignore[operator]

    def test_a_run_says_so(
        self, convnext: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
    ) -> None:
        data, target = split(tmp_path / "data", 8, 5, 5), tmp_path / "run"

        def unlucky(found: torch.Tensor, rows: torch.Tensor) -> FittedTemperature:
            real = calibrate(found, rows)
            after = judge(found, rows, 5.0) | {"ece": 0.9}
            return FittedTemperature(1.0, 5.0, real.before, after)

        monkeypatch.setattr(finish, "calibrate", unlucky)
        done = convnext(*TRAIN, data, "-o", target, "--from", model, "--freeze")
        assert done.status == 0, done.err
        results, card = facts(target)["results"], checkpoints.read_card(target)
        before = results["val_ece_before"]
        assert (
            f"the temperature stays 1: 5.000, which has the least loss on val, would raise the ECE there from "
            f"{before:.3f} to 0.900" in done.err
        )
        assert card.temperature == results["temperature"] == 1.0 and results["val"]["ece"] == before
        assert (results["temperature_fitted"], results["val_ece_fitted"]) == (5.0, 0.9)
        assert card.metrics["val ece with fitted temperature"] == 0.9
        assert card.metrics["val ece without temperature"] == card.metrics["val ece"] == pytest.approx(before, abs=1e-4)
        shown = json.loads(convnext(*EVALUATE, data, "-m", target, "--split", "val", "--json").out)
        assert shown["temperature"] == 1.0 and shown["calibration"]["ece"] == pytest.approx(before, abs=1e-5)


class TestPenalties:
    """The search goes on past the end of the list that the best penalty stands at."""

    @staticmethod
    def tried(best: float) -> list[int]:
        def fit(penalty: float) -> classifier_head.Fit:
            return classifier_head.Fit(penalty, torch.empty(0), torch.empty(0), abs(np.log10(penalty) - best), 0.5)

        return [round(np.log10(each.penalty)) for each in classifier_head.search(fit)]

    @pytest.mark.parametrize(
        ("best", "more"),
        [
            *((-3, []), (-5, []), (-2, []), (-1, [0]), (1, [0, 1, 2]), (9, [0, 1, 2, 3])),
            *((-6, [-7]), (-7, [-7, -8]), (-30, [-7, -8, -9])),
        ],
    )
    def test_until_the_best_has_neighbours(self, best: float, more: list[int]) -> None:
        assert self.tried(best) == [-1, -2, -3, -4, -5, -6, *more]

    def test_a_run_says_which_was_chosen(self, convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
        target = tmp_path / "run"
        done = convnext(*TRAIN, folders, "-o", target, "--from", model, "--freeze")
        lines = evaluations(target)
        best = max(lines, key=lambda line: (line["val_top1"], -line["val_loss"]))
        assert facts(target)["results"]["penalty"] == best["penalty"]
        assert f"solved with a penalty of {best['penalty']:g}, at 32 pixels" in done.err
        inside = min(line["penalty"] for line in lines) < best["penalty"] < max(line["penalty"] for line in lines)
        assert inside or best["penalty"] in (10.0**classifier_head.WEAKEST, 10.0**classifier_head.STRONGEST)


def test_no_number_that_json_lacks(convnext: Run, model: Path, tmp_path: Path, undrawn: None) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    data, target = place(tmp_path / "data", 6), tmp_path / "run"
    done = convnext(
        *TRAIN, data, "-o", target, "--from", model, "--epochs", "2", "-b", "4", "--test", "0", *sets("clip=0")
    )
    assert done.status == 0, done.err
    json.loads((target / "run.json").read_text(), parse_constant=refuse)
    for line in (target / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
