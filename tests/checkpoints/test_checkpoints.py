"""Reading, describing and writing weights: what comes out of ``load``, whatever the file."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from convnext_cli import ConvNextForImageClassification, checkpoints
from convnext_cli.base.errors import ModelError, OutputError
from convnext_cli.checkpoints import canonical, infer_config
from convnext_cli.checkpoints.layouts import timm
from convnext_cli.checkpoints.layouts.layout import Layout
from convnext_cli.checkpoints.layouts.registry import LAYOUTS
from convnext_cli.checkpoints.rename import to_layout
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS
from convnext_cli.model.config import ConvNextConfig as ShapeConfig
from convnext_cli.model.preprocessing import CLIP_MEAN, INCEPTION_MEAN, Preprocessing
from convnext_cli.runtimes.select import open_engine
from tests.helpers.checkpoints import V1, V2, Tensors, canonical_file, draw, same, save
from tests.helpers.tiers import slow_except

# Layouts --------------------------------------------------------------------------------------------------------------


EVERY_LAYOUT = [
    *((name, V1) for name in ("official", "timm", "torchvision", "huggingface", "mmpretrain")),
    *((name, V2) for name in ("official", "timm", "huggingface", "mmpretrain")),
    ("openclip", V1.replace(head_bias=False)),
    ("dinov3", V1.replace(num_labels=0)),
]


@pytest.mark.parametrize(("name", "config"), EVERY_LAYOUT)
def test_every_layout_is_written_and_read_back(name: str, config: ShapeConfig, tmp_path: Path) -> None:
    tensors = draw(config)
    layout = LAYOUTS[name]
    found = checkpoints.load(save(to_layout(tensors, layout), tmp_path / "weights.pth"))
    assert found.layout == name
    assert same(found.tensors, tensors)
    assert found.card.config.replace(layer_norm_eps=1e-6).shapes() == {n: tuple(t.shape) for n, t in tensors.items()}


@pytest.mark.parametrize("config", [*VARIANTS.values(), V1.replace(patch_size=2, stem_downsample=True)], ids=str)
def test_timm_has_one_name_for_every_tensor_of_every_variant(config: ShapeConfig) -> None:
    if config.isotropic:
        assert timm.written(config, conv_mlp=False).foreign("stem.weight") is None
        return
    layout = timm.written(config, conv_mlp=True)
    foreign = {name: layout.foreign(name) for name in config.shapes()}
    assert None not in foreign.values()
    assert len(set(foreign.values())) == len(foreign)
    assert {name: layout.canonical(str(its)) for name, its in foreign.items()} == {name: name for name in foreign}


def test_a_layout_rule_stops_at_a_dot() -> None:
    layout = Layout("x", "", pairs=(("a.{i}", "b.{i}"), ("head", "h")))
    assert layout.canonical("a.12.weight") == "b.12.weight"
    assert layout.canonical("a.1x.weight") is None
    assert layout.canonical("header.weight") is None
    assert layout.foreign("h.bias") == "head.bias"


def test_timms_dilation_of_large_patches_is_refused(tmp_path: Path) -> None:
    """It keeps names and shapes, so the network would load and answer wrongly."""
    for patch, refused in ((7, False), (8, True)):
        path = save(to_layout(draw(V1.replace(patch_size=patch)), LAYOUTS["timm"]), tmp_path / "w.pth")
        if refused:
            with pytest.raises(ModelError, match="dilates"):
                checkpoints.load(path)
        else:
            assert checkpoints.load(path).card.config.patch_size == patch


def mmpretrain_names(tensors: Tensors, linear: bool) -> Tensors:
    """Written out by hand from the library's module names, not by the key map."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace("dwconv", "depthwise_conv").replace("pwconv", "pointwise_conv")
        if name.startswith("head."):
            name = name.replace("head.", "head.fc.")
        else:
            name = "backbone." + (name.replace("norm.", "norm3.") if name.startswith("norm.") else name)
        if "grn" in name:
            tensor = tensor.flatten()
        if not linear and "pointwise" in name and name.endswith("weight"):
            tensor = tensor[:, :, None, None]
        renamed[name] = tensor.clone()
    return renamed


@pytest.mark.parametrize("linear", [True, False])
def test_mmpretrain(linear: bool, tmp_path: Path) -> None:
    tensors = draw(V2)
    renamed = mmpretrain_names(tensors, linear) | {
        "backbone.norm0.weight": torch.ones(8),
        "backbone.norm0.bias": torch.ones(8),
    }
    file = {"meta": {"epoch": 3}, "state_dict": renamed, "message_hub": {}, "optimizer": {"state": {}}}
    found = checkpoints.load(save(file, tmp_path / "epoch_3.pth"))
    assert found.layout == "mmpretrain"
    assert same(found.tensors, tensors)
    assert any("norm0" in note for note in found.notes)


def minkowski(dense: Tensors) -> Tensors:
    """A dense network as sparse pre-training stores it, tap by tap: the x axis runs slowest."""
    sparse: Tensors = {}
    for name, tensor in dense.items():
        if name.endswith("dwconv.weight"):
            c, _, k, _ = tensor.shape
            kernel = torch.empty(k * k, c)
            for x in range(k):
                for y in range(k):
                    kernel[x * k + y] = tensor[:, 0, y, x]
            sparse[name.replace(".weight", ".kernel")] = kernel
        elif name.startswith("downsample_layers") and tensor.ndim == 4 and tensor.shape[-1] == 2:
            kernel = torch.empty(4, tensor.shape[1], tensor.shape[0])
            for x in range(2):
                for y in range(2):
                    kernel[x * 2 + y] = tensor[:, :, y, x].T
            sparse[name.replace(".weight", ".kernel")] = kernel
        elif name.startswith("downsample_layers.0"):
            sparse[name] = tensor
        elif name.endswith("dwconv.bias") or (name.startswith("downsample_layers") and name.endswith("1.bias")):
            sparse[name] = tensor[None].clone()
        elif "grn" in name:
            sparse[name] = tensor.reshape(1, -1).clone()
        elif "pwconv" in name:
            sparse[name.replace(".weight", ".linear.weight").replace(".bias", ".linear.bias")] = tensor
        else:
            sparse[name.replace(".weight", ".ln.weight").replace(".bias", ".ln.bias")] = tensor
    return sparse


def test_sparse_pretraining_files_lose_their_transposes(tmp_path: Path) -> None:
    tensors = draw(V2.replace(num_labels=0, head_norm="none"))
    state = {f"encoder.{name}": tensor for name, tensor in minkowski(tensors).items()}
    state |= {"proj.weight": torch.ones(4, 24, 1, 1), "mask_token": torch.ones(1, 4, 1, 1)}
    state |= {"decoder.0.dwconv.weight": torch.ones(4, 1, 7, 7), "pred.bias": torch.ones(3)}
    found = checkpoints.load(save({"model": state}, tmp_path / "checkpoint-799.pth"))
    assert found.layout == "sparse"
    assert same(found.tensors, tensors)
    assert (found.card.task, found.card.config.head_norm, found.card.labels) == ("features", "none", None)
    assert any("decoder, mask_token, pred, proj" in note for note in found.notes)


def test_isotropic_needs_no_layer_scale(tmp_path: Path) -> None:
    for gamma in (0.0, 1e-6):
        config = VARIANTS["convnext_isotropic_small"].replace(
            depths=(3,), hidden_sizes=(16,), num_labels=5, layer_scale_init_value=gamma
        )
        tensors = draw(config)
        found = checkpoints.load(save({"model": tensors}, tmp_path / f"{gamma}.pth"))
        assert found.layout == "isotropic"
        assert found.card.config == config
        assert same(found.tensors, tensors)


def test_dinov3_official_copies_are_left_out(tmp_path: Path) -> None:
    tensors = draw(V1.replace(num_labels=0))
    copies = {f"norms.3.{leaf}": tensors[f"norm.{leaf}"].clone() for leaf in ("weight", "bias")}
    found = checkpoints.load(save(tensors | copies, tmp_path / "d.pth"))
    assert same(found.tensors, tensors)
    assert found.card.task == "features"


def test_detectors_keep_their_backbone(tmp_path: Path) -> None:
    tensors = draw(V1.replace(num_labels=0, head_norm="none"))
    state = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    state |= {"backbone.norm2.weight": torch.ones(16), "decode_head.conv_seg.weight": torch.ones(3, 3, 1, 1)}
    found = checkpoints.load(save({"state_dict": state, "meta": {}}, tmp_path / "upernet.pth"))
    assert same(found.tensors, tensors)
    assert any("decode_head, norm2" in note for note in found.notes)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.", "model.backbone.", "model.module.net."]
)
@pytest.mark.parametrize("name", ["official", "timm", "huggingface", "dinov3"])
def test_wrappers_are_taken_off(name: str, prefix: str, tmp_path: Path) -> None:
    tensors = draw(V1.replace(num_labels=0))
    state = {prefix + foreign: tensor for foreign, tensor in to_layout(tensors, LAYOUTS[name]).items()}
    found = checkpoints.load(save(state, tmp_path / "w.pth"))
    assert found.layout == name
    assert same(found.tensors, tensors)


def test_compiled_parts_and_features_only_names(tmp_path: Path) -> None:
    tensors = draw(V1.replace(num_labels=0, head_norm="none"))
    state = {
        name.replace("stem.", "stem_").replace("stages.", "stages_").replace("blocks.", "blocks._orig_mod."): tensor
        for name, tensor in to_layout(tensors, LAYOUTS["timm"]).items()
    }
    assert "stages_1.blocks._orig_mod.1.conv_dw.weight" in state
    assert same(checkpoints.load(save(state, tmp_path / "f.pth")).tensors, tensors)


# Training checkpoints -------------------------------------------------------------------------------------------------


def test_official_training_output_prefers_the_average(tmp_path: Path) -> None:
    plain, average = draw(V1, 1), draw(V1, 2)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])
    file = {
        "model": plain,
        "optimizer": optimizer.state_dict(),
        "epoch": 299,
        "scaler": {"scale": 65536.0},
        "args": Namespace(model="convnext_tiny", lr=4e-3, data_path="/data", betas=None, dist=False),
        "model_ema": average,
    }
    found = checkpoints.load(save(file, tmp_path / "checkpoint-best-ema.pth"))
    assert same(found.tensors, average)
    assert any("model_ema" in note and "EMA" in note for note in found.notes)


@pytest.mark.parametrize("legacy", [False, True])
def test_numpy_scalars_do_no_harm(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "last.pth.tar"
    scalars = {"metric": np.float64(81.2), "best": np.float32(3), "step": np.int64(7)}
    file = {"state_dict": draw(V1), "arch": "convnext", **scalars}
    torch.save(file, path, _use_new_zipfile_serialization=not legacy)
    assert same(checkpoints.load(path).tensors, draw(V1))


def test_a_teacher_is_preferred_to_its_student(tmp_path: Path) -> None:
    tensors = draw(V1.replace(num_labels=0))
    state = {f"teacher.backbone.{name}": tensor for name, tensor in tensors.items()}
    state |= {f"student.backbone.{name}": tensor + 1 for name, tensor in tensors.items()}
    found = checkpoints.load(save(state | {"teacher.dino_head.mlp.weight": torch.ones(2, 2)}, tmp_path / "t.pth"))
    assert same(found.tensors, tensors)


# Folders and what describes them --------------------------------------------------------------------------------------


def huggingface_folder(tmp_path: Path, config: dict[str, Any], **files: Any) -> Path:
    save(to_layout(draw(V1), LAYOUTS["huggingface"]), tmp_path / "model.safetensors")
    base = {"model_type": "convnext", "depths": V1.depths, "hidden_sizes": V1.hidden_sizes}
    for name, content in {"config": base | config, **files}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_huggingface_folder(tmp_path: Path) -> None:
    names = {str(i): name for i, name in enumerate(["ant", "bee", "cat", "dog", "eel"])}
    processor = {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 160, "crop_pct": None, "resample": 3}
    folder = huggingface_folder(tmp_path, {"id2label": names, "hidden_act": "gelu_new"}, preprocessor_config=processor)
    card = checkpoints.load(folder).card
    assert card.label_set().names == ("ant", "bee", "cat", "dog", "eel")
    assert (card.config.layer_norm_eps, card.config.norm_eps) == (1e-12, 1e-6)
    assert card.config.hidden_act == "gelu_tanh"
    assert card.preprocessing.size == (160, 160)
    assert checkpoints.load(folder).notes == []


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("multi_label_classification", "multi_label"),
        ("single_label_classification", "single_label"),
        ("regression", "regression"),
        (None, "single_label"),
    ],
)
def test_what_the_head_was_trained_for(said: str | None, problem: str, tmp_path: Path) -> None:
    found = checkpoints.load(huggingface_folder(tmp_path, {"problem_type": said}))
    assert found.card.problem == problem
    assert Card.from_json(found.card.to_json()).problem == problem
    checkpoints.save(found, tmp_path / "own" / "model.safetensors")
    ConvNextForImageClassification.from_pretrained(tmp_path / "own").save_pretrained(tmp_path / "theirs")
    written = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert written.get("problem_type") == (said if problem != "single_label" else None)


def test_a_head_of_one_row_is_a_quantity_and_old_cards_say_nothing_of_it(tmp_path: Path) -> None:
    one = save({"model": draw(V1.replace(num_labels=1))}, tmp_path / "one.pth")
    assert checkpoints.load(one).card.problem == "regression"
    old = json.loads(Card(V1).to_json())
    del old["problem"]
    assert Card.from_json(json.dumps(old)).problem == "single_label"
    with pytest.raises(ModelError, match="problem_type"):
        checkpoints.load(huggingface_folder(tmp_path, {"problem_type": "guessing"}))


def test_a_file_with_a_librarys_name_takes_the_json_beside_it(tmp_path: Path) -> None:
    folder = huggingface_folder(tmp_path, {"layer_norm_eps": 0.5})
    assert checkpoints.load(folder / "model.safetensors").card.config.layer_norm_eps == 0.5
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    found = checkpoints.load(folder / "mine.safetensors")
    assert found.card.config.layer_norm_eps == 1e-6
    assert any("inferred" in note for note in found.notes)
    assert checkpoints.load(folder).card.config.layer_norm_eps == 0.5


def test_names_that_do_not_fit_the_head_are_said(tmp_path: Path) -> None:
    found = checkpoints.load(huggingface_folder(tmp_path, {"id2label": {"0": "ant", "1": "bee"}}))
    assert found.card.labels is None
    assert any("2 classes" in note and "has 5" in note for note in found.notes)


def test_a_config_that_claims_more_blocks_lists_what_is_missing(tmp_path: Path) -> None:
    folder = huggingface_folder(tmp_path, {"depths": [1, 2, 2, 1]})
    with pytest.raises(ModelError) as error:
        checkpoints.load(folder)
    assert "- convnext.encoder.stages.2.layers.1.dwconv.weight" in error.value.message


def timm_folder(tmp_path: Path, config: dict[str, Any], tensors: Tensors | None = None) -> Path:
    save(to_layout(tensors or draw(V1), LAYOUTS["timm"]), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("form", ["nested", "flat"])
def test_timm_folder_in_both_forms(form: str, tmp_path: Path) -> None:
    cfg = {"input_size": [3, 160, 160], "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3, "license": "mit"}
    arguments = {"depths": list(V1.depths), "dims": list(V1.hidden_sizes), "norm_eps": 1e-4, "act_layer": "silu"}
    names = ["ant", "bee", "cat", "dog", "eel"]
    config = {"architecture": "convnext_tiny", "model_args": arguments}
    config |= {"pretrained_cfg": cfg, "label_names": names} if form == "nested" else {**cfg, "labels": names}
    found = checkpoints.load(timm_folder(tmp_path, config))
    card = found.card
    assert (card.preprocessing.size, card.preprocessing.mean, card.license) == ((160, 160), INCEPTION_MEAN, "mit")
    assert (card.config.norm_eps, card.config.layer_norm_eps, card.config.hidden_act) == (1e-4, 1e-4, "silu")
    assert card.label_set().names == tuple(names)
    assert found.notes == []


def test_timms_unknown_arguments_are_said_and_dilation_is_refused(tmp_path: Path) -> None:
    arguments = {"depths": list(V1.depths), "dims": list(V1.hidden_sizes), "head_init_scale": 2, "surprise": 1}
    config: dict[str, Any] = {"architecture": "convnext_tiny", "model_args": arguments}
    assert any("surprise" in note for note in checkpoints.load(timm_folder(tmp_path, config)).notes)
    arguments["output_stride"] = 16
    with pytest.raises(ModelError, match="output stride of 16"):
        checkpoints.load(timm_folder(tmp_path, config))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("config.json", {"model_type": "vit"}),
        ("config.json", {"architecture": "resnet50", "pretrained_cfg": {}}),
        ("config.json", {"architecture": "convnext_tiny", "pretrained_cfg": {}, "global_pool": "max"}),
        ("open_clip_config.json", {"model_cfg": {"vision_cfg": {"layers": 12}}}),
        ("config.json", {"model_type": "convnext", "hidden_act": "mish"}),
    ],
)
def test_another_networks_json_is_refused(name: str, config: dict[str, Any], tmp_path: Path) -> None:
    save(draw(V1), tmp_path / "model.safetensors")
    (tmp_path / name).write_text(json.dumps(config))
    with pytest.raises(ModelError):
        checkpoints.load(tmp_path)


def test_openclip_folds_its_projection(tmp_path: Path) -> None:
    tensors = draw(V1.replace(head_bias=False, head_hidden_size=10))
    state = to_layout(tensors, LAYOUTS["openclip"])
    state["visual.head.mlp.fc2.weight"] = state.pop("visual.head.proj.weight")
    state |= {"logit_scale": torch.ones(()), "transformer.resblocks.0.ln_1.weight": torch.ones(4)}
    save(state, tmp_path / "open_clip_model.safetensors")
    tower = {"timm_model_name": "convnext_large_mlp", "image_size": 320}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": {**tower}}}))
    with pytest.raises(ModelError, match="missing"):  # the name claims a large network
        checkpoints.load(tmp_path)
    (tmp_path / "open_clip_config.json").unlink()
    found = checkpoints.load(tmp_path)
    assert (found.layout, found.card.task, found.card.labels) == ("openclip", "embedding", None)
    assert found.card.preprocessing.mean == CLIP_MEAN
    assert same(found.tensors, tensors)


def test_a_folder_that_tells_of_preprocessing_alone(tmp_path: Path) -> None:
    """What the network is was guessed then, by the variant's own table, and that is said."""
    config = VARIANTS["test_convnext3"]
    save(to_layout(draw(config), LAYOUTS["timm"]), tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 192}))
    found = checkpoints.load(tmp_path)
    assert found.card.preprocessing.size == (192, 192)
    assert (found.card.config.hidden_act, found.card.config.norm_eps, found.card.config.layer_norm_eps) == (
        *("silu", 1e-5, 1e-5),
    )
    assert any("inferred" in note and "test_convnext3" in note for note in found.notes)
    assert not any("preprocessing" in note for note in found.notes)


@pytest.mark.parametrize(
    ("id2label", "names"),
    [
        ({"0": None, "1": "bee", "2": "", "3": "dog", "4": "eel"}, ("LABEL_0", "bee", "LABEL_2", "dog", "eel")),
        ({str(i): None for i in range(5)}, ("class_0", "class_1", "class_2", "class_3", "class_4")),
    ],
)
def test_a_class_that_is_null_has_no_name(id2label: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    assert checkpoints.load(huggingface_folder(tmp_path, {"id2label": id2label})).card.label_set().names == names


def test_image_size_may_be_a_pair(tmp_path: Path) -> None:
    card = checkpoints.load(huggingface_folder(tmp_path, {"image_size": [192, 192]})).card
    assert card.config.image_size == 192
    assert card.preprocessing.size == (192, 192)


def test_shards_are_joined_from_index_folder_or_part(tmp_path: Path) -> None:
    state = to_layout(draw(V1), LAYOUTS["huggingface"])
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, inside in parts.items():
        save({name: state[name] for name in inside}, tmp_path / file)
    index = {"weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for path in (tmp_path, tmp_path / "model.safetensors.index.json", tmp_path / "model-00002-of-00002.safetensors"):
        assert same(checkpoints.load(path).tensors, draw(V1))


# The layout says whose recipe -----------------------------------------------------------------------------------------


def tiny(name: str) -> Tensors:
    """A torchvision-sized network cut thin is none of theirs, so this is the real one, on the meta device's shapes."""
    config = VARIANTS["convnext_tiny"].replace(num_labels=1000)
    return to_layout({n: torch.zeros(1).expand(s).clone() for n, s in config.shapes().items()}, LAYOUTS[name])


def test_a_bare_file_takes_its_librarys_recipe_and_labels(tmp_path: Path) -> None:
    theirs = checkpoints.load(save(tiny("torchvision"), tmp_path / "a.pth"))
    assert theirs.card.preprocessing == Preprocessing.from_torchvision("tiny")
    assert (theirs.card.architecture, theirs.card.labels) == ("convnext_tiny", "imagenet-1k")
    assert any("torchvision's usual" in note for note in theirs.notes)
    assert checkpoints.load(save(tiny("timm"), tmp_path / "b.pth")).card.preprocessing == timm.usual("convnext_tiny")
    assert checkpoints.load(save(tiny("official"), tmp_path / "c.pth")).card.preprocessing == Preprocessing.official()


def test_the_zoo_knows_a_file_by_its_name(tmp_path: Path) -> None:
    found = checkpoints.load(save({"model": tiny("official")}, tmp_path / "convnext_tiny_1k_224_ema.pth"))
    assert found.card.name == "convnext_tiny.fb_in1k"
    assert any("by its name" in note for note in found.notes)
    other = checkpoints.load(save({"model": draw(V1)}, tmp_path / "other" / "convnext_tiny_1k_224_ema.pth"))
    assert other.card.architecture == ""
    assert any("name was ignored" in note for note in other.notes)


@pytest.mark.parametrize(("name", "config"), VARIANTS.items(), ids=VARIANTS)
def test_shapes_tell_every_variant(name: str, config: ShapeConfig) -> None:
    found = infer_config.config_of(config.shapes(), norm_first=config.head_norm == "before_pool")
    assert found.replace(hidden_act=config.hidden_act, image_size=config.image_size) == config or "test_" in name
    assert found.shapes() == config.shapes()
    guess = infer_config.architecture_of(found)
    assert guess == name or VARIANTS[guess].replace(num_labels=0) == config.replace(num_labels=0)


# Numbers --------------------------------------------------------------------------------------------------------------


def test_half_is_cast_once_and_the_fingerprint_is_the_files(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in draw(V1).items()}
    path = save(half, tmp_path / "w.safetensors")
    stored, cast = checkpoints.load(path, dtype="stored"), checkpoints.load(path)
    assert {t.dtype for t in stored.tensors.values()} == {torch.float16}
    assert {t.dtype for t in cast.tensors.values()} == {torch.float32}
    assert stored.card.sha256 == cast.card.sha256 == canonical.fingerprint(half)
    assert checkpoints.load(path, dtype=torch.bfloat16).tensors["norm.weight"].dtype == torch.bfloat16


def test_the_fingerprint_is_of_the_weights_not_of_the_file(tmp_path: Path) -> None:
    tensors = draw(V1)
    files = [
        save(to_layout(tensors, LAYOUTS["timm"]), tmp_path / "a.pth"),
        save(to_layout(tensors, LAYOUTS["torchvision"]), tmp_path / "b.safetensors"),
    ]
    prints = {checkpoints.load(path).card.sha256 for path in files}
    assert prints == {canonical.fingerprint(dict(reversed(tensors.items())))}
    name = "stages.2.0.dwconv.weight"
    assert canonical.fingerprint(tensors | {name: tensors[name].transpose(-1, -2)}) not in prints
    assert canonical.fingerprint(tensors | {name: tensors[name].reshape(16, 49)}) not in prints
    assert canonical.fingerprint({n: t.double() for n, t in tensors.items()}) not in prints


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in draw(V1).items()}
    tensors["stages.1.1.pwconv1.bias"][3] = value
    with pytest.raises(ModelError, match=r"stages\.1\.1\.pwconv1\.bias contains NaN"):
        checkpoints.load(save(tensors, tmp_path / "w.safetensors"))


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    tensors = draw(V1)
    tensors["head.weight"] = tensors["head.weight"].to(torch.int8)
    with pytest.raises(ModelError, match="quantised"):
        checkpoints.load(save(tensors, tmp_path / "w.safetensors"))


def test_strictness_lists_what_differs(tmp_path: Path) -> None:
    tensors = draw(V1)
    del tensors["stages.1.1.norm.bias"]
    tensors["stages.0.0.pwconv2.weight"] = torch.ones(8, 31)
    tensors["stages.3.0.adapter.weight"] = torch.ones(3)
    with pytest.raises(ModelError) as error:
        checkpoints.load(save(tensors, tmp_path / "w.pth"))
    lines = error.value.message.splitlines()
    assert "1 missing, 1 unexpected, 1 of a wrong shape" in lines[0]
    assert "  - stages.1.1.norm.bias" in lines
    assert "  + stages.3.0.adapter.weight" in lines
    assert "  ! stages.0.0.pwconv2.weight: is 8×31, should be 8×32" in lines
    assert error.value.hint


def test_three_hundred_keys_are_not_listed(tmp_path: Path) -> None:
    extra = {f"stages.0.0.lora.{i}": torch.ones(1) for i in range(300)}
    with pytest.raises(ModelError) as error:
        checkpoints.load(save(draw(V1) | extra, tmp_path / "w.pth"))
    assert len(error.value.message.splitlines()) < 20
    assert "288 more" in error.value.message


# Our own format -------------------------------------------------------------------------------------------------------


def test_canonical_files_come_back_exactly(tmp_path: Path) -> None:
    checkpoint, path = canonical_file(tmp_path)
    found = checkpoints.load(path, verify=True)
    assert (found.layout, found.notes) == ("canonical", [])
    assert found.card == checkpoint.card.replace(sha256=canonical.fingerprint(checkpoint.tensors))
    assert same(found.tensors, checkpoint.tensors)
    assert same(load_file(path), checkpoint.tensors)  # and the format's own library reads it
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]


def test_the_same_checkpoint_is_the_same_bytes(tmp_path: Path) -> None:
    _, path = canonical_file(tmp_path)
    once = path.read_bytes()
    checkpoints.save(checkpoints.load(path), path)  # over the file that it is a view of
    assert path.read_bytes() == once


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    _, path = canonical_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert checkpoints.load(path).card.name == "mine"
    with pytest.raises(ModelError, match="changed or damaged"):
        checkpoints.load(path, verify=True)


def test_a_damaged_or_newer_card_is_said(tmp_path: Path) -> None:
    card = json.loads(Card(V1).to_json())
    for damage, words in (({"schema_version": 99}, "schema version 99"), ({"config": {"what": 1}}, "damaged")):
        save_file(draw(V1), tmp_path / "w.safetensors", metadata={"convnext": json.dumps(card | damage)})
        with pytest.raises(ModelError, match=words):
            checkpoints.load(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        *({"labels": value} for value in (["a"], 5, "no-such-set", {"bundled": "no-such-set"}, {"bundled": ["x"]})),
        *({"labels": {"name": "x", "names": names, "lemmas": names}} for names in ([1, 2], ["a", "a"], "ab", None, 3)),
        *({"license": 5}, {"name": ["x"]}, {"source": {}}, {"architecture": None}, {"sha256": 0}),
        *({"metrics": value} for value in ([1], {"top-1": "81"}, {"top-1": float("nan")}, "good")),
        *({"temperature": value} for value in ("x", 0, 1e-300, 1e-40, 1e9, -1.5, float("inf"), True)),
        *({"task": "foo"}, {"problem": "hard"}, {"schema_version": "1"}, {"surprise": 1}),
        *({"config": value} for value in (5, {"depths": 3}, {"norm_eps": 0}, {"hidden_act": "mish"})),
        *({"recipe": value} for value in (None, {"size": [0, 0]}, {"std": [1, 1, 0]}, {"mean": ["x"] * 3})),
    ],
    ids=str,
)
def test_every_wrong_kind_in_a_card_is_said(damage: dict[str, Any], tmp_path: Path) -> None:
    card = json.dumps(json.loads(Card(V1).to_json()) | damage)
    with pytest.raises(ModelError, match="the model's card is damaged"):
        Card.from_json(card)


@pytest.mark.parametrize("text", ["", "[]", "5", "null", "{}", '{"schema_version": 1}', "[" * 100_000])
def test_a_card_that_is_none(text: str) -> None:
    with pytest.raises(ModelError, match="the model's card is damaged"):
        Card.from_json(text)


def test_writing_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    checkpoint, path = canonical_file(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        checkpoints.save(checkpoint, tmp_path / "file" / "w.safetensors")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", path.name]


def test_build_uses_the_tensors_themselves_and_can_leave_the_head_out() -> None:
    checkpoint = checkpoints.Checkpoint(draw(V1), Card(V1), "canonical", Path())
    model = checkpoints.build(checkpoint)
    assert not model.training
    assert model.state_dict()["head.weight"].data_ptr() == checkpoint.tensors["head.weight"].data_ptr()
    x = torch.randn(2, 3, 32, 32)
    assert model(x).logits.shape == (2, 5)
    assert torch.equal(
        checkpoints.build(checkpoint, features=True)(x).logits, model.pool(list(model.hidden_states(x))[-1])
    )


def test_weights_without_a_name_are_called_as_their_file_or_folder(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "birds"
    standard = save(draw(V1), folder / "model.safetensors")
    assert checkpoints.load(folder).card.name == checkpoints.load(standard).card.name == "birds"
    for file in ("last.pth.tar", "last.safetensors"):
        assert checkpoints.load(save(draw(V1), tmp_path / file)).card.name == "last"
    snapshot = tmp_path / "models--ann--insects" / "snapshots" / "0a1b2c"
    save(draw(V1), snapshot / "model.safetensors")
    assert checkpoints.load(snapshot).card.name == "ann/insects"
    ConvNextForImageClassification(V1).save_pretrained(tmp_path / "mine")
    assert checkpoints.load(tmp_path / "mine").card.name == "mine"


def test_weights_for_other_channels_are_for_python_alone(tmp_path: Path) -> None:
    path = save(draw(V1.replace(num_channels=4)), tmp_path / "satellite.pth")
    with pytest.raises(ModelError, match=r"satellite\.pth takes 4-channel photos; this program makes RGB"):
        open_engine(path, device="cpu")
    network = ConvNextForImageClassification.from_pretrained(path)
    assert network(torch.randn(1, 4, 32, 32)).logits.shape == (1, 5)


# Memory ---------------------------------------------------------------------------------------------------------------

PEAK = """
import sys
import torch
from convnext_cli import checkpoints, labels, zoo
from convnext_cli.model import network, preprocessing

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

zoo.entries()
idle = peak()
checkpoint = checkpoints.load(sys.argv[1])
print(peak() - idle)
"""


def big(dtype: torch.dtype) -> Tensors:
    config = VARIANTS["convnext_base"]
    return {n: torch.full((1,), 0.01, dtype=dtype).expand(s).contiguous() for n, s in config.shapes().items()}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("dtype", slow_except([torch.float32, torch.float16], torch.float32))
@pytest.mark.parametrize("suffix", slow_except([".safetensors", ".pth"], ".safetensors"))
def test_loading_adds_little_more_than_the_file(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    """At most 1.3 times the file, and what had to be cast: float32 of a file of halves is twice the file."""
    path = tmp_path / f"w{suffix}"
    tensors = big(dtype)
    save_file(tensors, path) if suffix == ".safetensors" else torch.save({"model": tensors}, path)
    size = path.stat().st_size
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    path.unlink()
    assert int(done.stdout) <= 1.3 * size + (2 * size if dtype is torch.float16 else 0)
