"""A classifier that this project did not make: an ONNX file of a mean colour and a linear layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.resize import apply_preprocessing

SIZE = 32


def write_foreign(path: Path, weight: np.ndarray, bias: np.ndarray, *, softmax: bool = False) -> Path:
    """weight: (3, classes). The file says nothing of its labels and its preprocessing."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["photos"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["colours"]),
        helper.make_node("Gemm", ["colours", "weight", "bias"], ["logits" if softmax else "scores"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=1))
    values = {"weight": weight, "bias": bias}
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("photos", TensorProto.FLOAT, ("n", 3, SIZE, SIZE))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("n", weight.shape[1]))],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def train_foreign(path: Path, photos: list[Path], rows: list[int], classes: int, *, softmax: bool = False) -> float:
    """Fit one to photos, whose classes are rows of it, and write it; gives the share that it is right on."""
    preprocessing = Preprocessing.official(SIZE)  # the usual preprocessing, which is taken where a file says nothing
    x = torch.stack(
        [
            torch.from_numpy(apply_preprocessing(preprocessing, Image.open(photo).convert("RGB")).mean((1, 2)))
            for photo in photos
        ]
    )
    target = torch.tensor(rows)
    weight, bias = torch.zeros(3, classes, requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weight + bias, target) + 1e-4 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    write_foreign(path, weight.detach().numpy(), bias.detach().numpy(), softmax=softmax)
    return float(((x @ weight + bias).argmax(1) == target).float().mean())
