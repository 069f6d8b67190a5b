"""What ``convnext convert`` writes, opened by the libraries' own loaders: strictly, and with the same logits.

Every ordered pair of layouts that can hold a network is converted through the command. timm, transformers and
torchvision open the result themselves. The official repositories are no packages: timm's own reader of their files
stands in for their class, the isotropic forward is written from the paper, and names and shapes are held against the
list of docs/formats.md, written out here by hand. mmpretrain is not installed where tests run; its files are held
against its names, written out by hand from its modules, and nothing more is proven of them here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from convnext_cli import checkpoints
from convnext_cli.checkpoints import canonical
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.network import build
from tests.helpers.command import Run
from tests.helpers.peers import Isotropic
from tests.helpers.tiers import slow_except
from tests.helpers.weights import random_tensors

pytestmark = pytest.mark.peers
Tensors = dict[str, Tensor]

_BODY: dict[str, Any] = {"depths": (1, 2, 3, 1), "hidden_sizes": (16, 24, 32, 48), "layer_norm_eps": 1e-6}
_GRN: dict[str, Any] = {"use_grn": True, "layer_scale_init_value": 0.0}
V1 = ConvNextConfig(**_BODY, num_labels=37)
V2 = ConvNextConfig(**_BODY, **_GRN, num_labels=37)
LARGE_HEAD = {"depths": (1, 1, 1, 1), "hidden_sizes": (8, 8, 8, 16), "layer_norm_eps": 1e-6, "num_labels": 21841}
ISOTROPIC = ConvNextConfig(
    depths=(3,), hidden_sizes=(24,), patch_size=16, stem_norm=False, layer_norm_eps=1e-6, num_labels=37
)
# Networks, and the layouts that hold each; all others must refuse it.
NETWORKS: dict[str, tuple[ConvNextConfig, tuple[str, ...]]] = {
    "V1": (V1, ("canonical", "official", "timm", "torchvision", "hf", "mmpretrain")),
    "V2": (V2, ("canonical", "official", "timm", "hf", "mmpretrain")),
    "V1, 22k": (ConvNextConfig(**LARGE_HEAD), ("canonical", "official", "timm", "torchvision", "hf", "mmpretrain")),
    "V2, 22k": (ConvNextConfig(**LARGE_HEAD, **_GRN), ("canonical", "official", "timm", "hf", "mmpretrain")),
    "V1 without layer scale": (
        V1.replace(layer_scale_init_value=0.0),
        ("canonical", "official", "timm", "hf", "mmpretrain"),
    ),
    "isotropic": (ISOTROPIC.replace(layer_scale_init_value=0.0), ("canonical", "official")),
    "isotropic, layer scale": (ISOTROPIC, ("canonical", "official")),
    "features": (V1.replace(num_labels=0), ("canonical", "timm", "hf", "mmpretrain")),
}
LAYOUTS = ("canonical", "official", "timm", "torchvision", "hf", "mmpretrain")
# The names that a layout's result can have; the first is its usual form.
NAMES = {
    "canonical": ("{}.safetensors",),
    "official": ("{}.pth", "{}.safetensors"),
    "timm": ("{}", "{}.safetensors", "{}.pth"),
    "torchvision": ("{}.pth", "{}.safetensors"),
    "hf": ("{}",),
    "mmpretrain": ("{}.pth",),
}


def write(path: Path, tensors: Tensors, config: ConvNextConfig) -> Path:
    canonical.write(path, tensors, Card(config, sha256=canonical.fingerprint(tensors)))
    return path


def same(ours: Tensors, theirs: Tensors) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )


def state_of(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return load_file(path)
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


# How each library opens a result --------------------------------------------------------------------------------------


def open_timm(path: Path, config: ConvNextConfig) -> nn.Module:
    import timm
    from timm.models.convnext import ConvNeXt

    if path.is_dir():
        made: nn.Module = timm.create_model(f"local-dir:{path}", pretrained=True)  # strict unless told otherwise
        return made
    scale = config.layer_scale_init_value or None
    arguments = {"depths": config.depths, "dims": config.hidden_sizes, "use_grn": config.use_grn}
    made = ConvNeXt(num_classes=config.num_labels, ls_init_value=scale, **arguments)
    made.load_state_dict(state_of(path), strict=True)
    return made


def open_transformers(path: Path, config: ConvNextConfig) -> nn.Module:
    import transformers

    kind = transformers.AutoModelForImageClassification if config.num_labels else transformers.AutoModel
    model, report = kind.from_pretrained(path, output_loading_info=True)
    assert not any(report.values()), report
    assert type(model).__name__ == json.loads((path / "config.json").read_text())["architectures"][0]

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            output = self.model(x)
            found: Tensor = output.logits if config.num_labels else output.pooler_output
            return found

    return Logits()


def open_torchvision(path: Path, config: ConvNextConfig) -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    widths = [*config.hidden_sizes, None]
    blocks = [CNBlockConfig(widths[i], widths[i + 1], depth) for i, depth in enumerate(config.depths)]
    model = ConvNeXt(blocks, num_classes=config.num_labels)
    model.load_state_dict(state_of(path), strict=True)
    return model


def official_names(config: ConvNextConfig) -> set[str]:
    """docs/formats.md, written out."""
    names, blocks = [], []
    if config.isotropic:
        names, blocks = ["stem"], [f"blocks.{j}" for j in range(config.depths[0])]
    else:
        names = [f"downsample_layers.{i}.{k}" for i in range(4) for k in (0, 1)]
        blocks = [f"stages.{i}.{j}" for i in range(4) for j in range(config.depths[i])]
    names += [f"{block}.{part}" for block in blocks for part in ("dwconv", "norm", "pwconv1", "pwconv2")]
    names += ["norm", "head"]
    found = {f"{name}.{leaf}" for name in names for leaf in ("weight", "bias")}
    if config.use_grn:
        found |= {f"{block}.grn.{leaf}" for block in blocks for leaf in ("gamma", "beta")}
    if config.layer_scale_init_value > 0:
        found |= {f"{block}.gamma" for block in blocks}
    return found


def open_official(path: Path, config: ConvNextConfig) -> nn.Module:
    """The isotropic class from the paper; for the others timm, which knows the official files for what they are."""
    state = state_of(path)
    if path.suffix == ".pth":
        assert state.keys() == {"model"}
        state = state["model"]
    assert state.keys() == official_names(config)
    if config.isotropic:
        model: nn.Module = Isotropic(config.hidden_sizes[0], config.depths[0], config.layer_scale_init_value > 0)
        model.load_state_dict(state, strict=True)
        return model
    import timm

    name = "convnext_tiny" if config.layer_scale_init_value else "convnextv2_tiny"  # which has no layer scale
    arguments = {"depths": config.depths, "dims": config.hidden_sizes, "use_grn": config.use_grn}
    cfg = {"file": str(path), "num_classes": config.num_labels, "classifier": "head.fc"}
    made: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg=cfg, **arguments)
    return made


def mmpretrain_names(tensors: Tensors) -> Tensors:
    """mmpretrain/models/backbones/convnext.py: its modules' names, and a linear head's."""
    renamed = {}
    for name, tensor in tensors.items():
        if re.match(r"head\.", name):
            renamed[name.replace("head.", "head.fc.")] = tensor
            continue
        name = name.replace(".dwconv.", ".depthwise_conv.").replace(".pwconv", ".pointwise_conv")
        name = re.sub(r"^norm\.", "norm3.", name)
        renamed[f"backbone.{name}"] = tensor.flatten() if ".grn." in name else tensor
    return renamed


def check_mmpretrain(path: Path, tensors: Tensors) -> None:
    state = state_of(path)
    assert state.keys() == {"meta", "state_dict"}
    assert same(state["state_dict"], mmpretrain_names(tensors))


OPENED: dict[str, Callable[[Path, ConvNextConfig], nn.Module]] = {
    "official": open_official,
    "timm": open_timm,
    "torchvision": open_torchvision,
    "hf": open_transformers,
}


@torch.inference_mode()
def check_logits(path: Path, layout: str, config: ConvNextConfig, tensors: Tensors) -> None:
    """The library opens the result, and computes in float64 what the network computes."""
    model = OPENED[layout](path, config).double().eval()
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    ours, theirs = build(config, wide)(x).logits, model(x)
    span = float(ours.max() - ours.min())
    assert 0.5 < span < 100
    assert theirs.shape == ours.shape
    assert float((theirs - ours).abs().max()) <= 1e-9 * span


# Every pair -----------------------------------------------------------------------------------------------------------

SOURCES = [(network, layout) for network, (_, layouts) in NETWORKS.items() for layout in layouts]


@pytest.mark.parametrize(
    ("network", "source"), slow_except(SOURCES, *(pair for pair in SOURCES if pair[0] in ("V1", "V2")))
)
def test_every_pair(network: str, source: str, convnext: Run, tmp_path: Path) -> None:
    """From one layout into all that can hold the network, in every form; those that cannot write nothing."""
    config, layouts = NETWORKS[network]
    tensors = random_tensors(config)
    first = write(tmp_path / "made.safetensors", tensors, config)
    start = tmp_path / NAMES[source][0].format("start")
    assert convnext("convert", first, start, "--to", source).status == 0
    for target in LAYOUTS:
        for form in NAMES[target]:
            out = tmp_path / form.format(f"out-{target}")
            before = sorted(tmp_path.rglob("*"))
            done = convnext("convert", start, out, "--to", target)
            if target not in layouts:
                assert (done.status, sorted(tmp_path.rglob("*"))) == (3, before), done.err
                assert f"{target} cannot hold this network" in done.err
                continue
            assert done.status == 0, done.err
            back = checkpoints.load(out, dtype="stored")
            assert same(back.tensors, tensors)
            assert back.card.config == config
            if target == "mmpretrain":
                check_mmpretrain(out, tensors)
            elif target != "canonical":
                check_logits(out, target, config, tensors)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_round_trips_leave_every_bit(network: str, dtype: str, convnext: Run, tmp_path: Path) -> None:
    """Through all layouts and forms in turn, and back."""
    config, layouts = NETWORKS[network]
    tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in random_tensors(config, seed=3).items()}
    at = write(tmp_path / "made.safetensors", tensors, config)
    for step, target in enumerate((*layouts, "canonical")):
        for form in NAMES[target]:
            after = tmp_path / form.format(f"{target}-{step}")
            done = convnext("convert", at, after, "--to", target, "--dtype", dtype, "--json")
            assert done.status == 0, done.err
            assert json.loads(done.out)["dtype"] == dtype
            at = after
    found = checkpoints.load(at, dtype="stored", verify=True)
    assert found.layout == "canonical"
    assert same(found.tensors, tensors)


# What only some hold --------------------------------------------------------------------------------------------------

TIMMS_OWN: dict[str, ConvNextConfig] = {
    "overlapping stem": V1.replace(stem="overlap", stem_width=16),
    "tiered stem": V1.replace(stem="overlap", stem_width=8),
    "overlapping stem with activation": V1.replace(stem="overlap_act", stem_width=16, hidden_act="silu"),
    "RMS norm": V1.replace(norm="rms", norm_bias=False),
    "simple norm": V2.replace(norm="simple", norm_bias=False),
    "norm before pooling": V1.replace(head_norm="before_pool"),
    "hidden head": V1.replace(head_hidden_size=40),
    "hidden head, features": V1.replace(head_hidden_size=40, num_labels=0),
    "patches of 2": V1.replace(patch_size=2, stem_downsample=True),
    "convolutions without bias": V1.replace(conv_bias=False),
    "kernels": V1.replace(kernel_sizes=(7, 5, 5, 3)),
    "epsilons": V1.replace(norm_eps=1e-3, layer_norm_eps=1e-3),
    **{
        name: VARIANTS[name].replace(num_labels=5)
        for name in ("test_convnext", "test_convnext3", "convnext_zepto_rms_ols", "convnext_atto_ols")
    },
    "xxlarge's depths": V1.replace(depths=(3, 4, 30, 3), norm_eps=1e-5, layer_norm_eps=1e-5),
}


@pytest.mark.parametrize("network", TIMMS_OWN)
def test_timms_own_networks(network: str, convnext: Run, tmp_path: Path) -> None:
    config = TIMMS_OWN[network]
    tensors = random_tensors(config)
    start = write(tmp_path / "made.safetensors", tensors, config)
    for target in LAYOUTS[1:]:
        out = tmp_path / NAMES[target][0].format(f"out-{target}")
        done = convnext("convert", start, out, "--to", target)
        if target != "timm":
            assert (done.status, out.exists()) == (3, False)
            assert "canonical, timm" in done.err
            continue
        assert done.status == 0, done.err
        check_logits(out, "timm", config, tensors)
        assert convnext("convert", out, tmp_path / "back.safetensors", "--to", "canonical").status == 0
        assert same(checkpoints.load(tmp_path / "back.safetensors").tensors, tensors)
        # and where the card went astray, timm's own words bring the same network back
        (out / "model.safetensors").rename(tmp_path / "with-card.safetensors")
        bare = load_file(tmp_path / "with-card.safetensors")
        torch.save(bare, out / "pytorch_model.bin")
        said = checkpoints.load(out).card.config
        ignored = {name: getattr(config, name) for name in ("image_size", "initializer_range", "drop_path_rate")}
        assert said.replace(**ignored) == config


def test_timm_holds_grn_beside_a_layer_scale_and_so_does_mmpretrain(convnext: Run, tmp_path: Path) -> None:
    config = V2.replace(layer_scale_init_value=1e-6)
    tensors = random_tensors(config)
    start = write(tmp_path / "made.safetensors", tensors, config)
    for target in ("official", "hf"):
        done = convnext("convert", start, tmp_path / NAMES[target][0].format("out"), "--to", target)
        assert done.status == 3
        assert "use_grn" in done.err
    assert convnext("convert", start, tmp_path / "timm", "--to", "timm").status == 0
    check_logits(tmp_path / "timm", "timm", config, tensors)
    assert convnext("convert", start, tmp_path / "mm.pth", "--to", "mmpretrain").status == 0
    check_mmpretrain(tmp_path / "mm.pth", tensors)


@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto"])
def test_named_architectures_need_no_arguments(name: str, convnext: Run, tmp_path: Path) -> None:
    """timm's small models compute with convolutions: the weights have four axes there, and two everywhere else."""
    import timm

    config = VARIANTS[name].replace(num_labels=5)
    tensors = random_tensors(config)
    start = write(tmp_path / "made.safetensors", tensors, config)
    assert convnext("convert", start, tmp_path / "timm", "--to", "timm").status == 0
    said = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert said["architecture"] == name
    assert "model_args" not in said
    check_logits(tmp_path / "timm", "timm", config, tensors)
    assert convnext("convert", start, tmp_path / "timm.bin", "--to", "timm").status == 0
    model = timm.create_model(name, num_classes=5)
    model.load_state_dict(torch.load(tmp_path / "timm.bin", weights_only=True), strict=True)


@pytest.mark.parametrize(
    "config",
    [
        V1.replace(layer_norm_eps=1e-2, hidden_act="silu"),
        V2.replace(hidden_act="gelu_tanh"),
        ConvNextConfig(depths=(1, 2, 1), hidden_sizes=(16, 24, 32), patch_size=8, num_labels=37),
    ],
    ids=["epsilon", "tanh", "patches and stages"],
)
def test_what_transformers_words_carry(config: ConvNextConfig, convnext: Run, tmp_path: Path) -> None:
    tensors = random_tensors(config)
    start = write(tmp_path / "made.safetensors", tensors, config)
    assert convnext("convert", start, tmp_path / "hf", "--to", "hf").status == 0
    check_logits(tmp_path / "hf", "hf", config, tensors)
    done = convnext("convert", start, tmp_path / "official.pth", "--to", "official")
    assert (done.status, (tmp_path / "official.pth").exists()) == (3, False)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_libraries_open_half_precision_as_such(dtype: str, convnext: Run, tmp_path: Path) -> None:
    import timm
    import transformers

    start = write(tmp_path / "made.safetensors", random_tensors(V1), V1)
    for target in ("hf", "timm"):
        assert convnext("convert", start, tmp_path / target, "--to", target, "--dtype", dtype).status == 0
    kind = getattr(torch, dtype)
    assert transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "hf").dtype == kind
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    stored = load_file(tmp_path / "timm" / "model.safetensors")
    assert all(tensor.dtype == kind for tensor in stored.values())
    assert all(torch.equal(model.state_dict()[name].to(kind), tensor) for name, tensor in stored.items())
