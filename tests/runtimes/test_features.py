"""The pooled features of every engine, from the same pass as the logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.network import build
from convnext_cli.runtimes import reference
from convnext_cli.runtimes.onnx import graph as onnx_graph
from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine
from convnext_cli.runtimes.openvino import engine as openvino
from convnext_cli.runtimes.protocol import Engine
from convnext_cli.runtimes.torch.engine import TorchEngine
from tests.helpers.weights import SMALL, random_tensors, write_model

CONFIGS = {
    "v1": SMALL,
    "v2": SMALL.replace(use_grn=True, layer_scale_init_value=0.0),
    "norm before the pool": SMALL.replace(head_norm="before_pool"),
    "no norm": SMALL.replace(head_norm="none"),
    "hidden head": SMALL.replace(head_hidden_size=20, hidden_act="silu"),
    "rms": SMALL.replace(norm="rms", norm_bias=False),
}


def open_all(config: ConvNextConfig, tensors: dict[str, torch.Tensor], folder: Path) -> dict[str, Engine]:
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    card = Card(config)
    weights = write_model(folder / "m.safetensors", config)
    model = onnx_graph.graph(config, arrays, card).SerializeToString()
    return {
        "torch": TorchEngine(weights, device="cpu"),
        "two replicas": TorchEngine(weights, device=["cpu", "cpu"]),
        "openvino": openvino.OpenVINOEngine(openvino.graph(config, arrays), card, batch_size=2),
        "onnxruntime": OnnxRuntimeEngine(model, card, device="cpu", dtype="float32"),
    }


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_features_are_what_the_classifier_reads(config: ConvNextConfig, tmp_path: Path) -> None:
    tensors = random_tensors(config)
    network = build(config, {name: tensor.double() for name, tensor in tensors.items()})
    x = np.random.default_rng(1).standard_normal((5, 3, 64, 64)).astype(np.float32)
    with torch.inference_mode():
        *_, last = network.hidden_states(torch.from_numpy(x).double())
        expected = network.pool(last)
        expected_logits = network.classify(expected)
    for name, engine in open_all(config, tensors, tmp_path).items():
        assert engine.has_features, name
        logits, features = engine.with_features(x)
        assert features.dtype == np.float32 and features.shape == (5, config.hidden_sizes[-1]), name
        assert reference.difference(features, expected.numpy()) < 5e-6, name
        assert reference.difference(logits, expected_logits.numpy()) < 5e-6, name
        np.testing.assert_array_equal(engine(x), logits, err_msg=name)
        engine.close()


def test_a_network_without_a_classifier_has_one_output(tmp_path: Path) -> None:
    config = SMALL.replace(num_labels=0)
    for name, engine in open_all(config, random_tensors(config), tmp_path).items():
        assert not engine.has_features, name
        assert engine(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, config.hidden_sizes[-1]), name
        engine.close()
