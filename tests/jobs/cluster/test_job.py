"""The job of a cluster without the cluster: the same stages, run here, in an order that no one promised."""

from __future__ import annotations

import os
import pickle
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from convnext_cli.base.errors import ModelError, NetworkError, OutputError, UsageError
from convnext_cli.jobs.cluster import connect, stages
from convnext_cli.jobs.cluster.block import Block, cut
from convnext_cli.jobs.cluster.parts import MANIFEST, Parts
from convnext_cli.jobs.cluster.resources import Shape, shape_of
from convnext_cli.jobs.cluster.run import ClusterJob, cause_of
from convnext_cli.jobs.cluster.source import Source
from convnext_cli.jobs.photo_state import Found
from convnext_cli.jobs.view import View
from convnext_cli.photos.find import Finder
from convnext_cli.photos.photo import Photo, Shard
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from tests.helpers.colour_classifier import blended, write_classifier
from tests.helpers.command import Run
from tests.helpers.containers import parquet_of, tar_of
from tests.helpers.photos import encoded, picture
from tests.helpers.training import place
from tests.helpers.weights import write_model

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ray_errors = pytest.importorskip("ray.exceptions")

PHOTO = [encoded(picture(50, 40, seed=seed), "JPEG") for seed in range(4)]


def opener(model: str, threads: int | None, **options: Any) -> Any:
    return open_predictor(PredictorOptions.of(model=model, engine="torch", threads=threads, **options))


class Here(ClusterJob):
    """Runs the stages in this process, units in any order. broken: what ends a round after a few tables."""

    broken: Exception | None = None

    def _tables(self, parts: list[stages.Unit]) -> Iterator[Any]:
        decode = pickle.loads(pickle.dumps(stages.Decode(self.preprocessor, self.source.finder, self.folder)))
        answer = stages.Answer(self.opener, self.shape().threads, self.described)
        tables = []
        for unit in parts:
            units = pa.table({"unit": [pickle.dumps(unit)]})
            tables += [answer(pickle.loads(pickle.dumps(table))) for table in decode(units)]
        order = sorted(range(len(tables)), key=lambda n: n + random.Random(n).uniform(-6, 6))
        for number, table in enumerate(tables[n] for n in order):
            if self.broken is not None and number == len(tables) // 2:
                raise self.broken
            yield table


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 photos, some of them bad, in three folders and two shards; paths begin above them."""
    folder = tmp_path / "photos"
    for number in range(60):
        path = folder / "abc"[number % 3] / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTO[number % 4] if number % 10 else PHOTO[0][: number * 5])
    (folder / "a" / os.fsdecode(b"not\xffutf8.jpg")).write_bytes(PHOTO[1])
    (folder / "b" / "s.tar").write_bytes(tar_of({f"{n}.jpg": PHOTO[n % 4] for n in range(9)} | {"x.txt": b"no"}))
    (folder / "s.parquet").write_bytes(parquet_of({f"{n}.jpg": PHOTO[n % 4] for n in range(5)}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "PHOTOS", 5)
    monkeypatch.setattr(stages, "HANDED_ON", 2)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "small.safetensors"))


def job_of(model: str, paths: list[str] | None = None, kind: type[ClusterJob] = Here, **values: Any) -> ClusterJob:
    finder = Finder(recursive=True, shards="kept", **values.pop("finder", {}))
    options = values.pop("options", {})
    predictor = opener(model, 1, **options)
    paths = paths or ["photos"]
    return kind(
        Source(finder, tuple(paths)),
        target=values.pop("target", "out"),
        shape=lambda: Shape(1, 1, 0, 0.5, 0.5),
        opener=partial(opener, model, **options),
        described=stages.described(predictor),
        view=View.of(predictor),
        preprocessor=replace(predictor.preprocessor, workers=1),
        folder=str(Path.cwd()),
        block=values.pop("block", 8),
        **values,
    )


def rows(target: str = "out") -> dict[str, dict[str, Any]]:
    """By path; each once. Scores are rounded: their last digits go by what else was in a batch."""
    found = pq.read_table(target).to_pylist()
    by_path = {row["path"]: row for row in found}
    assert len(by_path) == len(found)
    for guess in (guess for row in found for guess in row["predictions"]):
        guess["score"] = round(guess["score"], 5)
    return by_path


def parts(target: str = "out") -> dict[str, int]:
    """Files by name, with what tells that they were not written again."""
    return {path.name: path.stat().st_mtime_ns for path in Path(target).glob("*.parquet")}


def test_rows_are_those_of_one_machine(convnext: Run, photos: Path, model: str) -> None:
    manifest = job_of(model).run()
    assert convnext("label", "photos", "-o", "one.parquet", "-m", model, "-e", "torch", "-t", "1").status == 1
    one = pq.read_table("one.parquet")
    assert pq.read_table("out").schema.equals(one.schema)
    assert rows() == rows("one.parquet")
    assert len(rows()) == manifest["rows"] == 75 and manifest["statuses"] == {"failed": 6, "ok": 69}
    assert manifest["failures"] == {"empty": 1, "truncated": 5} or sum(manifest["failures"].values()) == 6
    assert {part["name"] for part in manifest["parts"]} == set(parts()) and len(parts()) > 4


def test_what_lies_in_shards_is_passed_over_as_on_one_machine(convnext: Run, photos: Path, model: str) -> None:
    (photos / "c" / "t.tar").write_bytes(tar_of({"1.jpg": PHOTO[0], "1.json": b"{}", "2.json": b"{}"}))
    (photos / "notes.txt").write_text("no photo")
    job = job_of(model)
    job.run()
    assert job.source.finder.passed_over == {".txt": 2, ".json": 2}
    told = convnext("label", "photos", "-o", "one.parquet", "-m", model, "-e", "torch", "-t", "1").err
    assert "skipped 4 files (2 .txt, 2 .json)" in told or "(2 .json, 2 .txt)" in told


@pytest.mark.parametrize("target", ["photos/labels", "photos/a/../labels/"])
def test_a_target_in_its_source_is_not_read(photos: Path, model: str, target: str) -> None:
    job_of(model, target=target).run()
    before = parts(target)
    again = job_of(model, target=target)
    assert (again.run()["rows"], again.progress.done, parts(target)) == (75, 0, before)


def test_the_same_again_writes_nothing(photos: Path, model: str) -> None:
    job_of(model).run()
    before = parts()
    again = job_of(model)
    assert again.run()["rows"] == 75
    assert parts() == before and again.progress.done == 0 and again.progress.parts == len(before)


def test_what_changed_is_done_again_and_little_else(photos: Path, model: str) -> None:
    job_of(model).run()
    before, first = parts(), rows()
    (photos / "b" / "04.jpg").write_bytes(PHOTO[3])  # another photo than it was
    (photos / "a" / "new.jpg").write_bytes(PHOTO[2])
    (photos / "c" / "05.jpg").unlink()
    again = job_of(model)
    assert again.run()["statuses"] == {"failed": 6, "ok": 69, "vanished": 1}
    now = rows()
    assert now.keys() - first.keys() == {"photos/a/new.jpg"} and first.keys() <= now.keys()
    assert now["photos/c/05.jpg"] == first["photos/c/05.jpg"] | {"status": "vanished"}
    assert now["photos/b/04.jpg"] != first["photos/b/04.jpg"]
    assert len(before.keys() & parts().keys()) >= len(before) - 5 and again.progress.done < 60
    # the next run keeps the row of what is gone, and gives it up when the photo comes back
    kept = parts()
    assert job_of(model).run()["statuses"]["vanished"] == 1 and parts() == kept
    (photos / "c" / "05.jpg").write_bytes(PHOTO[1])
    assert "vanished" not in job_of(model).run()["statuses"]
    assert rows()["photos/c/05.jpg"]["status"] == "ok"


def test_a_shard_that_lost_photos_keeps_their_rows(photos: Path, model: str) -> None:
    job_of(model).run()
    whole = (photos / "b" / "s.tar").read_bytes()
    (photos / "b" / "s.tar").write_bytes(tar_of({f"{n}.jpg": PHOTO[n % 4] for n in range(7)}))
    assert job_of(model).run()["statuses"]["vanished"] == 2
    (photos / "b" / "s.tar").write_bytes(whole[: len(whole) // 2])  # cut: what was in it may be there still
    job_of(model).run()
    now = rows()
    assert now["photos/b/s.tar"]["error"]["kind"] == "corrupt"
    assert all(now[f"photos/b/s.tar/{n}.jpg"]["status"] == "ok" for n in range(7))


def test_rows_stay_where_this_run_does_not_look(photos: Path, model: str) -> None:
    """Photos that it leaves out by name, and those of a folder that cannot be listed."""
    job_of(model).run()
    first = rows()
    job_of(model, finder={"exclude": ("1*.jpg",)}).run()
    assert rows() == first
    job_of(model, finder={"exclude": ("*.tar",)}).run()
    assert rows() == first
    (photos / "b" / "s.tar").unlink()
    assert job_of(model, finder={"exclude": ("*.tar",)}).run()["statuses"]["vanished"] == 9


def test_what_failed_is_tried_again_when_asked(photos: Path, model: str) -> None:
    job_of(model).run()
    again = job_of(model, retry_failed=True)
    again.run()
    assert 6 <= again.progress.done < 75 and again.progress.failed == 6


def test_thresholds_and_names_need_no_network(photos: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job_of(model).run()
    (photos / "c" / "05.jpg").unlink()
    job_of(model).run()  # one row is of a photo that is gone
    first = rows()
    names = [f"name {number}" for number in range(len(opener(model, 1).labels))]
    Path("names.txt").write_text("\n".join(names))
    best = [row["predictions"][0] for row in first.values() if row["predictions"]]
    floor = (min(guess["score"] for guess in best) + max(guess["score"] for guess in best)) / 2
    floors = {names[guess["index"]]: floor for guess in best}
    monkeypatch.setattr(Here, "_tables", lambda self, parts: pytest.fail("the network was asked"))
    options = {"labels": "names.txt", "min_score": 0.0, "floors": floors}
    manifest = job_of(model, options=options).run()
    now = rows()
    assert now.keys() == first.keys() and manifest["statuses"]["vanished"] == 1
    for path, row in now.items():
        before = first[path]["predictions"]
        assert row["predictions"] == [guess | {"label": names[guess["index"]], "id": None} for guess in before]
        if first[path]["status"] == "ok":
            assert row["status"] == ("ok" if before[0]["score"] >= floor else "unknown")
        else:
            assert row["status"] == first[path]["status"]
    assert {row["status"] for row in now.values()} == {"ok", "unknown", "failed", "vanished"}
    kept = parts()
    job_of(model, options=options).run()
    assert parts() == kept
    job_of(model).run()  # nothing was lost
    assert rows() == first


def test_derived_rows_are_those_that_the_network_would_give(photos: Path, model: str) -> None:
    options = {"min_score": 0.25, "scores": "logits"}
    job_of(model, options={"scores": "logits"}).run()
    job_of(model, options=options).run()
    job_of(model, options=options, target="fresh").run()
    assert rows() == rows("fresh")
    assert parts().keys() == parts("fresh").keys()


def test_a_run_that_was_cut_while_it_derived_goes_on(photos: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job_of(model).run()
    first = rows()
    job = job_of(model, options={"min_score": 0.9})
    write, left = Parts.write, iter(range(2))

    def cut_off(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", cut_off)
        with pytest.raises(KeyboardInterrupt):
            job.run()
    again = job_of(model, options={"min_score": 0.9})
    again.run()
    assert again.progress.done == 0
    assert rows().keys() == first.keys()
    assert {row["status"] for row in rows().values()} <= {"ok", "unknown", "failed"}


@pytest.mark.parametrize(
    ("first", "then"),
    [({"k": 3}, {"k": 2}), ({"k": 0}, {"k": 2, "classes": "class_1,class_2"}), ({"k": 0}, {"k": 1, "min_score": 0.3})],
)
def test_fewer_guesses_and_classes_need_no_network(
    photos: Path, model: str, first: dict[str, Any], then: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_of(model, options=then, target="fresh").run()
    job_of(model, options=first).run()
    monkeypatch.setattr(Here, "_tables", lambda self, parts: pytest.fail("the network was asked"))
    job_of(model, options=then).run()
    assert rows() == rows("fresh") and parts().keys() == parts("fresh").keys()
    with pytest.raises(UsageError, match="labelled with other settings"):  # the other guesses are gone
        job_of(model, options=first).run()


def test_rows_that_a_part_does_not_hold_are_not_derived(photos: Path, model: str) -> None:
    job_of(model, options={"k": 3}).run()
    before = parts()
    for options, words, hint in (
        ({"k": 4}, r"guesses \(-k\) 3 → 4", "label them again with --relabel"),
        (
            {"k": 3, "classes": "class_1,class_2"},
            "--classes needs the scores of all",
            "label them again with --relabel",
        ),
        ({"k": 3, "scores": "logits"}, "scores softmax → logits", "label them again with --relabel"),
    ):
        with pytest.raises(UsageError, match=words) as refusal:
            job_of(model, options=options).run()
        assert str(refusal.value.hint).startswith(hint)
        assert parts() == before and (Path("out") / MANIFEST).exists()


def test_other_settings_want_a_word(photos: Path, model: str) -> None:
    job_of(model).run()
    with pytest.raises(UsageError, match="labelled with other settings: scores") as told:
        job_of(model, options={"scores": "logits"}).run()
    assert "--relabel" in str(told.value.hint)
    assert (Path("out") / MANIFEST).exists()  # nothing was touched
    job_of(model, options={"k": 2}, relabel=True).run()
    assert {len(row["predictions"]) for row in rows().values()} == {0, 2} and len(rows()) == 75


def test_a_folder_of_something_else_is_left_alone(photos: Path, model: str) -> None:
    job_of(model).run()
    with pytest.raises(UsageError, match="holds the labels of photos"):
        job_of(model, ["photos/a"]).run()
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"mine holds letter.txt"):
        job_of(model, target="mine").run()
    Path("file").write_text("")
    with pytest.raises(OutputError, match="file/out cannot be listed"):
        job_of(model, target="file/out").run()
    with pytest.raises(OutputError, match="there is no folder"):
        job_of(model, target="nowhere/out").run()
    if os.access("/proc", os.W_OK):
        return
    with pytest.raises(OutputError, match="nothing can be written to /proc"):
        job_of(model, target="/proc/out").run()


def test_a_refusal_removes_nothing(photos: Path, model: str) -> None:
    job_of(model).run()
    before = parts()
    Path("out/letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"out holds letter.txt"):
        job_of(model, overwrite=True).run()
    assert parts() == before and Path("out", MANIFEST).exists()


def test_overwrite_keeps_what_is_there_until_all_is_done_again(photos: Path, model: str, tmp_path: Path) -> None:
    job_of(model).run()
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    (photos / "a" / "00.jpg").unlink()
    other = write_model(tmp_path / "other.safetensors", seed=3)
    job = job_of(str(other), overwrite=True)
    job.broken = ModelError("the model is gone")
    with pytest.raises(ModelError):
        job.run()
    after = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert {name: after.get(name) for name in before} == before
    done = job_of(str(other), overwrite=True).run()
    assert "vanished" not in done["statuses"]  # nothing of the earlier result is left
    assert not before.keys() & {path.name for path in Path("out").glob("*.parquet")}
    assert len(rows()) == done["rows"] == 74


def test_a_cut_end_leaves_no_photo_twice(photos: Path, model: str) -> None:
    job_of(model).run()
    old = {path.name: path.read_bytes() for path in Path("out").glob("*.parquet")}
    (photos / "c" / "05.jpg").unlink()
    job_of(model).run()
    Path("out", MANIFEST).unlink()
    for name, data in old.items():  # killed after the row of what is gone was written, before these were removed
        Path("out", name).write_bytes(data)
    assert job_of(model).run()["statuses"]["vanished"] == 1
    assert rows()["photos/c/05.jpg"]["status"] == "vanished"


def test_a_slash_at_the_end_names_the_same_photos(photos: Path, model: str) -> None:
    job_of(model).run()
    before = parts()
    job_of(model, ["photos/"]).run()
    assert parts() == before and len(rows()) == 75


def test_a_pattern_that_finds_a_photo_twice(photos: Path, model: str) -> None:
    (photos / "a" / "deep").mkdir()
    (photos / "a" / "deep" / "1.jpg").write_bytes(PHOTO[1])
    job_of(model, ["photos/a/**"]).run()
    assert "photos/a/deep/1.jpg" in rows()


def test_a_photo_that_is_named_twice_has_one_row(photos: Path, model: str) -> None:
    manifest = job_of(model, ["photos/a", "photos", "photos/a/00.jpg"]).run()
    assert manifest["rows"] == len(rows()) == 75


class Dying(Here):
    """Half of each round is lost with a node, three times."""

    rounds = 0

    def _tables(self, parts: list[stages.Unit]) -> Iterator[Any]:
        self.rounds += 1
        self.broken = ray_errors.ObjectLostError("0" * 56, None, "") if self.rounds < 4 else None
        return super()._tables(parts)


class Dead(Here):
    def _tables(self, parts: list[stages.Unit]) -> Iterator[Any]:
        raise ray_errors.RaySystemError("no node is left")
        yield


def test_what_a_node_took_along_is_done_again(photos: Path, model: str) -> None:
    lost = job_of(model, kind=Dying)
    assert lost.run()["rows"] == len(rows()) == 75
    assert lost.rounds > 1


def test_a_cluster_that_does_nothing_is_given_up(photos: Path, model: str) -> None:
    with pytest.raises(NetworkError, match=r"fails again and again: .*no node is left"):
        job_of(model, kind=Dead).run()
    assert not (Path("out") / MANIFEST).exists()


def test_what_a_user_can_mend_is_said_in_our_words() -> None:
    mine = ModelError("the weights differ", "copy them")
    assert cause_of(ray_errors.RayTaskError("f", "trace", mine).as_instanceof_cause()) is not None
    assert cause_of(ray_errors.RaySystemError("x")) is None


def test_a_run_that_was_cut_leaves_whole_files_alone(photos: Path, model: str) -> None:
    """Half written files of a killed run go, and no manifest says that all is done until it is."""
    cut_off = job_of(model)
    cut_off.tell = lambda progress: (_ for _ in ()).throw(KeyboardInterrupt) if progress.done > 20 else None
    with pytest.raises(KeyboardInterrupt):
        cut_off.run()
    assert not (Path("out") / MANIFEST).exists()
    done = parts()
    assert done
    (Path("out") / ".convnext-1-aaaa.part").write_bytes(b"half")
    again = job_of(model)
    assert again.run()["rows"] == 75
    assert done.items() <= parts().items() and not list(Path("out").glob(".*"))


def test_a_damaged_part_is_named(photos: Path, model: str) -> None:
    job_of(model).run()
    name = sorted(parts())[0]
    (Path("out") / name).write_bytes(b"nothing")
    with pytest.raises(OutputError, match=f"{name} cannot be read"):
        job_of(model).run()


def test_nodes_with_other_weights_are_refused(photos: Path, model: str, tmp_path: Path) -> None:
    job = job_of(model)
    write_model(tmp_path / "small.safetensors", seed=1)
    with pytest.raises(ModelError, match="would label with other settings: weights"):
        job.run()


# blocks


def found(names: list[str]) -> list[Found]:
    return [Found(Photo(f"/p/{name}"), 5, 7) for name in names]


def test_cuts_move_little() -> None:
    names = [f"{n:05d}.jpg" for n in range(20_000)]
    before = {block.name for block in cut(found(names), 100)}
    sizes = [len(block.photos) for block in cut(found(names), 100)]
    assert sum(sizes) == 20_000 and max(sizes) <= 200 and min(sizes[:-1]) >= 50 and 80 < 20_000 / len(sizes) < 125
    for at in (0, 7000, 19_999):
        changed = {block.name for block in cut(found([*names[:at], "new.jpg", *names[at:]]), 100)}
        assert len(changed - before) <= 4


def test_a_shard_is_a_block_of_its_own() -> None:
    some = found(["a.jpg", "b.jpg"])
    shard = Found(Photo("/p/c.tar", shard=Shard.FOUND), 5, 7)
    blocks = list(cut([*some, shard, *found(["d.jpg"])], 100))
    assert [len(block.photos) for block in blocks] == [2, 1, 1]
    low, high = blocks[1].reach
    assert low < Found(Photo("/p/c.tar/x.jpg"), None, None).key < high


@pytest.mark.parametrize("changed", [(6, 7, None), (5, 8, None), (5, 7, "x")])
def test_a_block_is_called_by_the_state_of_its_photos(changed: tuple[int, int, str | None]) -> None:
    photo = Photo("/p/a.jpg")
    assert Block((Found(photo, 5, 7),)).name == Block((Found(Photo("/p/a.jpg"), 5, 7),)).name
    assert Block((Found(photo, 5, 7),)).name != Block((Found(photo, *changed),)).name


# sharing out


def node(cpus: int, gpus: int = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


def test_sharing_out() -> None:
    assert shape_of([node(16), node(8), node(4, alive=False)], gpu=None, threads=None) == Shape(3, 8, 0, 4.0, 1.0)
    assert shape_of([node(1)], gpu=None, threads=None) == Shape(1, 1, 0, 0.5, 0.5)
    assert shape_of([node(16, 2), node(8)], gpu=None, threads=None) == Shape(2, None, 1, 0.0, 1.0)
    assert shape_of([node(16), node(4), node(2)], gpu=None, threads=8) == Shape(3, 8, 0, 4.0, 1.0)
    assert shape_of([node(16, 2), node(8)], gpu=False, threads=4) == Shape(6, 4, 0, 2.0, 1.0)
    for nodes, gpu in (([node(16)], True), ([], None)):
        with pytest.raises(Exception, match="no node of the cluster has"):
            shape_of(nodes, gpu=gpu, threads=None)


def test_addresses() -> None:
    connect.check("auto")
    connect.check("ray://head:10001")
    for wrong in ("head:6379", "", "http://head", "ray://", "ray:///x"):
        with pytest.raises(UsageError, match="not a cluster"):
            connect.check(wrong)
    with pytest.raises(UsageError, match="not a cluster") as told:
        connect.check("http://me:hunter22@head")
    assert "hunter22" not in str(told.value)


def test_answers_are_those_of_one_machine(convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(write_classifier(tmp_path / "colours.safetensors", grouped=True))
    one = ("-m", model, "-e", "torch", "-t", "1")
    assert convnext("calibrate", "-m", model, place(tmp_path / "data", 15), "-e", "torch", "-t", "1").status == 0
    place(tmp_path / "photos", 2, first=30)
    (tmp_path / "photos" / "between.png").write_bytes(blended("blue", "grey", 0.5))
    sure = {"options": {"sure": 0.9, "sets": 0.9}}
    assert job_of(model, **sure).run()["rows"] == 9
    assert convnext("label", "photos", "-o", "one.parquet", *one, "--sure", "0.9", "--sets", "0.9").status == 0
    assert pq.read_table("out").schema.equals(pq.read_table("one.parquet").schema)

    def answers(target: str) -> dict[str, Any]:
        """All but the scores, whose last digits go by what else was in a batch."""
        names = ("status", "set", "coverage")
        return {
            path: [*(row[name] for name in names), row["answer"] | {"score": None}]
            for path, row in rows(target).items()
        }

    def scores(target: str) -> dict[str, float]:
        return {path: row["answer"]["score"] for path, row in rows(target).items()}

    first = answers("out")
    assert first == answers("one.parquet") and first["photos/between.png"][-1]["label"] == "cold"
    assert scores("out") == pytest.approx(scores("one.parquet"), abs=1e-5)
    again = job_of(model, **sure)
    assert again.run()["rows"] == 9 and again.progress.done == 0
    with pytest.raises(UsageError, match=re.escape("precision of answers (--sure) 0.9 → 0.8")):
        job_of(model, options={"sure": 0.8, "sets": 0.9}).run()
    with pytest.raises(UsageError, match=re.escape("precision of answers (--sure) 0.9 → none")):
        job_of(model).run()
    fewer = job_of(model, options={"sure": 0.9, "sets": 0.9, "k": 2})
    fewer.run()
    assert fewer.progress.done == 0 and answers("out") == first
    assert {len(row["predictions"]) for row in rows("out").values()} == {2}
    # rows of photos that are gone have the columns of all others
    (tmp_path / "photos" / "between.png").unlink()
    assert job_of(model, relabel=True).run()["statuses"] == {"ok": 8, "vanished": 1}
    assert all("answer" not in row for row in rows("out").values())
    assert job_of(model, relabel=True, **sure).run()["statuses"]["vanished"] == 1
    assert rows("out")["photos/between.png"]["answer"] is None
    assert answers_of(rows("out")) == {path for path in first if path != "photos/between.png"}


def answers_of(found: dict[str, dict[str, Any]]) -> set[str]:
    """The paths of rows that have an answer."""
    return {path for path, row in found.items() if row["answer"] is not None}
