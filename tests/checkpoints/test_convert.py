"""``convnext convert`` as its users meet it: what is carried along, what is refused, and what is never left behind.

That the libraries open the results, and compute the same with them, is proven in tests/peers/test_converted.py.
"""

from __future__ import annotations

import collections
import json
import os
import pickle
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as load_safetensors

import convnext_cli
from convnext_cli import ConvertRequest, checkpoints
from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.base.files import replacing_folder
from convnext_cli.checkpoints import canonical, convert, expressible, foreign_preprocessing, read
from convnext_cli.checkpoints.layouts import mmpretrain
from convnext_cli.checkpoints.layouts.registry import TARGETS
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.network import build
from convnext_cli.model.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from tests.helpers.command import Run
from tests.helpers.disk import files_limited_to, listing
from tests.helpers.paths import ROOT
from tests.helpers.tiers import slow_except
from tests.helpers.weights import SMALL, random_tensors

ANIMALS = LabelSet.from_names("animals", ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"])
PREPROCESSING = Preprocessing(
    size=(160, 160), resize_to=(168, 168), interpolation="bilinear", mean=CLIP_MEAN, std=CLIP_STD
)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A canonical file that says all that a card can say."""
    return write(tmp_path / "made.safetensors")


def write(path: Path, config: ConvNextConfig = SMALL, **said: Any) -> Path:
    tensors = random_tensors(config)
    card = Card(config, PREPROCESSING, labels=ANIMALS, license="mit", temperature=0.7).replace(**said)
    canonical.write(path, tensors, card.replace(sha256=canonical.fingerprint(tensors)))
    return path


# What is said ---------------------------------------------------------------------------------------------------------


def test_one_line_says_what_was_written(convnext: Run, made: Path, tmp_path: Path) -> None:
    done = convnext("convert", made, tmp_path / "out", "--to", "hf")
    size = sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) / 1e6
    lost = (
        "note: the classifier's weights and bias were divided by the temperature, 0.7, "
        "so that the scores stay the same\n"
        "note: hf cannot express: licence; the card in model.safetensors keeps that\n"
    )
    said = f"{lost}wrote {tmp_path / 'out'}: canonical to hf, float32, {size:.1f} MB in {len(SMALL.shapes())} tensors\n"
    assert done == (0, "", said)


def test_json_is_one_document_and_quiet_is_quiet(convnext: Run, made: Path, tmp_path: Path) -> None:
    done = convnext("convert", made, tmp_path / "out.pth", "--to", "official", "--dtype", "bfloat16", "--json", "-q")
    told = json.loads(done.out)
    assert done.err == ""
    assert told["files"] == [str(tmp_path / "out.pth")]
    assert (told["from"], told["to"], told["dtype"]) == ("canonical", "official", "bfloat16")
    assert (told["bytes"], told["tensors"]) == ((tmp_path / "out.pth").stat().st_size, len(SMALL.shapes()))
    assert told["sha256"] == canonical.fingerprint(checkpoints.load(tmp_path / "out.pth", dtype="stored").tensors)


def test_what_a_pickle_has_no_place_for_is_said(convnext: Run, made: Path, tmp_path: Path) -> None:
    done = convnext("convert", made, tmp_path / "out.pth", "--to", "official")
    assert (
        "cannot hold: labels, preprocessing, temperature (divide logits by 0.7 for the same scores), name" in done.err
    )
    done = convnext("convert", made, tmp_path / "mm.pth", "--to", "mmpretrain")
    assert "cannot hold: preprocessing, temperature (divide logits by 0.7" in done.err
    assert convnext("convert", made, tmp_path / "out.safetensors", "--to", "official").err.count("\n") == 1


def test_what_a_folder_has_no_words_for_is_said(convnext: Run, tmp_path: Path) -> None:
    start = write(tmp_path / "made.safetensors", source="somewhere/else", problem="multi_label")
    done = convnext("convert", start, tmp_path / "hf", "--to", "hf")
    assert "hf cannot express: temperature, licence, source; the card in model.safetensors keeps that" in done.err
    done = convnext("convert", start, tmp_path / "timm", "--to", "timm")
    assert "timm cannot express: problem type, temperature, source" in done.err
    start = write(tmp_path / "plain.safetensors", license="", temperature=None)
    assert "cannot express" not in convnext("convert", start, tmp_path / "plain-hf", "--to", "hf").err


def test_notes_of_the_loader_are_said(convnext: Run, made: Path, tmp_path: Path) -> None:
    assert convnext("convert", made, tmp_path / "bare.pth", "--to", "torchvision").status == 0
    done = convnext("convert", tmp_path / "bare.pth", tmp_path / "out", "--to", "hf")
    assert "note: inferred from names and shapes" in done.err


# What is carried along ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["official.safetensors", "timm.safetensors", "timm", "torchvision.safetensors", "hf"]
)
def test_the_card_goes_along_wherever_there_is_room(target: str, convnext: Run, made: Path, tmp_path: Path) -> None:
    assert convnext("convert", made, tmp_path / target, "--to", target.partition(".")[0]).status == 0
    card = checkpoints.load(made).card
    found = checkpoints.load(tmp_path / target, verify=True).card
    assert found == (card.replace(temperature=None, sha256=found.sha256) if target == "hf" else card)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_transformers_gives_the_same_scores(dtype: torch.dtype, convnext: Run, tmp_path: Path) -> None:
    """float32, whatever the source is of, since its image processor gives float32; with the temperature in it."""
    transformers = pytest.importorskip("transformers")
    tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(SMALL).items()}
    card = Card(SMALL, PREPROCESSING, labels=ANIMALS, temperature=0.7, sha256=canonical.fingerprint(tensors))
    canonical.write(tmp_path / "made.safetensors", tensors, card)
    assert convnext("convert", tmp_path / "made.safetensors", tmp_path / "out", "--to", "hf").status == 0
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert {parameter.dtype for parameter in theirs.parameters()} == {torch.float32}
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        right = build(SMALL, {name: tensor.float() for name, tensor in tensors.items()})(x).logits / 0.7
        assert torch.allclose(theirs(x).logits.softmax(1), right.softmax(1), atol=1e-6)
        assert torch.allclose(theirs(x).logits, right, atol=1e-5)


def test_half_precision_for_transformers_is_asked_for(convnext: Run, made: Path, tmp_path: Path) -> None:
    assert convnext("convert", made, tmp_path / "out", "--to", "hf", "--dtype", "float16").status == 0
    assert {tensor.dtype for tensor in checkpoints.load(tmp_path / "out", dtype="stored").tensors.values()} == {
        torch.float16
    }


def test_transformers_words(convnext: Run, tmp_path: Path) -> None:
    start = write(tmp_path / "made.safetensors", problem="multi_label")
    assert convnext("convert", start, tmp_path / "out", "--to", "hf").status == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert list(config["id2label"].items())[:2] == [("0", "ant"), ("1", "bee")]
    assert config["label2id"]["gnu"] == 6
    assert config["problem_type"] == "multi_label_classification"
    said = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert Preprocessing.from_huggingface(said) == PREPROCESSING.changed(crop_offset="floor")


def test_timms_words(convnext: Run, tmp_path: Path) -> None:
    config = SMALL.replace(num_labels=1000)
    start = write(tmp_path / "made.safetensors", config, labels="imagenet-1k", name="convnext_tiny.mine")
    assert convnext("convert", start, tmp_path / "out", "--to", "timm").status == 0
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["label_names"][0] == "n01440764"
    assert said["label_descriptions"]["n01440764"] == "tench, Tinca tinca"
    assert (said["pretrained_cfg"]["license"], said["pretrained_cfg"]["tag"]) == ("mit", "mine")
    assert Preprocessing.from_timm(said["pretrained_cfg"]) == PREPROCESSING


def test_groups_of_classes_become_one_name_a_class(convnext: Run, tmp_path: Path) -> None:
    """transformers and timm name single rows: two of one name would lose one."""
    names = ("ant", "bee", "cat", "cat", "eel", "fox", "gnu")
    groups = LabelSet("two", (None,) * 7, ("insect", "cat"), names, ("",) * 7, groups=((0, 1), (2, 3)))
    start = write(tmp_path / "made.safetensors", labels=groups)
    assert convnext("convert", start, tmp_path / "out", "--to", "hf").status == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert [*config["id2label"].values()] == ["ant", "bee", "cat (2)", "cat (3)", "eel", "fox", "gnu"]
    assert len(config["label2id"]) == 7


def test_mmpretrains_classes_come_back(convnext: Run, made: Path, tmp_path: Path) -> None:
    assert convnext("convert", made, tmp_path / "mm.pth", "--to", "mmpretrain").status == 0
    file = torch.load(tmp_path / "mm.pth", weights_only=True)
    assert file["meta"] == {"dataset_meta": {"classes": list(ANIMALS.names)}}
    assert checkpoints.load(tmp_path / "mm.pth").card.label_set().names == ANIMALS.names
    torch.save({**file, "meta": {"CLASSES": ANIMALS.names}}, tmp_path / "mmcls.pth")  # before 1.0
    assert checkpoints.load(tmp_path / "mmcls.pth").card.label_set().names == ANIMALS.names
    torch.save({**file, "meta": {"dataset_meta": {"classes": ["ant"]}}}, tmp_path / "few.pth")
    found = checkpoints.load(tmp_path / "few.pth")
    assert found.card.labels is None
    assert any("names 1 classes, but the classifier has 7" in note for note in found.notes)


@pytest.mark.parametrize("meta", [None, 3, {}, {"dataset_meta": 5}, {"CLASSES": [1, 2]}, {"CLASSES": "ant"}])
def test_meta_without_classes(meta: Any) -> None:
    assert mmpretrain.classes({"meta": meta}) is None


@pytest.mark.parametrize(
    ("preprocessing", "timm", "hf"),
    [
        (PREPROCESSING, [], []),
        (Preprocessing.official(384), [], []),
        (Preprocessing.from_torchvision("tiny"), [], []),
        (PREPROCESSING.changed(crop_offset="floor", test_size=(288, 288)), [], []),
        (PREPROCESSING.changed(resize="longest"), [], ["resize_to", "resize"]),
        (PREPROCESSING.changed(resize="longest", fill="black"), ["fill"], ["resize_to", "resize", "fill"]),
        (PREPROCESSING.changed(rescale=1.0), ["rescale"], []),
        (PREPROCESSING.changed(resize="none", resize_to=(160, 160)), ["resize"], []),
        (
            Preprocessing.from_huggingface({"image_processor_type": "DINOv3ViTImageProcessorFast", "size": 224}),
            ["float_resize"],
            [],
        ),
    ],
)
def test_preprocessing_in_other_words(preprocessing: Preprocessing, timm: list[str], hf: list[str]) -> None:
    assert (
        foreign_preprocessing.inexpressible(
            preprocessing, Preprocessing.from_timm(foreign_preprocessing.to_timm(preprocessing))
        )
        == timm
    )
    assert (
        foreign_preprocessing.inexpressible(
            preprocessing, Preprocessing.from_huggingface(foreign_preprocessing.to_huggingface(preprocessing))
        )
        == hf
    )


def test_the_size_that_scores_best_goes_to_timm() -> None:
    cfg = {"input_size": [3, 224, 224], "test_input_size": [3, 288, 288], "test_crop_pct": 1.0, "crop_pct": 0.95}
    assert Preprocessing.from_timm(
        foreign_preprocessing.to_timm(Preprocessing.from_timm(cfg))
    ) == Preprocessing.from_timm(cfg)


def test_preprocessing_without_words_is_said_and_not_written(convnext: Run, tmp_path: Path) -> None:
    start = write(tmp_path / "made.safetensors", preprocessing=PREPROCESSING.changed(resize="longest"))
    done = convnext("convert", start, tmp_path / "out", "--to", "hf")
    assert "hf cannot express all of the preprocessing (resize_to, resize)" in done.err
    assert not (tmp_path / "out" / "preprocessor_config.json").exists()
    assert checkpoints.load(tmp_path / "out").card.preprocessing.resize == "longest"


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_broken_json_in_a_folder_of_ours_is_an_error(name: str, convnext: Run, made: Path, tmp_path: Path) -> None:
    assert convnext("convert", made, tmp_path / "hf", "--to", "hf").status == 0
    (tmp_path / "hf" / name).write_text("{broken")
    for load in (checkpoints.load, checkpoints.read_card):
        with pytest.raises(ModelError, match=f"{name} is not readable JSON"):
            load(tmp_path / "hf")
    checkpoints.load((tmp_path / "hf" / "model.safetensors").rename(tmp_path / "alone.safetensors"))


def test_other_classes_in_config_json_win(convnext: Run, made: Path, tmp_path: Path) -> None:
    assert convnext("convert", made, tmp_path / "hf", "--to", "hf").status == 0
    assert checkpoints.load(tmp_path / "hf").notes == []
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config["id2label"]["0"] = "anteater"
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    found = checkpoints.load(tmp_path / "hf")
    assert found.card.label_set().names == ("anteater", *ANIMALS.names[1:])
    assert found.notes == [
        "the class names of config.json are used, which differ from those in model.safetensors",
    ]
    assert checkpoints.read_card(tmp_path / "hf") == found.card
    del config["id2label"]["6"]
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    found = checkpoints.load(tmp_path / "hf")
    assert found.card.label_set() == ANIMALS
    assert found.notes == ["config.json names 6 classes, but the classifier has 7: the names were ignored"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("depths", [1, 1, 3, 1], "missing"),
        ("hidden_sizes", [8, 16, 24, 40], "of a wrong shape"),
        ("patch_size", 2, "of a wrong shape"),
        ("depths", "many", "config.json has a wrong value"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_an_error(
    key: str, value: Any, said: str, convnext: Run, made: Path, tmp_path: Path
) -> None:
    assert convnext("convert", made, tmp_path / "hf", "--to", "hf").status == 0
    config = json.loads((tmp_path / "hf" / "config.json").read_text()) | {key: value}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as told:
        checkpoints.load(tmp_path / "hf")
    assert said in told.value.message


# dtype ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtype(dtype: str, convnext: Run, made: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    assert convnext("convert", made, target, "--to", "canonical", "--dtype", dtype).status == 0
    stored = checkpoints.load(target, dtype="stored", verify=True).tensors
    wanted = {name: tensor.to(getattr(torch, dtype)) for name, tensor in random_tensors(SMALL).items()}
    assert all(stored[name].dtype == t.dtype and torch.equal(stored[name], t) for name, t in wanted.items())


def test_a_value_that_float16_cannot_hold_is_named(convnext: Run, tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    tensors["stages.2.1.pwconv1.bias"][3] = -70000
    start = tmp_path / "large.safetensors"
    canonical.write(start, tensors, Card(SMALL))
    before = listing(tmp_path)
    done = convnext("convert", start, tmp_path / "out", "--to", "hf", "--dtype", "float16")
    assert (done.status, listing(tmp_path)) == (3, before)
    assert "stages.2.1.pwconv1.bias contains 70000, and the largest float16 is 65504" in done.err
    assert convnext("convert", start, tmp_path / "out", "--to", "hf", "--dtype", "bfloat16").status == 0


def test_it_is_named_as_in_the_file_too(convnext: Run, made: Path, tmp_path: Path) -> None:
    assert convnext("convert", made, tmp_path / "timm.pth", "--to", "timm").status == 0
    state = torch.load(tmp_path / "timm.pth", weights_only=True)
    state["stages.2.blocks.1.mlp.fc1.bias"][3] = -70000
    torch.save(state, tmp_path / "timm.pth")
    done = convnext("convert", tmp_path / "timm.pth", tmp_path / "out", "--to", "hf", "--dtype", "float16")
    assert done.status == 3
    assert "stages.2.1.pwconv1.bias (stages.2.blocks.1.mlp.fc1.bias in the file) contains 70000" in done.err


# What a layout cannot hold --------------------------------------------------------------------------------------------

ISOTROPIC = VARIANTS["convnext_isotropic_small"].replace(depths=(2,), hidden_sizes=(16,), num_labels=7)
REFUSED = [
    ("official", SMALL.replace(layer_norm_eps=1e-12), "layer_norm_eps"),
    ("official", SMALL.replace(norm_eps=1e-5), "norm_eps"),
    ("official", SMALL.replace(hidden_act="gelu_tanh"), "hidden_act"),
    ("official", SMALL.replace(patch_size=2), "patch_size"),
    ("official", SMALL.replace(kernel_sizes=(7, 5, 5, 3)), "kernel_sizes"),
    ("official", SMALL.replace(stem="overlap", stem_width=8), "stem"),
    ("official", SMALL.replace(norm="rms", norm_bias=False), "norm"),
    ("official", SMALL.replace(mlp_ratio=2), "mlp_ratio"),
    ("official", SMALL.replace(conv_bias=False), "conv_bias"),
    ("official", SMALL.replace(mlp_bias=False), "mlp_bias"),
    ("official", SMALL.replace(head_bias=False), "head_bias"),
    ("official", SMALL.replace(head_norm="before_pool"), "head_norm"),
    ("official", SMALL.replace(head_hidden_size=9), "head_hidden_size"),
    ("official", SMALL.replace(use_grn=True), "use_grn"),
    ("official", SMALL.replace(num_labels=0), "num_labels"),
    ("official", SMALL.replace(depths=(1, 1, 2), hidden_sizes=(8, 16, 24), kernel_sizes=()), "depths"),
    ("official", ISOTROPIC.replace(patch_size=8), "patch_size"),
    ("official", ISOTROPIC.replace(use_grn=True), "use_grn"),
    ("official", ISOTROPIC.replace(stem_norm=True), "depths"),
    ("timm", ISOTROPIC, "stem_norm"),
    ("timm", SMALL.replace(layer_norm_eps=1e-12), "layer_norm_eps"),
    ("timm", SMALL.replace(mlp_ratio=2), "mlp_ratio"),
    ("timm", SMALL.replace(head_bias=False), "head_bias"),
    ("timm", SMALL.replace(stem="overlap", stem_width=24), "stem_width"),
    ("timm", SMALL.replace(patch_size=2), "stem_downsample"),
    ("timm", SMALL.replace(stem_downsample=True), "stem_downsample"),
    ("timm", SMALL.replace(patch_size=8), "patch_size"),
    ("timm", SMALL.replace(norm="rms"), "norm_bias"),
    ("timm", SMALL.replace(norm_bias=False), "norm_bias"),
    ("timm", SMALL.replace(head_norm="none", num_labels=0), "head_norm"),
    ("timm", SMALL.replace(head_norm="before_pool", head_hidden_size=9), "head_hidden_size"),
    ("torchvision", SMALL.replace(layer_scale_init_value=0.0), "layer_scale_init_value"),
    ("torchvision", SMALL.replace(use_grn=True, layer_scale_init_value=0.0), "use_grn"),
    ("torchvision", SMALL.replace(num_channels=1), "num_channels"),
    ("torchvision", SMALL.replace(num_labels=0), "num_labels"),
    ("torchvision", SMALL.replace(depths=(1,) * 5, hidden_sizes=(8,) * 5, kernel_sizes=()), "depths"),
    ("torchvision", SMALL.replace(layer_norm_eps=1e-12), "layer_norm_eps"),
    ("hf", SMALL.replace(norm_eps=1e-5), "norm_eps"),
    ("hf", SMALL.replace(use_grn=True), "use_grn"),
    ("hf", ISOTROPIC, "stem_norm"),
    ("hf", SMALL.replace(head_norm="none", num_labels=0), "head_norm"),
    ("mmpretrain", SMALL.replace(hidden_act="silu"), "hidden_act"),
    ("mmpretrain", SMALL.replace(norm_eps=1e-5, layer_norm_eps=1e-5), "norm_eps"),
    ("mmpretrain", ISOTROPIC, "depths"),
]


@pytest.mark.parametrize(("layout", "config", "named"), REFUSED)
def test_what_a_layout_cannot_hold(
    layout: str, config: ConvNextConfig, named: str, convnext: Run, tmp_path: Path
) -> None:
    start = write(tmp_path / "made.safetensors", config, labels=None)
    before = listing(tmp_path)
    form = TARGETS[layout]
    done = convnext("convert", start, tmp_path / f"out{'' if form.folder else form.suffixes[0]}", "--to", layout)
    assert (done.status, listing(tmp_path)) == (3, before)
    said, _, hint = done.err.partition("\n")
    assert said.startswith(f"error: {layout} cannot hold this network: ")
    assert any(clause.startswith(f"{named} ") for clause in said.split(": ", 2)[2].split("; "))
    assert hint.startswith("hint: these can: canonical")


def test_a_field_that_matters_is_free_nowhere_by_accident() -> None:
    """A field that is new in ConvNextConfig is refused by every library until somebody says that it has a place."""
    fixed = set(vars(SMALL)) - expressible._ALWAYS
    written = [target for target in TARGETS.values() if target.name != "canonical"]
    assert all(target.free <= fixed for target in written)
    assert {"mlp_ratio", "mlp_bias", "head_bias", "stem_norm"} == fixed - set().union(
        *(target.free for target in written)
    )


def test_a_bare_file_of_timms_says_nothing_of_epsilon_and_activation(convnext: Run, tmp_path: Path) -> None:
    """They are in the architecture's name, or in the config.json of a folder."""
    named = VARIANTS["test_convnext2"].replace(num_labels=7)
    start = write(tmp_path / "named.safetensors", named)
    assert convnext("convert", start, tmp_path / "named.pth", "--to", "timm").status == 0
    assert checkpoints.load(tmp_path / "named.pth").card.config.hidden_act == "gelu_tanh"
    for changes in ({"hidden_act": "silu"}, {"norm_eps": 1e-4, "layer_norm_eps": 1e-4}):
        start = write(tmp_path / f"{next(iter(changes))}.safetensors", SMALL.replace(**changes))
        done = convnext("convert", start, tmp_path / "out.pth", "--to", "timm")
        assert done.status == 3
        assert f"{next(iter(changes))} is" in done.err
        assert "timm as a folder" in done.err
        assert not (tmp_path / "out.pth").exists()


def test_the_epsilon_of_transformers_is_changed_on_request_only(convnext: Run, tmp_path: Path) -> None:
    start = write(tmp_path / "made.safetensors", SMALL.replace(layer_norm_eps=1e-12))
    assert convnext("convert", start, tmp_path / "hf", "--to", "hf").status == 0
    done = convnext("convert", tmp_path / "hf", tmp_path / "out.pth", "--to", "official")
    assert (done.status, (tmp_path / "out.pth").exists()) == (3, False)
    assert "--layer-norm-eps 1e-06" in done.err
    done = convnext("convert", tmp_path / "hf", tmp_path / "out.pth", "--to", "official", "--layer-norm-eps", "1e-6")
    assert done.status == 0
    assert "the epsilon of the last norm was changed from 1e-12 to 1e-06" in done.err
    assert checkpoints.load(tmp_path / "out.pth").card.config.layer_norm_eps == 1e-6


# Where it goes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "name", "form"),
    [
        ("canonical", "out", ".safetensors"),
        ("canonical", "out.pth", ".safetensors"),
        ("official", "out", ".pth"),
        ("official", "out.bin", ".pth"),
        ("torchvision", "out.bin", ".pth"),
        ("mmpretrain", "out.safetensors", ".pth"),
        ("hf", "out.safetensors", "a folder"),
        ("timm", "out.ckpt", "a folder"),
        ("hf", "-", "a folder"),
        ("official", ".", ".pth"),
        ("official", "..", ".pth"),
    ],
)
def test_the_right_form_is_said(
    layout: str, name: str, form: str, convnext: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.parent)
    done = convnext("convert", made, name, "--to", layout)
    assert (done.status, listing(made.parent)) == (2, [(str(made), made.stat().st_size)])
    assert form in done.err
    assert f"hint: name it {'out' if 'out' in name else 'weights'}" in done.err


def test_what_is_there_stays_until_it_may_go(convnext: Run, made: Path, tmp_path: Path) -> None:
    for out, layout in ((tmp_path / "out.pth", "official"), (tmp_path / "out", "hf")):
        assert convnext("convert", made, out, "--to", layout).status == 0
        before = listing(tmp_path)
        done = convnext("convert", made, out, "--to", layout, "--dtype", "float16")
        assert (done.status, listing(tmp_path)) == (2, before)
        assert "--overwrite" in done.err
        assert convnext("convert", made, out, "--to", layout, "--dtype", "float16", "--overwrite").status == 0
        assert checkpoints.load(out, dtype="stored").tensors["head.weight"].dtype == torch.float16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.safetensors", "out", "out.pth"]


def test_a_folder_of_other_things_is_never_replaced(convnext: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    done = convnext("convert", made, tmp_path / "out", "--to", "hf", "--overwrite")
    assert done.status == 2
    assert "thesis.tex" in done.err
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years"


def test_a_file_is_no_folder(convnext: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    (tmp_path / "out.pth").mkdir()
    assert convnext("convert", made, tmp_path / "out", "--to", "hf", "--overwrite").status == 2
    assert convnext("convert", made, tmp_path / "out.pth", "--to", "official", "--overwrite").status == 2


def test_the_source_is_never_the_result(convnext: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(made)
    assert convnext("convert", made, tmp_path / "hf", "--to", "hf").status == 0
    before = listing(tmp_path)
    for source, out, layout in (
        (made, made, "canonical"),
        (made, tmp_path / "link.safetensors", "official"),
        (tmp_path / "link.safetensors", made, "canonical"),
        (tmp_path / "hf", tmp_path / "hf", "timm"),
        (tmp_path / "hf", tmp_path / "hf" / "model.safetensors", "timm"),
        (tmp_path / "hf" / "model.safetensors", tmp_path / "hf", "hf"),
    ):
        done = convnext("convert", source, out, "--to", layout, "--overwrite")
        assert (done.status, listing(tmp_path)) == (2, before), done.err
        assert "the weights to convert" in done.err


def test_places_where_nothing_can_be_written(convnext: Run, made: Path, tmp_path: Path) -> None:
    done = convnext("convert", made, tmp_path / "missing" / "out.pth", "--to", "official")
    assert done.status == 74
    assert "mkdir -p" in done.err
    assert convnext("convert", made, made / "out.pth", "--to", "official").status == 74
    for out, layout in ((f"{'n' * 300}.pth", "official"), ("n" * 300, "hf"), (f"{'n' * 300}/out", "timm")):
        assert convnext("convert", made, tmp_path / out, "--to", layout).status == 74
    assert listing(tmp_path) == [(str(made), made.stat().st_size)]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
@pytest.mark.parametrize(
    ("name", "layout"), [("out.pth", "official"), ("out.safetensors", "official"), ("out", "hf"), ("out", "timm")]
)
def test_a_full_disk_leaves_nothing(name: str, layout: str, convnext: Run, made: Path) -> None:
    """Also where something was before: that stays."""
    out = made.parent / name
    before = listing(made.parent)
    with files_limited_to(50_000):
        done = convnext("convert", made, out, "--to", layout)
    assert (done.status, listing(made.parent)) == (74, before), done.err
    assert f"{out} cannot be written: File too large" in done.err
    convert.convert(ConvertRequest(source=made, output=out, layout=layout, dtype="float16"))
    before = listing(made.parent)
    with files_limited_to(50_000):
        done = convnext("convert", made, out, "--to", layout, "--overwrite")
    assert (done.status, listing(made.parent)) == (74, before), done.err


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with replacing_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert listing(tmp_path) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "out" / "file").read_text() == "before"
    assert len(listing(tmp_path)) == 2


# What goes in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["absent.pth", "convnext_tony", "graph.onnx", "torn.safetensors", "empty.pth", "dir"])
def test_sources_that_are_none(name: str, convnext: Run, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"\x08\x09\x12\x07pytorch" + bytes(100))
    (tmp_path / "torn.safetensors").write_bytes(write(tmp_path / "whole.safetensors").read_bytes()[:5000])
    (tmp_path / "empty.pth").touch()
    (tmp_path / "dir").mkdir()
    source = name if name == "convnext_tony" else str(tmp_path / name)
    done = convnext("convert", source, tmp_path / "out", "--to", "hf")
    assert (done.status, (tmp_path / "out").exists()) == (3, False)
    assert done.err.startswith("error: ")
    assert "hint: " in done.err


def test_a_file_that_was_changed_behind_its_card_is_not_passed_on(convnext: Run, made: Path, tmp_path: Path) -> None:
    content = bytearray(made.read_bytes())
    content[-2] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(content)
    done = convnext("convert", tmp_path / "changed.safetensors", tmp_path / "out", "--to", "hf")
    assert done.status == 3
    assert "changed or damaged" in done.err


def test_a_name_of_the_zoo_will_do(convnext: Run, home: Path, tmp_path: Path) -> None:
    done = convnext("convert", "default", tmp_path / "out", "--to", "hf")
    assert done.status == 0
    assert checkpoints.load(tmp_path / "out").card.name == "default"
    done = convnext("convert", "convnext_tiny.fb_in1k", tmp_path / "other", "--to", "hf")
    assert (done.status, "convnext models pull convnext_tiny.fb_in1k" in done.err) == (3, True)


class Call:
    """Calls what it is told when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def attacks(trap: Path) -> dict[str, tuple[Any, str]]:
    shell, code = f"touch {trap}", f"open({str(trap)!r}, 'w').close()"
    state = random_tensors(SMALL)
    return {
        "os.system": (Call(os.system, shell), "system"),
        "exec": (Call(exec, code), "exec"),
        "eval": ({"model": state, "epoch": Call(eval, code)}, "eval"),
        "in the state": (state | {"extra": Call(os.system, shell)}, "system"),
        "in an argument": ({"model": state, "args": Namespace(hook=[Call(os.system, shell)])}, "system"),
        "in an ordered dict": ({"model": collections.OrderedDict(a=(1, {"b": Call(exec, code)}))}, "exec"),
    }


@pytest.mark.parametrize(
    ("layout", "grn"),
    slow_except(
        [(layout, grn) for layout in ("official", "timm", "torchvision", "hf", "mmpretrain") for grn in (False, True)],
        *(("official", True), ("timm", False), ("torchvision", False), ("hf", True), ("mmpretrain", False)),
    ),
)
def test_a_missing_tensor_is_named(layout: str, grn: bool, tmp_path: Path) -> None:
    """Each of them, also that by which the layout is recognised, and those that tell what the network is."""
    config = SMALL.replace(use_grn=grn, layer_scale_init_value=0.0 if grn else 1e-6)
    if expressible.problems(config, layout):
        pytest.skip("there is no such network")
    out = tmp_path / ("out" if layout == "hf" else "out.pth")
    convert.convert(ConvertRequest(source=write(tmp_path / "made.safetensors", config), output=out, layout=layout))
    if layout == "hf":
        state = load_safetensors(out / "model.safetensors")
    else:
        state = torch.load(out, weights_only=True)
        state = state.get("model", state.get("state_dict", state))
    for name in state:
        torch.save({other: value for other, value in state.items() if other != name}, tmp_path / "lacks.pth")
        if name.endswith(("head.bias", "head.fc.bias", "classifier.bias", "classifier.2.bias")):
            assert not checkpoints.load(tmp_path / "lacks.pth").card.config.head_bias  # a network may have none
            continue
        with pytest.raises(ModelError) as told:
            checkpoints.load(tmp_path / "lacks.pth")
        assert name in told.value.message and "missing" in told.value.message


@pytest.mark.parametrize("attack", attacks(Path("trap")))
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_pickle_is_never_run(attack: str, form: str, convnext: Run, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    content, named = attacks(trap)[attack]
    path = tmp_path / "untrusted.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    before = listing(tmp_path)
    done = convnext("convert", path, tmp_path / "out.safetensors", "--to", "canonical")
    assert (done.status, listing(tmp_path)) == (3, before)
    assert f".{named}" in done.err
    assert "may run code" in done.err
    # the trap is one: Python's own unpickler walks into it
    if form == "pickle":
        pickle.loads(path.read_bytes())
        assert trap.exists()


PLAIN = (
    *("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    *("bool_", "complex64", "complex128", "str_", "longlong", "intc"),
)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_training_leaves_is_read(legacy: bool, convnext: Run, tmp_path: Path) -> None:
    file = {
        "model": random_tensors(SMALL),
        "args": Namespace(lr=4e-3, model="convnext_tiny", betas=None),
        "best": [getattr(np, kind)(3) for kind in PLAIN],
    }
    torch.save(file, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=not legacy)
    assert convnext("convert", tmp_path / "checkpoint.pth", tmp_path / "out", "--to", "timm").status == 0


@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_no_plain_value_is_named(legacy: bool, convnext: Run, tmp_path: Path) -> None:
    file = {"model": random_tensors(SMALL), "made": np.datetime64("2026-11-25")}
    torch.save(file, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=not legacy)
    done = convnext("convert", tmp_path / "checkpoint.pth", tmp_path / "out", "--to", "timm")
    assert done.status == 3
    assert "checkpoint.pth is refused: it contains a numpy.dtypes.DateTime64DType" in done.err


def test_the_allow_list_stands_in_the_docs() -> None:
    text = (ROOT / "docs" / "convert.md").read_text()
    for entry in read._allowed():
        kind, name = entry if isinstance(entry, tuple) else (entry, f"{entry.__module__}.{entry.__qualname__}")
        assert f"`{name}`" in text, kind


def test_the_verb_from_python(convnext: Run, made: Path, tmp_path: Path) -> None:
    request = ConvertRequest(source=made, output=tmp_path / "a", layout="hf", layer_norm_eps=1e-5)
    assert pickle.loads(pickle.dumps(request)) == request
    result = convnext_cli.convert(request)
    assert {file.name for file in result.files} == {path.name for path in (tmp_path / "a").iterdir()}
    done = convnext("convert", made, tmp_path / "b", "--to", "hf", "--layer-norm-eps", "1e-5", "--json")
    told = json.loads(done.out)
    assert {"path": str(tmp_path / "a"), "files": [str(file) for file in result.files]} | {
        name: value for name, value in told.items() if name not in ("path", "files")
    } == result.to_dict()
    for file in result.files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        convnext_cli.convert(request)


@pytest.mark.parametrize("wrong", [{"layout": "keras"}, {"dtype": "int8"}, {"layer_norm_eps": 0.0}])
def test_a_request_checks_itself(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ConvertRequest(**{"source": "default", "output": "out", "layout": "hf"} | wrong)
