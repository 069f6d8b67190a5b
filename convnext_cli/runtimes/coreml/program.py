"""``operations.Ops`` in the operations of Core ML's intermediate language (MIL), and the package of them.

After coremltools' guide (apple.github.io/coremltools, "Model Intermediate Language", "Flexible Input Shapes").
"""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Var, get_new_symbol

from convnext_cli.model.card import METADATA_KEY, Card
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.operations import Arrays, network, network_with_features

INPUT = "pixel_values"
MOST, LARGEST = 64, 4096  # photos a call and pixels of an edge, where they are open
_TARGET = ct.target.iOS16  # and macOS 13
_FUSES_IN_FLOAT32_ALONE = "common::fuse_elementwise_to_batchnorm"  # and raises in float16
_CHANNELS, _SPATIAL = [1], [2, 3]


def save(card: Card, temperature: float, arrays: Arrays, plan: Plan, path: Path) -> None:
    """Write the package. arrays: by canonical name. Raises ValueError for what Core ML cannot hold."""
    config, ops = card.config, Ops(half=plan.dtype == "float16")
    height, width = plan.size or card.preprocessing.size
    batch = plan.batch or ct.RangeDim(1, MOST, default=1)
    edges = [height, width]
    if plan.size is None:
        edges = [ct.RangeDim(config.stride, LARGEST, default=edge) for edge in edges]
    shape = [get_new_symbol() if isinstance(n, ct.RangeDim) else n for n in (batch, config.num_channels, *edges)]

    @mb.program(input_specs=[mb.TensorSpec(shape=tuple(shape))], opset_version=_TARGET)  # type: ignore[untyped-decorator]
    def program(pixel_values: Var) -> tuple[Var, ...]:
        x, features = ops.narrow(pixel_values), []
        if plan.features:
            logits, pooled = network_with_features(config, arrays, ops, x)
            features.append(ops.named(pooled, "features"))
        else:
            logits = network(config, arrays, ops, x)
        name = "scores" if plan.scores else "logits"
        first = ops.scores(logits, card.problem, temperature) if plan.scores else logits
        return (ops.named(first, name), *features)

    passes = ct.PassPipeline.DEFAULT
    passes.remove_passes({_FUSES_IN_FLOAT32_ALONE})
    photos = ct.TensorType(INPUT, shape=ct.Shape((batch, config.num_channels, *edges)), dtype=np.float32)
    package = ct.convert(
        program,
        source="milinternal",
        convert_to="mlprogram",
        inputs=[photos],
        # casts are in the program
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=_TARGET,
        pass_pipeline=passes,
        skip_model_load=True,
    )
    package.user_defined_metadata[METADATA_KEY] = card.to_json(full=True)
    package.short_description = card.description or f"ConvNeXt, {card.name or card.architecture}"
    package.license, package.author = card.license, card.source
    package.save(str(path))


class Ops:
    """half: compute in float16 but for norms and sums of squares, which overflow."""

    def __init__(self, *, half: bool) -> None:
        self._dtype = np.float16 if half else np.float32

    def conv(
        self, x: Var, weight: np.ndarray, bias: np.ndarray, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Var:
        return mb.conv(
            x=x,
            weight=self._constant(weight),
            bias=self._constant(bias),
            strides=[stride] * 2,
            pad_type="custom",
            pad=[padding] * 4,
            groups=groups,
        )

    def norm(self, x: Var, kind: str, eps: float) -> Var:
        x = self.widen(x)
        if kind == "layer":
            return self.narrow(mb.layer_norm(x=x, axes=_CHANNELS, epsilon=np.float32(eps)))
        if kind == "rms":
            power = mb.reduce_mean(x=mb.mul(x=x, y=x), axes=_CHANNELS, keep_dims=True)
        else:  # "simple": the unbiased variance, and the mean stays
            off = mb.sub(x=x, y=mb.reduce_mean(x=x, axes=_CHANNELS, keep_dims=True))
            power = mb.reduce_sum(x=mb.mul(x=off, y=off), axes=_CHANNELS, keep_dims=True)
            power = mb.mul(x=power, y=np.float32(1 / (x.shape[1] - 1)))
        return self.narrow(mb.mul(x=x, y=mb.rsqrt(x=power, epsilon=np.float32(eps))))

    def affine(self, x: Var, scale: np.ndarray, shift: np.ndarray) -> Var:
        return mb.add(x=mb.mul(x=x, y=self._channels(scale)), y=self._channels(shift))

    def act(self, x: Var, name: str) -> Var:
        if name in ("gelu", "gelu_tanh"):
            return mb.gelu(x=x, mode="EXACT" if name == "gelu" else "TANH_APPROXIMATION")
        return mb.silu(x=x) if name == "silu" else mb.relu(x=x)

    def grn(self, x: Var, gamma: np.ndarray) -> Var:
        response = mb.reduce_l2_norm(x=self.widen(x), axes=_SPATIAL, keep_dims=True)
        mean = mb.add(x=mb.reduce_mean(x=response, axes=_CHANNELS, keep_dims=True), y=np.float32(1e-6))
        share = mb.mul(x=mb.real_div(x=response, y=mean), y=gamma.reshape(1, -1, 1, 1))
        return mb.mul(x=x, y=self.narrow(mb.add(x=share, y=np.float32(1))))

    def add(self, a: Var, b: Var) -> Var:
        return mb.add(x=a, y=b)

    def pool(self, x: Var) -> Var:
        return self.narrow(mb.reduce_mean(x=self.widen(x), axes=_SPATIAL, keep_dims=True))

    def flatten(self, x: Var) -> Var:
        return mb.squeeze(x=x, axes=_SPATIAL)

    def scores(self, logits: Var, problem: str, temperature: float) -> Var:
        """What the problem (``card.Problem``) makes of logits, float32."""
        logits = self.widen(logits)
        if problem == "multi_label":
            return mb.sigmoid(x=logits)
        return mb.softmax(x=mb.mul(x=logits, y=np.float32(1 / temperature)), axis=1)

    def named(self, x: Var, name: str) -> Var:
        """An output, float32."""
        return mb.identity(x=self.widen(x), name=name)

    def narrow(self, x: Var) -> Var:
        """To what the network computes in."""
        return mb.cast(x=x, dtype="fp16") if self._dtype == np.float16 else x

    def widen(self, x: Var) -> Var:
        """To float32."""
        return mb.cast(x=x, dtype="fp32") if self._dtype == np.float16 else x

    def _constant(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            narrow = values.astype(self._dtype)
        if not np.isfinite(narrow).all():
            raise ValueError("a weight is too large for float16; take --dtype float32")
        return narrow

    def _channels(self, values: np.ndarray) -> np.ndarray:
        return self._constant(values.reshape(1, -1, 1, 1))
