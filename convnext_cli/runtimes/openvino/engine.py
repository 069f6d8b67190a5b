"""The OpenVINO engine: the network of ``operations.py`` as a graph of the runtime, without torch.

The graph leaves batch and size open. What it computes in is asked for by name and read back: left alone, OpenVINO takes
bfloat16 on processors that have it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from convnext_cli.base.errors import UnavailableError, lacks_memory
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.runtimes.fixed_shapes import Fixed
from convnext_cli.runtimes.floating_point import Borrowed
from convnext_cli.runtimes.openvino.runtime import op, ov
from convnext_cli.runtimes.operations import Arrays, network, network_with_features

FILE = "model.xml"  # of a prepared engine; model.bin is beside it
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
NEEDS = {"bfloat16": "BF16", "float16": "FP16"}  # capabilities of the device
Form = Literal["parts", "one", "open"]
_SPATIAL, _CHANNELS = (2, 3), (1,)


def graph(config: ConvNextConfig, tensors: Arrays) -> ov.Model:
    """The network as an OpenVINO model of one input (N, 3, H, W), all but the channels open.

    Its outputs are the logits, and the pooled features where there is a classifier.

    tensors: by canonical name; kept alive by the model where they need no folding.
    """
    photos = op.parameter([-1, config.num_channels, -1, -1], np.float32, name="pixel_values")
    photos.output(0).set_names({"pixel_values"})
    if not config.num_labels:
        logits = network(config, tensors, Ops(), photos)
        logits.output(0).set_names({"logits"})
        return ov.Model([op.result(logits)], [photos], "convnext")
    logits, features = network_with_features(config, tensors, Ops(), photos)
    logits.output(0).set_names({"logits"})
    features.output(0).set_names({"features"})
    return ov.Model([op.result(logits), op.result(features)], [photos], "convnext")


def save(model: ov.Model, path: Path) -> None:
    """Write a graph as OpenVINO IR, weights in full precision. Raises OSError when it cannot be written."""
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(str(error).strip().splitlines()[-1]) from error


class Ops:
    """``operations.Ops`` in the operations of opset 15."""

    def conv(
        self, x: ov.Node, weight: np.ndarray, bias: np.ndarray, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> ov.Node:
        steps, pads, dilations = [stride] * 2, [padding] * 2, [1, 1]
        if groups == 1:
            x = op.convolution(x, _constant(weight), steps, pads, pads, dilations)
        else:
            grouped = weight.reshape(groups, -1, *weight.shape[1:])
            x = op.group_convolution(x, _constant(grouped), steps, pads, pads, dilations)
        return op.add(x, _channels(bias))

    def norm(self, x: ov.Node, kind: str, eps: float) -> ov.Node:
        axes = _integers(*_CHANNELS)
        if kind == "layer":
            return op.mvn(x, axes, True, eps, "INSIDE_SQRT")
        if kind == "rms":
            power = op.reduce_mean(op.multiply(x, x), axes, True)
        else:  # "simple": the unbiased variance, and the mean stays
            off = op.subtract(x, op.reduce_mean(x, axes, True))
            n = x.get_output_partial_shape(0)[1].get_length()
            power = op.divide(op.reduce_sum(op.multiply(off, off), axes, True), _constant(np.float32(n - 1)))
        return op.divide(x, op.sqrt(op.add(power, _constant(np.float32(eps)))))

    def affine(self, x: ov.Node, scale: np.ndarray, shift: np.ndarray) -> ov.Node:
        return op.add(op.multiply(x, _channels(scale)), _channels(shift))

    def act(self, x: ov.Node, name: str) -> ov.Node:
        if name in ("gelu", "gelu_tanh"):
            return op.gelu(x, "tanh" if name == "gelu_tanh" else "erf")
        return op.swish(x) if name == "silu" else op.relu(x)

    def grn(self, x: ov.Node, gamma: np.ndarray) -> ov.Node:
        response = op.reduce_l2(x, _integers(*_SPATIAL), True)
        mean = op.add(op.reduce_mean(response, _integers(*_CHANNELS), True), _constant(np.float32(1e-6)))
        factor = op.add(op.multiply(op.divide(response, mean), _channels(gamma)), _constant(np.float32(1)))
        return op.multiply(x, factor)

    def add(self, a: ov.Node, b: ov.Node) -> ov.Node:
        return op.add(a, b)

    def pool(self, x: ov.Node) -> ov.Node:
        return op.reduce_mean(x, _integers(*_SPATIAL), True)

    def flatten(self, x: ov.Node) -> ov.Node:
        return op.squeeze(x, _integers(*_SPATIAL))


def _constant(array: np.ndarray | np.float32) -> ov.Node:
    return op.constant(array, shared_memory=isinstance(array, np.ndarray))


def _channels(values: np.ndarray) -> ov.Node:
    return _constant(values.reshape(1, -1, 1, 1))


def _integers(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int64))


def properties(precision: str, threads: int, streams: int = 1) -> dict[str, str | int | bool]:
    """How a graph is compiled for the CPU. precision: "f32", "bf16" or "f16". streams: requests that run at once, with
    threads of their own."""
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "CPU_DENORMALS_OPTIMIZATION": True,
        # decoders share the cores
        "ENABLE_CPU_PINNING": False,
    }


def split(batch_size: int, threads: int) -> tuple[int, int]:
    """How a batch is computed: in how many streams side by side, and how many photos are a part of it.

    A thread with photos of its own waits for no other after each layer. Streams share the photos and the threads
    evenly, or there is one. Two photos a part are enough for the weights to be read less often.
    """
    even = (n for n in range(min(threads, batch_size // 2), 0, -1) if batch_size % n == threads % n == 0)
    if (streams := next(even, 1)) == 1:
        return 1, batch_size
    share = batch_size // streams
    return streams, next(part for part in range(2, share + 1) if share % part == 0)


class OpenVINOEngine:
    """A graph on the CPU.

    model: the graph, or its file. It is compiled for the parts of batches of batch_size (``split``) at the card's
    size: a fixed shape runs up to a twentieth faster. The last part is filled up with zeros. Other forms are compiled
    when they are needed: for one photo, which takes all threads, where half of the threads or more would have nothing
    to do; and one with all open, for other sizes, which may round differently.
    Raises UnavailableError when this CPU does not compute in dtype.
    """

    name = "openvino"
    photos = False
    fixed = Fixed()
    device = "cpu"

    def __init__(
        self,
        model: ov.Model | Path,
        card: Card,
        *,
        dtype: str = "float32",
        threads: int = 1,
        batch_size: int = 1,
    ) -> None:
        self.card = card
        self.notes: list[str] = []
        self._core = ov.Core()
        if NEEDS.get(dtype, "FP32") not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UnavailableError(
                f"this processor does not compute in {dtype}", "take --dtype float32, or --engine torch, which is slow"
            )
        # what was quantised runs as int8 whatever this says
        precision = PRECISIONS.get(dtype, "f32")
        self._precision, self._threads = precision, threads
        self._model = self._core.read_model(model) if isinstance(model, Path) else model
        self.has_features = len(self._model.outputs) == 2
        self._streams, self._part = split(batch_size, threads)
        self._shape = (card.config.num_channels, *card.preprocessing.size)
        try:
            compiled = self._compile((self._part, *self._shape), self._streams)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            # the batch that comes may be smaller; if it is not, the call says so
            self._shape, compiled = (0, 0, 0), self._compile(None, 1)
        self._forms: dict[Form, ov.CompiledModel] = {"parts" if self._shape[0] else "open": compiled}
        self._requests: dict[Form, list[ov.InferRequest]] = {}
        ran = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.dtype = dtype if ran == precision else {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[ran]

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32. Raises MemoryError when memory does not hold the batch."""
        return self._outputs(batch, 1)[0]

    def with_features(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same logits, and the pooled features (N, C) float32. Raises as a call does."""
        logits, features = self._outputs(batch, 2)
        return logits, features

    def _outputs(self, batch: np.ndarray, count: int) -> list[np.ndarray]:
        """The first outputs, each (N, …) float32."""
        photos = len(batch)
        form, size = self._form(batch.shape)
        if missing := -photos % size:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
        batch = np.ascontiguousarray(batch)
        try:
            outputs = self._run(form, [batch[i : i + size] for i in range(0, len(batch), size)], count)
            return [output[:photos] for output in outputs]
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            raise MemoryError(str(error)) from None

    def _form(self, shape: tuple[int, ...]) -> tuple[Form, int]:
        """In which form a batch is computed, and how many photos at once."""
        photos, *rest = shape
        if tuple(rest) != self._shape:
            return "open", photos
        return ("parts", self._part) if 2 * photos > self._part * self._streams else ("one", 1)

    def _run(self, form: Form, parts: list[np.ndarray], count: int) -> list[np.ndarray]:
        """The first outputs of parts, as many parts at once as there are streams."""
        if form not in self._requests:
            if form not in self._forms:
                self._forms[form] = self._compile((1, *self._shape) if form == "one" else None, 1)
            # twice as many, so that one waits where another ends
            side_by_side = 2 * self._streams if form == "parts" and self._streams > 1 else 1
            self._requests[form] = [self._forms[form].create_infer_request() for _ in range(side_by_side)]
        requests = self._requests[form]
        outputs: list[list[np.ndarray]] = [[] for _ in range(count)]
        begun = 0
        try:
            for i in range(len(parts)):
                while begun < min(len(parts), i + len(requests)):
                    requests[begun % len(requests)].start_async([parts[begun]], share_inputs=True)
                    begun += 1
                request = requests[i % len(requests)]
                request.wait()
                for number, output in enumerate(outputs):
                    output.append(np.array(request.get_output_tensor(number).data))
        finally:
            for request in requests:  # one that ran on would refuse the next batch
                with suppress(RuntimeError):
                    request.wait()
        return [np.concatenate(output) for output in outputs]

    def close(self) -> None:
        """Let go of the compiled forms and the graph."""
        del self._requests, self._forms, self._model

    def _compile(self, shape: tuple[int, ...] | None, streams: int) -> ov.CompiledModel:
        model = self._model
        if shape is not None:
            model = model.clone()
            model.reshape(list(shape))
        with Borrowed().opening():  # it computes in threads of its own, started from here
            return self._core.compile_model(model, "CPU", properties(self._precision, self._threads, streams))
