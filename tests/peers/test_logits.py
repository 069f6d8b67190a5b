"""The same function as the libraries': logits of random networks, each from a file that the library itself wrote.

Weights are drawn so that every parameter matters (a layer scale of 1e-6 or a GRN of 0 would hide a block). The file is
read without being told whose it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convnext_cli import checkpoints
from tests.helpers.peers import Isotropic, randomise, save_state, save_timm, timm_named, timm_net

pytestmark = pytest.mark.peers


@dataclass
class Case:
    """A library's network: how it is made, saved and run. ``dtype`` is what the run is to be computed in."""

    make: Callable[[], nn.Module]
    save: Callable[[nn.Module, Path], Path]
    run: Callable[[nn.Module, Tensor], Tensor]
    layout: str
    channels: int = 3


# timm -----------------------------------------------------------------------------------------------------------------


def save_safetensors(model: nn.Module, folder: Path) -> Path:
    from safetensors.torch import save_model

    path = folder / "weights.safetensors"
    save_model(model, str(path))
    return path


def timm_case(save: Callable[[nn.Module, Path], Path] = save_state, *, name: str = "", **arguments: Any) -> Case:
    make = partial(timm_named, name, **arguments) if name else partial(timm_net, **arguments)
    return Case(make, save, lambda model, x: model(x), "timm", arguments.get("in_chans", 3))


def training_output(state: dict[str, Tensor]) -> dict[str, Any]:
    """What timm's training script leaves: averaged and plain weights, arguments, figures."""
    from argparse import Namespace

    import numpy as np

    return {
        "state_dict": {f"module.{name}": torch.zeros_like(tensor) for name, tensor in state.items()},
        "state_dict_ema": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        "args": Namespace(model="convnext", lr=1e-3),
        "metric": np.float64(81.5),
        "epoch": 7,
    }


# transformers ---------------------------------------------------------------------------------------------------------


def transformers_net(kind: str, **arguments: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, kind.replace("ForImageClassification", "").replace("Model", "") + "Config")
    sizes = {"depths": [1, 2, 3, 1], "hidden_sizes": [16, 24, 32, 48], "num_labels": 37}
    model: nn.Module = getattr(transformers, kind)(config(**sizes | arguments))
    return model


def save_transformers(model: Any, folder: Path, **arguments: Any) -> Path:
    model.save_pretrained(folder, **arguments)
    return folder


def save_old_transformers(model: Any, folder: Path) -> Path:
    """The form before safetensors: config.json and a pickle."""
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def transformers_case(
    kind: str, save: Callable[[Any, Path], Path] = save_transformers, *, layout: str = "huggingface", **arguments: Any
) -> Case:
    def run(model: nn.Module, x: Tensor) -> Tensor:
        output = model(x)
        result: Tensor = output.pooler_output if kind.endswith("Model") else output.logits
        return result

    return Case(partial(transformers_net, kind, **arguments), save, run, layout, arguments.get("num_channels", 3))


# torchvision, OpenCLIP ------------------------------------------------------------------------------------------------


def torchvision_net(classes: int = 37) -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    widths, depths = (16, 24, 32, 48, None), (1, 2, 3, 1)
    return ConvNeXt([CNBlockConfig(widths[i], widths[i + 1], depths[i]) for i in range(4)], num_classes=classes)


def openclip_net(name: str, embed: int, **vision: Any) -> nn.Module:
    from open_clip import CLIP

    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    tower = {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": 64} | vision
    model: nn.Module = CLIP(embed_dim=embed, vision_cfg=tower, text_cfg=text)
    model.tower = {"embed_dim": embed, "vision_cfg": tower, "text_cfg": text}
    return model


def save_openclip(model: Any, folder: Path) -> Path:
    import json

    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model.tower, "preprocess_cfg": {}}))
    return folder


def openclip_case(name: str, embed: int, **vision: Any) -> Case:
    return Case(partial(openclip_net, name, embed, **vision), save_openclip, lambda m, x: m.encode_image(x), "openclip")


# The official isotropic network has no library; this is its forward, written from the paper. -----------------------


def isotropic_case(gamma: bool) -> Case:
    save = partial(save_state, wrap=lambda state: {"model": state})
    return Case(partial(Isotropic, 24, 3, gamma), save, lambda model, x: model(x), "isotropic")


_V2 = {"use_grn": True, "ls_init_value": None}
_SMALL = {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 48)}
CASES: dict[str, Case] = {
    "timm": timm_case(),
    "timm, safetensors": timm_case(save_safetensors, conv_mlp=True),
    "timm, training output": timm_case(partial(save_state, wrap=training_output)),
    "timm, V2": timm_case(**_V2),
    "timm, V2, convolutions": timm_case(conv_mlp=True, **_V2),
    "timm, norm before pooling": timm_case(head_norm_first=True),
    "timm, hidden head": timm_case(head_hidden_size=40),
    "timm, overlapping stem": timm_case(stem_type="overlap"),
    "timm, tiered stem": timm_case(stem_type="overlap_tiered", conv_mlp=True),
    "timm, overlapping stem with activation": timm_case(stem_type="overlap_act"),
    "timm, RMS norm": timm_case(norm_layer="rmsnorm2d", conv_mlp=True),
    "timm, simple norm": timm_case(norm_layer="simplenorm2d", conv_mlp=True, dims=(32, 40, 48, 64)),
    "timm, patches of 2": timm_case(patch_size=2),
    "timm, patches of 2, V2": timm_case(patch_size=2, conv_mlp=True, **_V2),
    "timm, 12k classes": timm_case(num_classes=11821),
    "timm, 22k classes": timm_case(num_classes=21841),
    "timm, xxlarge's depths and epsilon": timm_case(depths=(3, 4, 30, 3), dims=(8, 8, 8, 8), norm_eps=1e-5),
    "timm, features": timm_case(num_classes=0),
    "timm, one channel": timm_case(in_chans=1),
    "timm, convolutions without bias": timm_case(conv_bias=False),
    "timm, tanh": timm_case(save_timm, name="test_convnext"),
    "timm, silu and kernels": timm_case(save_timm, name="test_convnext3"),
    "timm, zepto": timm_case(partial(save_timm, safe=False), name="convnext_zepto_rms_ols"),
    "timm, arguments": timm_case(
        partial(save_timm, **_SMALL, norm_eps=1e-3, act_layer="silu"),
        name="convnext_tiny",
        **_SMALL,
        norm_eps=1e-3,
        act_layer="silu",
    ),
    "transformers, V1": transformers_case("ConvNextForImageClassification"),
    "transformers, V1, epsilon": transformers_case("ConvNextForImageClassification", layer_norm_eps=1e-2),
    "transformers, V1, sharded": transformers_case(
        "ConvNextForImageClassification", partial(save_transformers, max_shard_size="20KB")
    ),
    "transformers, V1, pickle": transformers_case(
        "ConvNextForImageClassification", save_old_transformers, hidden_act="gelu_new"
    ),
    "transformers, V1, 22k classes": transformers_case("ConvNextForImageClassification", num_labels=21841),
    "transformers, V1, no layer scale": transformers_case("ConvNextForImageClassification", layer_scale_init_value=0.0),
    "transformers, V1, patches and stages": transformers_case(
        "ConvNextForImageClassification", depths=[1, 2, 1], hidden_sizes=[16, 24, 32], num_stages=3, patch_size=8
    ),
    "transformers, V1, features": transformers_case("ConvNextModel", hidden_act="silu"),
    "transformers, V2": transformers_case("ConvNextV2ForImageClassification"),
    "transformers, V2, features": transformers_case("ConvNextV2Model", num_channels=4),
    "transformers, DINOv3": transformers_case("DINOv3ConvNextModel", layout="dinov3"),
    "transformers, DINOv3, epsilon": transformers_case("DINOv3ConvNextModel", layout="dinov3", layer_norm_eps=1e-3),
    "torchvision": Case(torchvision_net, save_state, lambda model, x: model(x), "torchvision"),
    "torchvision, 22k classes": Case(
        partial(torchvision_net, 21841), save_state, lambda model, x: model(x), "torchvision"
    ),
    "OpenCLIP, linear": openclip_case("test_convnext2", 40),
    "OpenCLIP, hidden": openclip_case("test_convnext", 32, timm_proj="mlp"),
    "isotropic": isotropic_case(gamma=False),
    "isotropic, layer scale": isotropic_case(gamma=True),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys(), scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, nn.Module, Path]:
    """The library's network with random weights, and what it saved."""
    case: Case = request.param
    torch.manual_seed(0)
    model = case.make().eval()
    randomise(model)
    return case, model, case.save(model, tmp_path_factory.mktemp("peer"))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@torch.inference_mode()
def test_logits_are_the_librarys(case: tuple[Case, nn.Module, Path], dtype: torch.dtype, tolerance: float) -> None:
    case_, model, path = case
    x = torch.randn(2, case_.channels, 64, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    theirs = case_.run(model.to(dtype), x)

    checkpoint = checkpoints.load(path, dtype=dtype)
    ours = checkpoints.build(checkpoint)(x).logits

    span = float(theirs.max() - theirs.min())
    assert checkpoint.layout == case_.layout
    assert 0.5 < span < 100
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= tolerance * span


def test_every_tensor_matters(case: tuple[Case, nn.Module, Path]) -> None:
    """A tensor that could be changed without moving the logits would be tested by nothing above."""
    checkpoint = checkpoints.load(case[2], dtype=torch.float64)
    model = checkpoints.build(checkpoint)
    x = torch.randn(1, case[0].channels, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits = model(x).logits
    logits[0, ::3].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.norm() * parameter.detach().norm()) > 1e-4 * float(logits.detach().std()), name
