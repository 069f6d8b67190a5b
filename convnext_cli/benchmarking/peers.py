"""Other libraries on the same weights, each as its own documentation runs it.

A name may go on with how it is run: "timm+compile" (compiled and frozen), "torchvision+channels_last".
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convnext_cli import checkpoints
from convnext_cli.base.errors import UnavailableError, UsageError
from convnext_cli.base.libraries import load_onnxruntime
from convnext_cli.benchmarking.setting import PEER_OPTIONS, PEERS, Setting
from convnext_cli.checkpoints import Checkpoint
from convnext_cli.checkpoints.layouts.huggingface import describe
from convnext_cli.checkpoints.layouts.layout import Layout
from convnext_cli.checkpoints.layouts.timm import written
from convnext_cli.checkpoints.layouts.torchvision import TORCHVISION
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS, ConvNextConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convnext_cli.benchmarking.measure import Subject

_NEEDS = {"onnxruntime": ("onnxruntime", "onnx")}


def parse(name: str) -> tuple[str, set[str]]:
    """The library and the ways of "timm+compile+channels_last". Raises UsageError for an unknown name."""
    library, *ways = name.split("+")
    if library not in PEERS:
        raise UsageError(f"there is no peer {library!r}", f"known are {', '.join(PEERS)}")
    if unknown := set(ways) - set(PEER_OPTIONS) or (ways if library == "onnxruntime" else ()):
        raise UsageError(f"{library} is not run with {', '.join(unknown)}", f"known are {', '.join(PEER_OPTIONS)}")
    return library, set(ways)


def missing(name: str) -> str | None:
    """The libraries to install before this peer can run, None when they are here."""
    library, _ = parse(name)
    lacking = [module for module in _NEEDS.get(library, (library,)) if find_spec(module) is None]
    return " ".join(lacking) or None


def installed(names: str, say: Callable[[str], None]) -> list[str]:
    """Those of "timm,torchvision,…" that can run here; the others are reported to ``say``.

    Raises UsageError for a name that is not known, UnavailableError when none is left.
    """
    peers = list(dict.fromkeys(name.strip() for name in names.split(",")))
    lacking = {name: missing(name) for name in peers}
    for name, what in lacking.items():
        if what:
            say(f"{name} is left out: pip install {what}")
    if present := [name for name in peers if not lacking[name]]:
        return present
    raise UnavailableError(
        "none of these libraries is installed", f"pip install {' '.join(filter(None, lacking.values()))}"
    )


def open_peer(setting: Setting) -> Subject:
    """The peer of a setting as a ``runtimes.protocol.Engine``.

    Raises UnavailableError when the library is not installed, has no such network, or does not compute in the dtype.
    """
    library, ways = parse(setting.peer or "")
    if lacking := missing(library):
        raise UnavailableError(f"{library} is not installed", f"pip install {lacking}")
    checkpoint = checkpoints.load(Path(setting.path))
    if library == "onnxruntime":
        return OnnxRuntime(checkpoint, setting)
    from convnext_cli.benchmarking.networks import TorchNetwork

    layout = "channels_last" if "channels_last" in ways else "contiguous"
    module = _MAKERS[library](checkpoint)
    return TorchNetwork(setting.peer or library, module, checkpoint.card, setting, layout, "compile" in ways)


def architecture(card: Card) -> str:
    """The name in VARIANTS of a network, by its shape; "" when it has none."""
    shape = card.config.replace(num_labels=1000, image_size=224, drop_path_rate=0.0)
    if card.architecture in VARIANTS and _alike(VARIANTS[card.architecture], shape):
        return card.architecture
    return next((name for name, config in VARIANTS.items() if _alike(config, shape)), "")


def _alike(config: ConvNextConfig, other: ConvNextConfig) -> bool:
    more = {"layer_scale_init_value": 1.0} if config.layer_scale_init_value and other.layer_scale_init_value else {}
    same = {"initializer_range": 0.02, "num_labels": 1000, "image_size": 224, **more}
    return config.replace(**same) == other.replace(**same)


def _timm(checkpoint: Checkpoint) -> nn.Module:
    import timm

    card = checkpoint.card
    name = architecture(card)
    if name not in timm.list_models():
        raise UnavailableError(f"timm has no network of the shape of {card.name or 'this one'}", "leave timm out")
    module = timm.create_model(name, pretrained=False, num_classes=card.config.num_labels)
    conv_mlp = any(n.endswith("mlp.fc1.weight") and p.ndim == 4 for n, p in module.named_parameters())
    return _filled(module, checkpoint, written(card.config, conv_mlp=conv_mlp))


def _torchvision(checkpoint: Checkpoint) -> nn.Module:
    from torchvision import models

    name, card = architecture(checkpoint.card), checkpoint.card
    if name not in models.list_models():
        raise UnavailableError(f"torchvision has no network of the shape of {card.name or 'this one'}", "leave it out")
    return _filled(models.get_model(name, num_classes=card.config.num_labels), checkpoint, TORCHVISION)


def _transformers(checkpoint: Checkpoint) -> nn.Module:
    import transformers

    card = checkpoint.card
    described = describe(card.config)
    if described is None or not card.config.num_labels:
        raise UnavailableError(
            f"transformers has no classifier of the shape of {card.name or 'this one'}", "leave it out"
        )
    layout, values = described
    kind = values.pop("architectures")[0]
    config = getattr(transformers, kind.replace("ForImageClassification", "Config"))
    values.pop("model_type")
    return _filled(getattr(transformers, kind)(config(num_labels=card.config.num_labels, **values)), checkpoint, layout)


_MAKERS = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}


def _filled(module: nn.Module, checkpoint: Checkpoint, layout: Layout) -> nn.Module:
    """The library's module with our weights, every one of them. Raises RuntimeError when a name is left over."""
    own = module.state_dict()
    state = {layout.foreign(name) or name: tensor for name, tensor in checkpoint.tensors.items()}
    module.load_state_dict({name: t.reshape(own[name].shape) if name in own else t for name, t in state.items()})
    return module


class OnnxRuntime:
    """The network exported by torch, in ONNX Runtime as it comes: all optimisations, the provider that is named."""

    name, dtype = "onnxruntime", "float32"
    layout = None

    def __init__(self, checkpoint: Checkpoint, setting: Setting) -> None:
        import torch

        ort = load_onnxruntime()

        if setting.dtype != "float32":
            raise UnavailableError("onnxruntime runs an exported network in float32 alone", "take --dtype float32")
        on_gpu = setting.device.startswith("cuda")
        provider = "CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise UnavailableError(f"onnxruntime has no {provider} here", "pip install onnxruntime-gpu")
        self.card = checkpoint.card
        self.notes: list[str] = []
        edge = setting.size or checkpoint.card.preprocessing.size[0]
        options = ort.SessionOptions()
        options.intra_op_num_threads = setting.threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        with tempfile.TemporaryDirectory(prefix="convnext-bench-") as folder:
            file = Path(folder) / "model.onnx"
            example = torch.zeros(setting.batch_size, 3, edge, edge)
            with torch.inference_mode():
                torch.onnx.export(
                    _Logits.of(checkpoints.build(checkpoint)),
                    (example,),
                    str(file),
                    input_names=["pixel_values"],
                    opset_version=20,
                    dynamo=False,
                )
            self._session = ort.InferenceSession(str(file), options, providers=[provider])
        self.provider = self._session.get_providers()[0]
        self.device = "cuda" if self.provider == "CUDAExecutionProvider" else "cpu"

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32; N is the setting's."""
        return np.asarray(self._session.run(None, {"pixel_values": batch})[0])

    def close(self) -> None:
        del self._session


class _Logits:
    """A module that gives the logits alone, since an exporter takes no output class."""

    @staticmethod
    def of(network: nn.Module) -> nn.Module:
        from torch import nn

        class Logits(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, x: Tensor) -> Tensor:
                logits: Tensor = self.network(x).logits
                return logits

        return Logits().eval()
