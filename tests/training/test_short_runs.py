"""benchmarks/short_runs.py, on photos of single colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import short_runs
from tests.helpers.training import COLOURS, tinted

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TRAIN, VAL = 24, 8
LABELS = [(5 * number + number // 4) % 4 for number in range(TRAIN)]


def write_shard(path: Path, numbers: range, labels: list[int]) -> None:
    names = sorted(COLOURS)
    feature = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    images = [{"bytes": tinted(names[labels[i]], number), "path": f"{number}.png"} for i, number in enumerate(numbers)]
    table = pa.table({"image": images, "label": labels})
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "colours"
    folder.mkdir()
    half = TRAIN // 2
    for shard in range(2):
        numbers = range(shard * half, (shard + 1) * half)
        write_shard(folder / f"train-0000{shard}-of-00002.parquet", numbers, LABELS[numbers.start : numbers.stop])
    write_shard(
        folder / "validation-00000-of-00001.parquet", range(TRAIN, TRAIN + VAL), [number % 4 for number in range(VAL)]
    )
    return folder


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """It is right on all photos but the first."""
    logits = 9 * np.eye(4, dtype=np.float16)[LABELS]
    logits[0] = logits[0][::-1]
    np.save(tmp_path / "teacher.npy", logits)
    return tmp_path / "teacher.npy"


def test_rows_are_trained_once_and_go_into_the_table(
    data: Path,
    teacher: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = short_runs.BASE | {"arch": "test_convnext2", "batch_size": 8}
    monkeypatch.setattr(short_runs, "BASE", base)
    out = tmp_path / "out"
    arguments = [str(data), str(teacher), str(out), "--photos", "20", "--epochs", "1", "--dtype", "float32"]
    taught = "teacher: share 0.5, temperature 1"
    short_runs.main([*arguments, "--only", taught])
    assert np.array_equal(np.load(out / "teacher.npy"), np.load(teacher)[:20])
    facts = json.loads((out / "01-0" / "run.json").read_text())
    assert facts["photos"] == {"train": 20, "val": VAL, "test": 0}
    settings = (out / "01-0" / "recipe.toml").read_text()
    assert "distil = 0.5" in settings and "distil_temperature = 1.0" in settings and 'optimiser = "muon"' in settings
    text = capsys.readouterr().out
    assert "The teacher is right on 95.0 % of these photos" in text
    rows = {cells[0]: cells[1:] for line in text.splitlines() if (cells := line.strip("| ").split(" | "))[1:]}
    assert list(rows) == ["run", "---", taught]
    assert rows[taught][0] == f"{100 * facts['results']['val']['top1']:.2f} %"

    def never(*_: Any) -> None:
        raise AssertionError("it was done")

    monkeypatch.setattr(short_runs, "train", never)
    short_runs.main([*arguments, "--only", taught])
    with pytest.raises(SystemExit, match="holds runs with other settings"):
        short_runs.main([*arguments[:-4], "--epochs", "2"])


def test_logits_of_other_photos_are_refused(data: Path, teacher: Path, tmp_path: Path) -> None:
    np.save(teacher, np.load(teacher)[1:])
    with pytest.raises(SystemExit, match="has 23 rows for 24 photos"):
        short_runs.main([str(data), str(teacher), str(tmp_path / "out"), "--photos", "20"])
    with pytest.raises(SystemExit, match="has 24 photos for train, less than 25"):
        short_runs.main([str(data), str(teacher), str(tmp_path / "other"), "--photos", "25"])


def test_every_row_is_a_setting_that_can_take_effect() -> None:
    from convnext_cli.training import setting_effects
    from convnext_cli.training.settings import TrainingSettings

    for changes in short_runs.ROWS.values():
        teacher = {"teacher": "teacher.npy"} if "distil" in changes else {}
        settings = TrainingSettings(**short_runs.BASE | changes | teacher | {"epochs": 1.0})
        setting_effects.check(settings, dict.fromkeys(short_runs.BASE | changes, "recipe.toml"))
