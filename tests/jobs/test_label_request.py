"""``label`` from Python: the request, the result, and the listener."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import pytest

from convnext_cli import (
    ClusterOptions,
    KeywordsRequest,
    LabelListener,
    LabelRequest,
    LabelResult,
    PhotoSelection,
    PredictorOptions,
    SortRequest,
    label,
)
from convnext_cli.base.errors import ConvNextError, UsageError
from convnext_cli.jobs.actions.request import SortResult
from convnext_cli.jobs.cluster.label import NodeOpener
from convnext_cli.photos.find import Photo
from tests.helpers.command import Run
from tests.helpers.photos import encoded, picture
from tests.helpers.weights import write_model


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a model, and with three photos and a broken one in a folder."""
    (tmp_path / "photos" / "below").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.jpg", "below/c.jpg")):
        (tmp_path / "photos" / name).write_bytes(encoded(picture(50, 60, seed=number), "JPEG"))
    (tmp_path / "photos" / "broken.jpg").touch()
    write_model(tmp_path / "small.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(**values: Any) -> LabelRequest:
    photos = PhotoSelection(paths=("photos",), recursive=True)
    predictor = PredictorOptions.of(model="small.safetensors", threads=1)
    return LabelRequest(**{"photos": photos, "predictor": predictor, "output": "labels.csv", **values})


class Heard(LabelListener):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def round_ended(self, result: LabelResult) -> None:
        self.events.append(result)

    def labelled(self, row: Any) -> None:
        self.events.append(row.path)

    def photos_sorted(self, result: SortResult) -> None:
        self.events.append(result)


def test_its_output_is_the_commands_and_is_resumed(convnext: Run, place: Path) -> None:
    heard = Heard()
    result = label(request(), listener=heard)
    paths = ["photos/a.jpg", "photos/b.jpg", "photos/below/c.jpg", "photos/broken.jpg"]
    assert heard.events == [*paths, result]
    assert (result.output, result.rows, result.photos, result.done) == ("labels.csv", 4, 4, 4)
    assert result.statuses == {"failed": 1, "ok": 3} and result.failures == {"empty": 1}
    assert [path for path, _, _ in result.first_failures] == ["photos/broken.jpg"]
    assert sum(result.labels.values()) == 3 and not result.is_complete and result.limits

    options = ("-m", "small.safetensors", "-t", "1")
    assert convnext("label", "photos", "-o", "command.csv", *options).status == 1
    assert Path("labels.csv").read_bytes() == Path("command.csv").read_bytes()

    Path("photos/d.jpg").write_bytes(Path("photos/a.jpg").read_bytes())
    again = label(request())
    assert (again.photos, again.done, again.rows) == (5, 1, 5)
    done = convnext("label", "photos", "-o", "labels.csv", *options)
    assert "nothing new among 5 photos" in done.err


def test_an_output_has_a_default_name(place: Path) -> None:
    result = label(request(output=None, format="jsonl"))
    assert result.output == "photos-labels.jsonl" and Path(result.output).exists()


def test_a_changed_output_is_written_again(place: Path) -> None:
    label(request())
    before = Path("labels.csv").read_bytes()
    Path("labels.csv").write_text("changed")
    with pytest.raises(UsageError, match="has changed"):
        label(request())
    result = label(LabelRequest(output="labels.csv", rewrite=True))
    assert (result.rows, Path("labels.csv").read_bytes()) == (4, before)


def test_other_settings_are_a_question(place: Path) -> None:
    class Keeping(LabelListener):
        def keeps(self, differences: str) -> bool:
            assert "recipe" in differences
            return True

    other = PredictorOptions.of(model="small.safetensors", threads=1, crop_pct=0.5)
    label(request())
    with pytest.raises(UsageError, match="other settings"):
        label(request(predictor=other))
    assert label(request(predictor=other), listener=Keeping()).done == 0
    assert label(request(predictor=other, relabel=True)).done == 4


def test_strict_stops_and_keeps_what_is_done(place: Path) -> None:
    with pytest.raises(ConvNextError, match=r"stopped at photos/broken.jpg: empty") as stopped:
        label(request(strict=True))
    assert stopped.value.exit_status == 1
    with open("labels.csv", newline="") as file:  # noqa: PTH123
        assert [row["status"] for row in csv.DictReader(file)].count("ok") == 3


def test_photos_are_sorted(place: Path) -> None:
    heard = Heard()
    result = label(request(sort=SortRequest(into="sorted"), report="page.html"), listener=heard)
    done = heard.events[-1]
    assert isinstance(done, SortResult) and done.placed == 3 and done.log == Path.cwd() / "sorted.log"
    assert result.unfinished == 0 and len(list(Path("sorted").rglob("*.jpg"))) == 3 and Path("page.html").exists()


def test_the_demonstration_changes_nothing_without_a_yes(place: Path) -> None:
    with pytest.raises(UsageError, match="would copy photos into folders below sorted"):
        label(request(predictor=PredictorOptions(), sort=SortRequest(into="sorted")))
    assert not Path("labels.csv").exists() and not Path("sorted").exists()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sort": SortRequest(into="s", mode="move"), "keywords": KeywordsRequest(place="embed"), "yes": True},
        {"cluster": ClusterOptions(address="ray://host:10001", pull=True), "output": "labels"},
        {"photos": PhotoSelection(paths=("a", "s3://bucket/b"), files_from="list", include=("*.jpg",), depth=2)},
    ],
)
def test_a_request_survives_pickle(values: dict[str, Any]) -> None:
    asked = request(**values)
    assert pickle.loads(pickle.dumps(asked)) == asked


def test_a_node_opens_what_was_asked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = PredictorOptions.of(model="small.safetensors", k=2, engine="torch", workers=1)
    opener = pickle.loads(pickle.dumps(NodeOpener(options, str(place))))
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    predictor = opener(1)
    try:
        assert (predictor.k, predictor.threads, predictor.engine.name) == (2, 1, "torch")
        (row,) = predictor.rows([Photo("photos/a.jpg")])
        assert len(row.predictions) == 2
    finally:
        predictor.engine.close()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"overwrite": True, "rewrite": True}, "exclude each other"),
        ({"overwrite": True, "mix": True}, "--mix keeps"),
        ({"overwrite": True, "relabel": True}, "labels everything again"),
        ({"relabel": True, "mix": True}, "exclude each other"),
        ({"photos": PhotoSelection()}, "no photos"),
        ({"photos": PhotoSelection(), "rewrite": True, "strict": True}, "predictor and strict"),
        ({"photos": PhotoSelection(paths=("-",))}, "standard input"),
        ({"format": "xml"}, "format must be one of"),
        ({"yes": True}, "--yes is for"),
        ({"sort": SortRequest(into="s", dry_run=True), "keywords": KeywordsRequest(place="embed")}, "--dry-run"),
        ({"sort": SortRequest(into="s", dry_run=True), "yes": True}, "leave --yes out|asks nothing"),
    ],
)
def test_what_cannot_take_effect_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        request(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"watch": True, "photos": PhotoSelection(paths=("photos/a.jpg",))}, "--watch needs a folder"),
        ({"photos": PhotoSelection(paths=("photos/a.jpg",), depth=1)}, "--depth only applies to folders"),
        ({"photos": PhotoSelection(files_from="nowhere")}, "'nowhere' cannot be read"),
        ({"sort": SortRequest(into="photos/a.jpg")}, "not a folder"),
        ({"report": "s3://bucket/page.html"}, "is a URL"),
        ({"sort": SortRequest(into="s3://bucket/sorted")}, "is a URL"),
        ({"output": "-"}, "needs a file"),
        ({"output": "photos/a.jpg"}, "is an image"),
        ({"cluster": ClusterOptions(), "strict": True}, "--strict cannot be combined with --cluster"),
        ({"cluster": ClusterOptions(), "nice": 0}, "--nice cannot be combined with --cluster"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_model_is_opened(
    place: Path, values: dict[str, Any], message: str
) -> None:
    (place / "small.safetensors").unlink()
    with pytest.raises(UsageError, match=message):
        label(request(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"paths": "photos"}, "must be a tuple"),
        ({"paths": ("a",), "null": True}, "-0 only applies to --files-from"),
        ({"paths": ("-",), "files_from": "-"}, "not both"),
        ({"paths": ("https://host/a.jpg",), "offline": True}, "not on this machine"),
    ],
)
def test_a_selection_that_contradicts_itself_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PhotoSelection(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"place": "beside"}, "place must be one of"),
        ({"place": "embed", "naming": "append"}, "--xmp-naming is for"),
        ({"place": "sidecar", "remove": True, "tree": False}, "--xmp-remove writes no"),
        ({"place": "sidecar", "root": ""}, "root"),
    ],
)
def test_keywords_that_cannot_be_written_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KeywordsRequest(**values)


def test_paths_of_a_list_are_walked(place: Path) -> None:
    Path("list").write_text("photos/a.jpg\nphotos/below\n")
    selection = PhotoSelection(files_from="list", recursive=True)
    photos = [photo.path for photo in selection.photos(selection.finder(shards="kept"))]
    assert photos == ["photos/a.jpg", "photos/below/c.jpg"]
    assert selection.read_list() == b"photos/a.jpg\nphotos/below\n" and selection
    assert not PhotoSelection()
