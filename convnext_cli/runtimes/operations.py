"""The network as a short list of operations, for runtimes that are not torch.

``model/network.py`` says what ConvNeXt is; here it is written once for engines that want a graph, with everything
folded away that is exact: layer scale and GRN's shift into the second pointwise layer, the affine part of every norm
but the stem's into the layer that follows (the stem's is padded and added to, so it has to stay). Folds are computed in
float64. An engine gives the operations (``Ops``), and this module calls them in order.

Tensors are (N, C, H, W) throughout, pointwise layers are 1×1 convolutions: so no layout changes inside the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

import numpy as np

from convnext_cli.model.config import ConvNextConfig

Arrays = Mapping[str, np.ndarray]
Value = TypeVar("Value")  # a tensor of a runtime's graph, of the runtime's own type


class Ops(Protocol[Value]):
    """The operations that a runtime provides, on its own values. Weights are float32 arrays."""

    def conv(
        self, x: Value, weight: np.ndarray, bias: np.ndarray, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Value:
        """weight (out, in / groups, k, k), bias (out,)."""
        ...

    def norm(self, x: Value, kind: str, eps: float) -> Value:
        """Normalise over channels without an affine part; kinds as in ``model.Norm``."""
        ...

    def affine(self, x: Value, scale: np.ndarray, shift: np.ndarray) -> Value:
        """A scale and a shift a channel, both (C,)."""
        ...

    def act(self, x: Value, name: str) -> Value:
        """An activation by the name of ``config.Activation``."""
        ...

    def grn(self, x: Value, gamma: np.ndarray) -> Value:
        """x · (1 + gamma · response), ``model.GRN`` without its shift; gamma (C,)."""
        ...

    def add(self, a: Value, b: Value) -> Value: ...

    def pool(self, x: Value) -> Value:
        """(N, C, H, W) -> (N, C, 1, 1), the mean."""
        ...

    def flatten(self, x: Value) -> Value:
        """(N, C, 1, 1) -> (N, C)."""
        ...


def network(config: ConvNextConfig, tensors: Arrays, ops: Ops[Value], x: Value) -> Value:
    """Logits (N, num_labels) of photos x (N, 3, H, W); pooled features where there is no classifier.

    tensors: by canonical name (``config.shapes()``).
    """
    built = _Network(config, tensors, ops)
    return ops.flatten(built.head(built.pooled(built.body(x))))


def network_with_features(config: ConvNextConfig, tensors: Arrays, ops: Ops[Value], x: Value) -> tuple[Value, Value]:
    """The same logits, and the pooled features (N, C) that the classifier reads (``model.ConvNextOutput``)."""
    built = _Network(config, tensors, ops)
    features = built.affine(built.pooled(built.body(x)))
    return ops.flatten(built.head(features, folded=False)), ops.flatten(features)


class _Network(Generic[Value]):
    def __init__(self, config: ConvNextConfig, tensors: Arrays, ops: Ops[Value]) -> None:
        self.config, self.tensors, self.ops = config, tensors, ops

    def body(self, x: Value) -> Value:
        """What the last stage gives."""
        config = self.config
        x = self._stem(x)
        for i, depth in enumerate(config.depths):
            if i:
                x = self._downsample(x, f"downsample_layers.{i}", 0)
            for j in range(depth):
                x = self._block(x, f"blocks.{j}" if config.bare else f"stages.{i}.{j}", config.kernel_sizes[i])
        return x

    def _stem(self, x: Value) -> Value:
        config, name = self.config, "downsample_layers.0"
        if config.stem == "patch":
            x = self._conv(x, "stem" if config.bare else f"{name}.0", stride=config.patch_size)
            last = 1
        else:
            last = 2 if config.stem == "overlap" else 3
            x = self._conv(x, f"{name}.0", stride=2, padding=1)
            x = x if config.stem == "overlap" else self.ops.act(x, config.hidden_act)
            x = self._conv(x, f"{name}.{last - 1}", stride=2, padding=1)
        if config.stem_norm:
            x = self.ops.affine(self._norm(x), *_float32(*self._affine_of(f"{name}.{last}")))
        return self._downsample(x, name, last + 1) if config.stem_downsample else x

    def _downsample(self, x: Value, name: str, at: int) -> Value:
        return self._conv(self._norm(x), f"{name}.{at + 1}", stride=2, behind=f"{name}.{at}")

    def _block(self, x: Value, name: str, kernel: int) -> Value:
        config, ops = self.config, self.ops
        y = self._conv(x, f"{name}.dwconv", padding=kernel // 2, groups=len(self.tensors[f"{name}.dwconv.weight"]))
        y = self._conv(self._norm(y), f"{name}.pwconv1", behind=f"{name}.norm")
        y = ops.act(y, config.hidden_act)
        weight, bias = self._layer(f"{name}.pwconv2")
        if config.use_grn:
            y = ops.grn(y, *_float32(self._of(f"{name}.grn.gamma").ravel()))
            bias = bias + weight[..., 0, 0] @ self._of(f"{name}.grn.beta").ravel()
        if config.layer_scale_init_value > 0:
            gamma = self._of(f"{name}.gamma")
            weight, bias = weight * gamma[:, None, None, None], bias * gamma
        return ops.add(x, ops.conv(y, *_float32(weight, bias)))

    def pooled(self, x: Value) -> Value:
        """The mean over positions, normalised but for the affine part."""
        config, ops = self.config, self.ops
        if config.head_norm == "before_pool":  # its affine part is the same before and after a mean
            x = self._norm(x, config.layer_norm_eps)
        x = ops.pool(x)
        return self._norm(x, config.layer_norm_eps) if config.head_norm == "after_pool" else x

    def affine(self, x: Value) -> Value:
        """The affine part of the last norm."""
        return x if self.config.head_norm == "none" else self.ops.affine(x, *_float32(*self._affine_of("norm")))

    def head(self, x: Value, *, folded: bool = True) -> Value:
        """The classifier behind the pooled features. folded: their affine part is still to be done."""
        config, ops = self.config, self.ops
        behind = "norm" if folded and config.head_norm != "none" else None
        if config.head_hidden_size:
            # torch's F.gelu whatever the blocks' activation
            x, behind = ops.act(self._conv(x, "head_hidden", behind=behind), "gelu"), None
        if config.num_labels:
            return self._conv(x, "head", behind=behind)
        return self.affine(x) if behind else x

    def _conv(
        self, x: Value, name: str, *, stride: int = 1, padding: int = 0, groups: int = 1, behind: str | None = None
    ) -> Value:
        """A convolution or linear layer; behind: the norm before it whose affine part it takes in."""
        weight, bias = self._layer(name)
        if behind is not None:
            scale, shift = self._affine_of(behind)
            bias = bias + np.einsum("oikl,i->o", weight, shift)
            weight = weight * scale[:, None, None]
        return self.ops.conv(x, *_float32(weight, bias), stride=stride, padding=padding, groups=groups)

    def _norm(self, x: Value, eps: float | None = None) -> Value:
        return self.ops.norm(x, self.config.norm, self.config.norm_eps if eps is None else eps)

    def _layer(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        weight = self._of(f"{name}.weight")
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        bias = f"{name}.bias"
        return weight, self._of(bias) if bias in self.tensors else np.zeros(len(weight))

    def _affine_of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        scale, shift = self._of(f"{name}.weight"), f"{name}.bias"
        return scale, self._of(shift) if shift in self.tensors else np.zeros(len(scale))

    def _of(self, name: str) -> np.ndarray:
        return self.tensors[name].astype(np.float64)


def _float32(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(array, dtype=np.float32) for array in arrays)
