"""``convnext models``, as a user calls it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convnext_cli import zoo
from convnext_cli.labels import LabelSet
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.onnx import graph
from convnext_cli.zoo.recommendation import Candidate, recommended
from tests.helpers import exports
from tests.helpers.command import Run
from tests.helpers.fake_hub import NAME, REPOSITORY, WEIGHTS, Hub
from tests.helpers.paths import SAMPLES
from tests.helpers.weights import SMALL, random_tensors

TEST_MODEL = "test_convnext.r160_in1k"


def weights_of(name: str, path: Path) -> bytes:
    """A file of random weights that fits a known checkpoint, under the official names."""
    import torch
    from safetensors.torch import save_file

    from convnext_cli.model.network import ConvNextForImageClassification

    torch.manual_seed(0)
    known = zoo.find(name)
    assert known is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(ConvNextForImageClassification(known.config).state_dict()), path)
    return path.read_bytes()


def rows(convnext: Run, *arguments: str) -> dict[str, dict[str, object]]:
    done = convnext("models", "list", "--json", *arguments)
    assert done.status == 0, done.err
    return {row["name"]: row for row in json.loads(done.out)}


# list -----------------------------------------------------------------------------------------------------------------


def test_list_shows_every_model_with_its_figures(convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = convnext("models", "list")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["name", "MB", "params", "M", "GMACs", "input", "labels", "top-1", "licence", "where"]
    assert len(lines) == 1 + len(zoo.entries()) + 1, "a header, a line each, and the bundled model"
    tiny = next(line for line in lines if line.startswith(NAME)).split()
    assert tiny == [NAME, "≈114", "28.59", "4.46", "224", "imagenet-1k", "82.07", "apache-2.0", "pull"]
    assert next(line for line in lines if line.startswith("default")).endswith("bundled *")


def test_list_as_json(convnext: Run) -> None:
    tiny = rows(convnext)[NAME]
    assert (tiny["params"], tiny["input"], tiny["labels"], tiny["classes"]) == (
        28589128,
        [224, 224],
        "imagenet-1k",
        1000,
    )
    assert (tiny["top1"], tiny["where"], tiny["path"], tiny["default"]) == (82.066, "pull", None, False)


@pytest.mark.parametrize(
    ("arguments", "has", "has_not"),
    [
        (["tiny"], NAME, "convnext_base.fb_in1k"),
        (["convnextv2_*"], "convnextv2_huge.fcmae", NAME),
        (["FACEBOOK/convnext-tiny-224"], NAME, "convnext_base.fb_in1k"),
        (["--task", "embedding"], "convnext_base.clip_laion2b", NAME),
        (["--labels", "imagenet-22k"], "convnext_tiny.fb_in22k", NAME),
        (["--labels", "tiny-imagenet-200"], "default", NAME),
        (["--max-params", "10"], "convnext_atto.d2_in1k", NAME),
        (["--max-gmacs", "4.5"], NAME, "convnext_base.fb_in1k"),
        (["--commercial"], NAME, "convnextv2_atto.fcmae"),
        (["--local"], "default", NAME),
    ],
)
def test_filters(arguments: list[str], has: str, has_not: str, convnext: Run) -> None:
    found = rows(convnext, *arguments)
    assert has in found
    assert has_not not in found


def test_the_best_first(convnext: Run) -> None:
    found = list(rows(convnext, "--sort", "top1"))
    assert found[0] == "convnextv2_huge.fcmae_ft_in22k_in1k_512"
    params = [row["params"] for row in rows(convnext, "--sort", "params").values()]
    assert params == sorted(params)  # type: ignore[type-var]


def test_columns_go_before_a_name_is_cut(convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = convnext("models", "list")
    lines = done.out.splitlines()
    assert {line.split()[0] for line in lines[1:]} == {"default", *(known.name for known in zoo.entries())}
    assert len(lines) == 2 + len(zoo.entries()), "one line each"
    assert lines[0].split() == ["name", "MB", "top-1", "where"]
    assert max(map(len, lines)) <= 80
    assert "wider screen, or --json, also shows: params M, GMACs, licence" in done.err


def test_a_screen_without_room_for_a_row_shows_two_lines_a_model(
    convnext: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = convnext("models", "list", "soup_ft_in12k_in1k_384").out.splitlines()
    assert lines == ["convnext_large_mlp.clip_laion2b_soup_ft_in12k_in1k_384", "  ≈801 MB · 88.33 top-1 · pull"]


def test_the_size_of_a_download_is_estimated_and_that_of_a_file_is_its_own(convnext: Run, home: Path) -> None:
    found = rows(convnext)
    tiny, bundled = found[NAME], found["default"]
    assert (tiny["size"], tiny["size_is_estimate"]) == (28589128 * 4, True)
    assert (bundled["size"], bundled["size_is_estimate"]) == (Path(str(bundled["path"])).stat().st_size, False)
    weights_of("convnext_atto.d2_in1k", home / "weights" / "own.safetensors")
    own = rows(convnext)["own"]
    assert (own["size"], own["size_is_estimate"]) == ((home / "weights" / "own.safetensors").stat().st_size, False)
    assert json.loads(convnext("models", "info", NAME, "--json").out)["size"] == tiny["size"]


def test_the_smallest_first(convnext: Run) -> None:
    sizes = [row["size"] for row in rows(convnext, "--sort", "size").values()]
    assert sizes == sorted(sizes)  # type: ignore[type-var]


def recommendations(convnext: Run, *arguments: str) -> dict[str, str]:
    """The lines below the list that recommend a model, by what they say that it is."""
    lines = convnext("models", "list", *arguments).err.splitlines()
    return dict(line.removeprefix("+ ").split(": ") for line in lines if line.startswith("+ "))


def test_two_models_are_recommended_by_their_figures(convnext: Run) -> None:
    lines, everything = recommendations(convnext), rows(convnext)
    assert list(lines) == ["small", "accurate"]
    marked = {row["recommended"]: name for name, row in everything.items() if row["recommended"]}
    for kind, line in lines.items():
        name = line.split()[3]
        known = zoo.find(name)
        assert known is not None and not known.terms and known.labels == "imagenet-1k" and known.top1
        size = 4 * known.num_parameters / 1e6
        assert line == f"convnext models pull {name} ({known.top1:.2f} %, ≈{size:.{0 if size > 100 else 1}f} MB, " + (
            f"{known.license})"
        )
        assert marked[kind] == name
    small, accurate = (everything[marked[kind]] for kind in ("small", "accurate"))
    assert small["size"] < accurate["size"] and small["top1"] < accurate["top1"]  # type: ignore[operator]
    drawn = [line.split()[0] for line in convnext("models", "list").out.splitlines() if line.rstrip().endswith(" +")]
    assert drawn == [marked["small"], marked["accurate"]]


def test_models_are_recommended_of_those_that_are_listed(convnext: Run, home: Path) -> None:
    assert recommendations(convnext, "base") not in ({}, recommendations(convnext))
    assert not recommendations(convnext, "convnextv2_*"), "no licence that asks for something is recommended"
    done = convnext("models", "list", NAME)
    assert "+" not in done.out + done.err, "there is no choice"
    assert "recommended" not in convnext("models", "list", "--json").err
    name = recommendations(convnext)["small"].split()[3]
    weights_of(name, home / "weights" / f"{name}.safetensors")
    assert recommendations(convnext)["small"].startswith(f"convnext classify -m {name} PHOTO (")


def test_what_is_recommended_follows_from_the_figures() -> None:
    usual = Candidate(name="usual", labels="imagenet-1k", terms="", top1=82.0, size=100_000_000, gmacs=4.0)
    better = usual._replace(name="better", top1=83.0)
    huge = better._replace(name="huge", top1=84.0, size=1_000_000_000, gmacs=40.0)
    slow = better._replace(name="slow", top1=83.5, gmacs=12.0)
    small = usual._replace(name="small", top1=79.5, size=25_000_000, gmacs=1.0)
    close = small._replace(name="close", top1=81.5)
    asks = usual._replace(name="asks", top1=99.0, terms="non-commercial use only")
    other = usual._replace(name="other", top1=99.0, labels="flowers")
    unknown = usual._replace(name="unknown", top1=None)
    assert recommended([usual, better, huge, slow, asks, other, unknown]) == {"accurate": "better"}
    assert recommended([usual, better, small]) == {"small": "small", "accurate": "better"}
    assert recommended([usual, better, close]) == {"accurate": "close"}
    assert recommended([asks, other, unknown]) == {}


def test_a_pattern_that_nothing_has_is_told_the_near_names(convnext: Run) -> None:
    done = convnext("models", "list", "convnxt_tinny", "--json")
    assert json.loads(done.out) == []
    assert f"the nearest names are {NAME}" in done.err
    assert "nearest" not in convnext("models", "list", "tiny", "--local").err


def test_own_models_are_listed_marked_and_removed(convnext: Run, home: Path, tmp_path: Path) -> None:
    (home / "weights").mkdir()
    default = zoo.resolve("default")
    flowers = home / "weights" / "flowers.safetensors"
    flowers.write_bytes(default.read_bytes())
    (home / "weights" / "birds").mkdir()
    (home / "weights" / "birds" / "checkpoint.pth.tar").write_bytes(b"weights")
    (home / "weights" / "roses").mkdir()
    (home / "weights" / "roses" / "roses.safetensors").write_bytes(default.read_bytes())
    (home / "weights" / "tiny.pth").write_bytes(b"not the zoo's tiny")
    (home / "weights" / "damaged.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (home / "weights" / f"{NAME}.safetensors").write_bytes(b"a known one, put here by hand")
    found = rows(convnext, "--local")
    assert set(found) == {"default", "flowers", "birds", "roses", "tiny.pth", "damaged", NAME}
    assert found["flowers"]["classes"] == found["roses"]["classes"] == 200
    assert found["birds"]["params"] is None
    assert "flowers" in convnext("models", "list", "--local").out

    for chosen, name in (("flowers", "flowers"), (str(flowers), "flowers"), ("tiny", NAME)):
        assert convnext("models", "use", chosen).status == 0
        assert [n for n, row in rows(convnext).items() if row["default"]] == [name]
    elsewhere = tmp_path / "mine.safetensors"
    elsewhere.write_bytes(default.read_bytes())
    assert convnext("models", "use", str(elsewhere)).status == 0
    assert [n for n, row in rows(convnext).items() if row["default"]] == [str(elsewhere)]

    assert convnext("models", "use", "flowers").status == 0
    assert convnext("models", "remove", "flowers", "--yes").status == 0
    assert not flowers.exists()
    assert zoo.default_model() == "default"
    assert convnext("models", "remove", "birds", "-y").status == 0
    assert convnext("models", "remove", NAME, "-y").status == 0
    assert convnext("models", "remove", NAME, "-y").status == 3
    assert set(rows(convnext, "--local")) == {"default", "roses", "tiny.pth", "damaged"}


def test_copies_of_other_libraries_are_local(convnext: Run, home: Path) -> None:
    folder = home / "hf" / "hub" / f"models--timm--{NAME}" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    found = rows(convnext, "--local")
    assert found[NAME]["path"] == str(folder / "model.safetensors")


# info -----------------------------------------------------------------------------------------------------------------


def test_info_of_a_model_that_is_not_here(convnext: Run) -> None:
    done = convnext("models", "info", "tiny")
    assert done.status == 0
    for text in (NAME, "28.59 M", "224×224 from shortest 256×256", "82.066", "apache-2.0", f"models pull {NAME}"):
        assert text in done.out


def test_info_of_the_bundled_model(convnext: Run) -> None:
    done = convnext("models", "info", "default", "--json")
    told = json.loads(done.out)
    assert (told["name"], told["layout"], told["where"]) == ("default", "canonical", "bundled")
    assert (told["default"], told["aliases"]) == (True, [])
    assert told["classes"] == 200
    assert told["statistics"]["dtypes"] == {"float16": told["params"]}
    assert len(told["file_sha256"]) == len(told["sha256"]) == 64
    drawn = convnext("models", "info", "default").out
    assert told["file_sha256"] in drawn


def test_info_of_a_bare_file_says_what_was_inferred(convnext: Run, tmp_path: Path) -> None:
    weights_of(TEST_MODEL, tmp_path / "mine.safetensors")
    done = convnext("models", "info", str(tmp_path / "mine.safetensors"))
    assert done.status == 0
    assert "official" in done.out
    assert "inferred" in done.err


@pytest.mark.parametrize(("form", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_info_of_an_export(form: str, suffix: str, convnext: Run, tmp_path: Path) -> None:
    pytest.importorskip(form)
    found, path = exports.checkpoint(tmp_path), tmp_path / f"mine{suffix}"
    exports.written(form, found, Plan(batch=3, size=(64, 80), scores=True, features=True), path)
    told = json.loads(convnext("models", "info", str(path), "--json").out)
    assert (told["layout"], told["sha256"]) == (f"{form}, float32", found.card.sha256)
    assert (told["params"], told["export"]["batch"]) == (found.card.config.num_parameters, 3)
    assert told["size"] > 4 * told["params"]
    drawn = convnext("models", "info", str(path)).out
    for text in ("tensors of 64×80, 3 a call", "scores, features"):
        assert text in drawn


def test_info_of_anybodys_onnx_file(convnext: Run, tmp_path: Path) -> None:
    tensors = {name: tensor.numpy() for name, tensor in random_tensors(SMALL).items()}
    graph.save(graph.graph(SMALL, tensors), tmp_path / "theirs.onnx")
    done = convnext("models", "info", str(tmp_path / "theirs.onnx"))
    assert (done.status, done.out) == (3, "")
    assert "another program" in done.err


def test_info_of_nothing(convnext: Run) -> None:
    done = convnext("models", "info", "convnxt_tinny")
    assert done.status == 3
    assert NAME in done.err
    assert done.out == ""


# pull, path, use, remove, verify --------------------------------------------------------------------------------------


def test_from_pull_to_labels_and_away(convnext: Run, hub: Hub, home: Path, tmp_path: Path) -> None:
    hub.add(f"timm/{TEST_MODEL}", "model.safetensors", weights_of(TEST_MODEL, tmp_path / "m.safetensors"), large=True)
    path = home / "weights" / TEST_MODEL / "model.safetensors"

    done = convnext("models", "pull", "test_convnext")
    assert (done.status, done.out.strip()) == (0, str(path)), done.err
    assert "licence: apache-2.0" in done.err
    assert convnext("models", "path", TEST_MODEL).out.strip() == str(path)
    assert rows(convnext, "--local")[TEST_MODEL]["where"] == "local"

    told = json.loads(convnext("models", "info", TEST_MODEL, "--json").out)
    assert (told["name"], told["labels"], told["license"]) == (TEST_MODEL, "imagenet-1k", "apache-2.0")
    assert (told["default"], f"timm/{TEST_MODEL}" in told["aliases"]) == (False, True)

    assert convnext("models", "use", "test_convnext").status == 0
    assert zoo.default_model() == TEST_MODEL
    assert rows(convnext, "--local")[TEST_MODEL]["default"]
    answer = convnext("classify", SAMPLES[0], "--json")
    assert answer.status == 0, answer.err
    assert json.loads(answer.out)[0]["model"] == TEST_MODEL

    assert convnext("models", "verify").status == 0
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = convnext("models", "verify", "--json")
    assert done.status == 1
    assert {check["status"] for check in json.loads(done.out)} == {"ok", "changed"}
    done = convnext("models", "verify", TEST_MODEL)
    assert done.status == 1
    mend = f"convnext models pull {TEST_MODEL} --force"
    assert f"hint: {mend}" in done.err
    assert convnext(*mend.split()[1:]).status == 0
    assert convnext("models", "verify", TEST_MODEL).status == 0

    done = convnext("models", "remove", TEST_MODEL)
    assert (done.status, path.exists()) == (2, True), "nobody was asked"
    assert f"convnext models remove {TEST_MODEL} --yes" in done.err
    done = convnext("models", "remove", TEST_MODEL, "--yes")
    assert done.status == 0
    assert not path.exists()
    assert zoo.default_model() == "default", "what is gone cannot answer"
    assert convnext("models", "remove", TEST_MODEL).status == 3


def test_classify_pulls_what_is_missing(convnext: Run, hub: Hub, tmp_path: Path) -> None:
    hub.add(f"timm/{TEST_MODEL}", "model.safetensors", weights_of(TEST_MODEL, tmp_path / "m.safetensors"), large=True)
    done = convnext("classify", "-m", TEST_MODEL, "--pull", SAMPLES[0], "--json")
    assert done.status == 0, done.err
    assert len(json.loads(done.out)[0]["predictions"]) == 5


def test_terms_are_accepted_before_a_byte_comes(convnext: Run, hub: Hub) -> None:
    v2 = "convnextv2_tiny.fcmae_ft_in1k"
    hub.add(f"timm/{v2}", "model.safetensors", WEIGHTS, large=True)
    done = convnext("models", "pull", v2)
    assert done.status == 2
    assert "cc-by-nc-4.0: non-commercial" in done.err
    assert f"convnext models pull {v2} --yes" in done.err
    assert hub.log == []
    assert convnext("models", "pull", v2, "--yes").status == 0


def test_terms_of_all_models_are_asked_for_before_the_first_download(convnext: Run, hub: Hub) -> None:
    done = convnext("models", "pull", NAME, "convnextv2_tiny.fcmae_ft_in1k")
    assert done.status == 2
    assert hub.log == []


@pytest.mark.parametrize(("value", "status"), [("2", 0), ("off", 0), ("ON", 5), ("true", 5), ("Yes", 5)])
def test_one_reading_of_the_offline_variable(
    value: str,
    status: int,
    convnext: Run,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert convnext("models", "pull", NAME).status == status
    assert convnext("classify", "-m", TEST_MODEL, SAMPLES[0]).status == 3, "not here, and no usage error"


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"n\n", 2)])
def test_on_a_terminal_terms_are_asked_for_and_a_bar_is_drawn(answer: bytes, status: int, hub: Hub) -> None:
    import pty

    v2 = "convnextv2_tiny.fcmae_ft_in1k"
    hub.add(f"timm/{v2}", "model.safetensors", WEIGHTS, large=True)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "convnext_cli", "models", "pull", v2],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    os.write(ours, answer)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # how Linux tells that the other end has been closed
        pass
    os.close(ours)
    assert process.wait() == status, seen
    assert b"Do you accept these terms?" in seen
    assert (b"model.safetensors" in seen) == (status == 0)
    assert bool(hub.log) == (status == 0)


def test_a_pull_that_fails_is_status_5(convnext: Run, hub: Hub) -> None:
    del hub.files[f"{REPOSITORY}/model.safetensors"]
    assert convnext("models", "pull", NAME).status == 5
    assert convnext("models", "pull", NAME, "--offline").status == 5
    assert convnext("models", "pull", "resnet50").status == 3


def test_path_says_how_to_get_what_is_missing(convnext: Run) -> None:
    done = convnext("models", "path", "tiny")
    assert (done.status, done.out) == (3, "")
    assert f"convnext models pull {NAME}" in done.err


def test_use_keeps_paths_whole(convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights_of(TEST_MODEL, tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    assert convnext("models", "use", "mine.safetensors").status == 0
    assert zoo.default_model() == str(tmp_path / "mine.safetensors")
    assert convnext("models", "use", "default").status == 0
    assert zoo.default_model() == "default"
    assert convnext("models", "use", "tiny").status == 3


def test_use_keeps_a_folder_that_goes_before_a_name(
    convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights_of(TEST_MODEL, tmp_path / "tiny" / "model.safetensors")
    assert convnext("models", "path", "tiny").out.strip() == str(tmp_path / "tiny")
    assert convnext("models", "use", "tiny").status == 0
    assert zoo.default_model() == str(tmp_path / "tiny")


def test_the_bundled_model_cannot_be_removed(convnext: Run) -> None:
    assert convnext("models", "remove", "default").status == 3


@pytest.mark.parametrize(
    ("name", "status"),
    [("convnext_tiny-983f1562.pth", "changed"), ("mine-20240101.pth", "unknown")],
    ids=["publisher", "nobody"],
)
def test_verify_of_a_loose_file(name: str, status: str, convnext: Run, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"weights")
    done = convnext("models", "verify", str(tmp_path / name), "--json")
    assert done.status == 1
    assert [check["status"] for check in json.loads(done.out)] == [status]


def test_verify_believes_the_card_before_the_name(convnext: Run, tmp_path: Path) -> None:
    path = tmp_path / "flowers-20240101.safetensors"
    content = bytearray(zoo.resolve("default").read_bytes())
    path.write_bytes(content)
    assert convnext("models", "verify", str(path)).status == 0
    content[-1] ^= 1
    path.write_bytes(content)
    done = convnext("models", "verify", str(path), "--json")
    assert [check["status"] for check in json.loads(done.out)] == ["changed"]
    path.write_bytes(content.replace(b"schema_version", b"schema_verzion"))
    done = convnext("models", "verify", str(path), "--json")
    assert [check["status"] for check in json.loads(done.out)] == ["changed"], "a damaged card"


def test_verify_of_nothing_says_so(convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.local_files, "_PACKAGE", Path("/nowhere"))
    done = convnext("models", "verify")
    assert (done.status, done.out) == (0, "")
    assert "nothing to verify" in done.err


def test_verify_of_a_hub_cache_trusts_the_blobs_name(convnext: Run, home: Path) -> None:
    import hashlib

    folder = home / "hf" / "hub" / f"models--timm--{NAME}"
    blob = folder / "blobs" / hashlib.sha256(b"weights").hexdigest()
    link = folder / "snapshots" / "abc" / "model.safetensors"
    for path in (blob, link):
        path.parent.mkdir(parents=True)
    blob.write_bytes(b"weights")
    link.symlink_to(blob)
    assert convnext("models", "verify", "tiny").status == 0
    blob.write_bytes(b"weightx")
    assert convnext("models", "verify", "tiny").status == 1


def test_verify_of_sharded_weights_looks_at_every_shard(convnext: Run, home: Path) -> None:
    import hashlib

    folder = home / "hf" / "hub" / f"models--timm--{NAME}"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    shards = {f"model-0000{i}-of-00002.safetensors": f"weights {i}".encode() for i in (1, 2)}
    for name, content in shards.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(enumerate(shards))}))
    done = convnext("models", "verify", NAME, "--json")
    assert [(Path(c["path"]).name, c["status"]) for c in json.loads(done.out)] == [(name, "ok") for name in shards]


# No connection, no torch ----------------------------------------------------------------------------------------------

ALONE = """
import os, sys
from convnext_cli.cli import run

def watch(event, arguments):
    if event.startswith("socket."):
        print("socket:", event, file=sys.__stderr__, flush=True)
        os._exit(99)

sys.addaudithook(watch)
statuses = [run(line.split()) for line in sys.argv[1].split(";")]
print(statuses, "torch" in sys.modules, "numpy" in sys.modules, file=sys.__stderr__)
"""


def alone(home: Path, commands: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run commands in one process that dies at the first socket; HF_HUB_OFFLINE does not help it."""
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | environment
    return subprocess.run(
        [sys.executable, "-c", ALONE, commands], capture_output=True, text=True, check=False, env=env, cwd=home
    )


def test_nothing_but_pull_opens_a_socket_and_listing_needs_no_torch(home: Path) -> None:
    light = "models list;models list --json;models info tiny;models path default;models path tiny;models use default"
    done = alone(home, light + ";models pull tiny --offline;models --help")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 0, 3, 0, 5, 0] False False"


def test_looking_into_a_file_opens_no_socket(home: Path) -> None:
    done = alone(home, "models info default;models verify;models verify default")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("[0, 0, 0] True")


def test_the_watch_sees_a_pull(home: Path) -> None:
    assert alone(home, "models pull tiny", HF_ENDPOINT="http://127.0.0.1:9").returncode == 99


def test_labels_of_a_model_and_of_a_set(convnext: Run) -> None:
    lines = convnext("models", "labels", "default").out.splitlines()
    assert len(lines) == 200
    assert lines[0] == "0\tn01443537\tgoldfish"
    rows = json.loads(convnext("models", "labels", "imagenet-1k", "--json").out)
    assert rows[0] == {"index": 0, "id": "n01440764", "label": "tench"}
    assert convnext("models", "labels", "convnext_tiny.fb_in1k", "-f", "csv").out.startswith("index,id,label\n0,")
    assert convnext("models", "labels", "no_such_model").status == 3


def test_a_label_with_a_carriage_return_is_quoted(convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    one = LabelSet.numbered(1)
    monkeypatch.setattr(
        "convnext_cli.cli.model_queries._label_set", lambda name: dataclasses.replace(one, names=("a\rb",))
    )
    out = convnext("models", "labels", "any", "-f", "csv").out
    assert list(csv.reader(io.StringIO(out, newline="")))[1][2] == "a\rb"


def test_nothing_found_is_status_1(convnext: Run) -> None:
    assert convnext("models", "list", "no_such_model").status == 1
