"""int8 after training: the graph of ``runtimes/openvino/engine.py`` with its large convolutions in eight bits.

The pointwise layers and the downsampling convolutions become int8, nearly all of the arithmetic. The stem reads pixels,
the classifier costs nothing, depthwise layers and norms are bound by memory: they stay float32. OpenVINO rounds in the
kernel that makes a value (the norm's last, or the convolution with its GELU), so that no operation is added.

- Weights: a scale for each output channel, symmetric, -127 to 127, stored as int8.
- Activations: a scale a tensor, unsigned with a zero point, since GELU gives hardly anything below zero.
- Channels of an activation differ much in range. Each is divided by a factor of its own, which the weights behind it
  take in: the share ``SMOOTHING`` of the difficulty goes from the activation to the weights (SmoothQuant, arXiv
  2211.10438). The factors are part of the rounding, and cost nothing.
- Biases make up for what rounding the weights does to the mean of every output channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike

from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.runtimes.openvino.runtime import op, ov

SMOOTHING = 0.6  # the error of the logits is least from 0.6 to 0.7, for the bundled default and with channels far out
FEWEST, MOST = 16, 300  # photos to calibrate with: from 32 on, more change hardly anything
_TINY = 1e-9


def quantise(model: ov.Model, photos: Iterable[np.ndarray], *, threads: int = 1) -> ov.Model:
    """A copy of the model in int8; batch and size stay open. The model itself is not changed.

    model: float32, as ``openvino.graph`` makes it. photos: (3, H, W) float32, as the model takes them; the first
    MOST are looked at, one at a time, and the iterator is left behind them. threads: processor threads to look with.
    Raises UsageError for fewer than FEWEST photos, ModelError when there is nothing to quantise or an activation is not
    finite.
    """
    model = model.clone()
    layers = list(_layers(model))
    if not layers:
        raise ModelError("the network has no layer that int8 makes faster", "take --dtype float32")
    for layer, seen in zip(layers, _ranges(model, layers, photos, threads), strict=True):
        _round(layer, seen)
    model.validate_nodes_and_infer_types()
    return model


@dataclass
class Range:
    """What a layer reads: the least, greatest and mean value of each channel, all (C,) float64."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray


def _layers(model: ov.Model) -> Iterator[ov.Node]:
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        stem = node.input_value(0).get_node().get_type_name() == "Parameter"
        pooled = all(size.is_static and size.get_length() == 1 for size in list(node.get_input_partial_shape(0))[2:])
        if not stem and not pooled:
            yield node


def _ranges(model: ov.Model, layers: list[ov.Node], photos: Iterable[np.ndarray], threads: int) -> list[Range]:
    """Of each layer's input, over the photos."""
    axes = op.constant(np.array([0, 2, 3], np.int64))
    looks = (op.reduce_min, op.reduce_max, op.reduce_mean)
    results = [op.result(look(layer.input_value(0), axes, False)) for layer in layers for look in looks]
    properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    watched = ov.Model(results, model.get_parameters(), "ranges")
    request = ov.Core().compile_model(watched, "CPU", properties).create_infer_request()
    for result in results:  # the compiled form is a copy; the graph is as it was
        result.input_value(0).remove_target_input(result.input(0))

    def look(photo: np.ndarray) -> list[np.ndarray]:
        values = request.infer([photo[None]])
        return [np.asarray(values[i]) for i in range(len(results))]

    return ranges_over(photos, look)


def ranges_over(photos: Iterable[np.ndarray], look: Callable[[np.ndarray], list[np.ndarray]]) -> list[Range]:
    """The ranges of layers over the first MOST photos.

    look: gives the least, greatest and mean values of each layer for a photo, in turn.
    Raises UsageError for fewer than FEWEST photos, ModelError for values that are not finite.
    """
    count, ranges = 0, list[Range]()
    for photo in islice(photos, MOST):
        at = [np.asarray(values, np.float64) for values in look(photo)]
        now = [Range(*at[i : i + 3]) for i in range(0, len(at), 3)]
        ranges = [_join(a, b, count) for a, b in zip(ranges, now, strict=True)] if ranges else now
        count += 1
    if count < FEWEST:
        raise UsageError(
            f"int8 is calibrated with at least {FEWEST} photos, and there are {count or 'none'}",
            "name a folder of some hundred photos like those that will be labelled: --calibrate FOLDER",
        )
    if not all(np.isfinite([seen.low, seen.high, seen.mean]).all() for seen in ranges):
        raise ModelError("the network gives values that are not finite", "its weights are damaged, or of another model")
    return ranges


def _join(a: Range, b: Range, count: int) -> Range:
    """a: of count photos, b: of one more."""
    return Range(np.minimum(a.low, b.low), np.maximum(a.high, b.high), a.mean + (b.mean - a.mean) / (count + 1))


def _round(layer: ov.Node, seen: Range) -> None:
    """Make the layer read and multiply eight bits."""
    weight = _values(layer.input_value(1)).astype(np.float64)
    rounding = rounding_of(seen, weight)
    low, high, factor = rounding.low, rounding.high, rounding.factor
    ranges = [_channels(low * factor), _channels(high * factor), _channels([low]), _channels([high])]
    rounded = op.fake_quantize(layer.input_value(0), *ranges, 256)
    steps = op.convert(op.constant(rounding.steps), np.float32)
    stored = op.multiply(steps, op.constant(rounding.step.reshape(-1, 1, 1, 1)))

    layer.input(0).replace_source_output(rounded.output(0))
    layer.input(1).replace_source_output(stored.output(0))
    _correct(layer, rounding.shift)


@dataclass
class Rounding:
    """How a layer reads and multiplies eight bits.

    factor: what each input channel is divided by, (in,). low, high: the first and last of the 256 steps of the
    quotients, one of which is 0. steps: int8 weights (out, in, k, k), to be multiplied by step, (out,) float32.
    shift: what rounding them adds to each output channel in the mean, (out,).
    """

    factor: np.ndarray
    low: float
    high: float
    steps: np.ndarray
    step: np.ndarray
    shift: np.ndarray


def rounding_of(seen: Range, weight: np.ndarray) -> Rounding:
    """weight: (out, in, k, k) float64; seen: the values that it is multiplied with."""
    factor = _factors(seen, weight)
    low, high = _with_zero(float((seen.low / factor).min()), float((seen.high / factor).max()))
    weight = weight * factor[:, None, None]
    steps, step = round_weights(weight)
    return Rounding(factor, low, high, steps, step, added(weight, steps, step) @ (seen.mean / factor))


def round_weights(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 steps of weights (out, in, k, k), and a step for each out, (out,) float32."""
    step = np.maximum(np.abs(weight).max((1, 2, 3)), _TINY) / 127
    return np.rint(weight / step[:, None, None, None]).astype(np.int8), step.astype(np.float32)


def added(weight: np.ndarray, steps: np.ndarray, step: np.ndarray) -> np.ndarray:
    """What rounding them adds to the weights, over all positions of the kernel: (out, in)."""
    return np.asarray((steps * step[:, None, None, None].astype(np.float64) - weight).sum((2, 3)))


def _factors(seen: Range, weight: np.ndarray) -> np.ndarray:
    """What each input channel is divided by, (C,); their geometric mean is 1."""
    reach = np.maximum(np.maximum(np.abs(seen.low), np.abs(seen.high)), _TINY)
    heaviest = np.maximum(np.abs(weight).max((0, 2, 3)), _TINY)
    logs = SMOOTHING * np.log(reach) - (1 - SMOOTHING) * np.log(heaviest)
    return np.asarray(np.exp(logs - logs.mean()))


def _with_zero(low: float, high: float) -> tuple[float, float]:
    """The range of 256 steps around low and high in which 0 is a step: padding and dead channels stay exact."""
    low, high = min(low, 0.0), max(high, _TINY)
    step = (high - low) / 255
    zero = round(-low / step)
    return -zero * step, (255 - zero) * step


def _correct(layer: ov.Node, shift: np.ndarray) -> None:
    """Take shift, (out,), off the bias that is added to the layer."""
    (target,) = layer.output(0).get_target_inputs()
    bias = _values(target.get_node().input_value(1))
    target.get_node().input(1).replace_source_output(_channels(bias.ravel() - shift).output(0))


def _values(output: ov.Output) -> np.ndarray:
    return np.asarray(output.get_node().data)


def _channels(values: ArrayLike) -> ov.Node:
    return op.constant(np.asarray(values, np.float32).reshape(1, -1, 1, 1))
