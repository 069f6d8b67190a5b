"""ONNX files of other programs: their scores are those of onnxruntime run by hand, whatever stands at their end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from convnext_cli.base.errors import ModelError
from convnext_cli.model.card import METADATA_KEY, Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.predict.scoring import SCORES, score
from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES
from tests.helpers.tiers import slow_except

Nodes = list[onnx.NodeProto]
node = helper.make_node
CLASSES = 6
U8 = TensorProto.UINT8


def constant(name: str, value: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


CONSTANTS = [
    constant("one", 1),
    constant("zero", 0),
    constant("half", 0.5),
    constant("temperature", 0.4),
    constant("hundred", 100),
    constant("shape", [-1, CLASSES], np.int64),
    constant("shape4", [-1, CLASSES, 1, 1], np.int64),
    constant("shape3", [-1, 1, CLASSES], np.int64),
    constant("axes1", [1], np.int64),
    constant("axes23", [2, 3], np.int64),
    constant("axis", [-1], np.int64),
    constant("order", list(range(CLASSES)), np.int64),
    constant("start", [0], np.int64),
    constant("end", [CLASSES], np.int64),
    constant("scale", 1 / 256),
    constant("point", 0, np.uint8),
    constant("small", 1e-7),
    constant("yes", True, bool),
    constant("trips", 1, np.int64),
]


def network(
    tail: Nodes,
    *,
    shape: tuple[Any, ...] = ("n", 3, 32, 32),
    head: Nodes | None = None,
    pooled: str = "input",
    input_type: int = TensorProto.FLOAT,
    output_shape: tuple[Any, ...] = ("n", CLASSES),
    output_type: int = TensorProto.FLOAT,
    outputs: dict[str, tuple[Any, ...]] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    producer: str = "",
    classes: int = CLASSES,
    extra: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    """Mean colours through one linear layer, "x", and behind it the tail, whose last value is "y"."""
    axes = [2, 3] if not (shape[3] == 3 != shape[1]) or pooled == "nchw" else [1, 2]
    weight = np.random.default_rng(0).standard_normal((3, classes)).astype(np.float32) * 3
    first = head or []
    nodes = [
        *first,
        node("ReduceMean", [pooled], ["mean"], axes=axes, keepdims=0),
        node("MatMul", ["mean", "weight"], ["product"]),
        node("Add", ["product", "bias"], ["x"]),
        *tail,
    ]
    weights = [numpy_helper.from_array(weight, "weight"), constant("bias", np.linspace(-1, 1, classes))]
    out = {"y": output_shape} if outputs is None else outputs
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("input", input_type, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.INT64 if name == "best" else output_type, size)
            for name, size in out.items()
        ],
        [*weights, *CONSTANTS, *(extra or [])],
    )
    opsets = [helper.make_opsetid("", 13), *([helper.make_opsetid("own", 1)] if functions else [])]
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=opsets, ir_version=8, functions=functions or [], producer_name=producer
    )
    onnx.checker.check_model(model)
    return model


def by_hand(model: onnx.ModelProto, x: np.ndarray, output: str = "y") -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run([output], {"input": x})
    return np.asarray(found, np.float32).reshape(len(x), -1)


def scores(engine: OnnxRuntimeEngine, x: np.ndarray) -> np.ndarray:
    """As the command prints them."""
    return np.stack([score(row, SCORES[engine.card.problem]) for row in engine(x)])


def opened(model: onnx.ModelProto) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(model.SerializeToString(), None)


PHOTOS = (2 * np.random.default_rng(1).standard_normal((5, 3, 32, 32))).astype(np.float32) + np.linspace(
    -1, 1, 15, dtype=np.float32
).reshape(5, 3, 1, 1)


def _branch(name: str, kind: str) -> onnx.GraphProto:
    return helper.make_graph(
        [node(kind, ["x"], [name], **({"axis": 1} if kind == "Softmax" else {}))],
        name,
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", CLASSES))],
    )


def _loop() -> onnx.GraphProto:
    return helper.make_graph(
        [node("Identity", ["c"], ["co"]), node("Softmax", ["x"], ["vo"], axis=1)],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("co", TensorProto.BOOL, []),
            helper.make_tensor_value_info("vo", TensorProto.FLOAT, None),
        ],
    )


SOFTMAX = node("Softmax", ["x"], ["s"], axis=1)
TAILS: dict[str, Nodes] = {
    "softmax": [node("Softmax", ["x"], ["y"], axis=1)],
    "identity": [SOFTMAX, node("Identity", ["s"], ["y"])],
    "cast": [SOFTMAX, node("Cast", ["s"], ["c"], to=TensorProto.DOUBLE), node("Cast", ["c"], ["y"], to=1)],
    "flatten": [SOFTMAX, node("Flatten", ["s"], ["y"])],
    "reshape": [SOFTMAX, node("Reshape", ["s", "shape"], ["y"])],
    "squeeze": [
        node("Reshape", ["x", "shape4"], ["r"]),
        node("Softmax", ["r"], ["s"], axis=1),
        node("Squeeze", ["s", "axes23"], ["y"]),
    ],
    "transpose of axes of one": [
        node("Reshape", ["x", "shape4"], ["r"]),
        node("Softmax", ["r"], ["s"], axis=1),
        node("Transpose", ["s"], ["t"], perm=[0, 2, 3, 1]),
        node("Flatten", ["t"], ["y"]),
    ],
    "dropout": [SOFTMAX, node("Dropout", ["s"], ["y"])],
    "slice of all": [SOFTMAX, node("Slice", ["s", "start", "end", "axes1"], ["y"])],
    "gather of all": [SOFTMAX, node("Gather", ["s", "order"], ["y"], axis=1)],
    "times one": [SOFTMAX, node("Mul", ["s", "one"], ["m"]), node("Add", ["zero", "m"], ["y"])],
    "concat of one": [SOFTMAX, node("Concat", ["s"], ["y"], axis=1)],
    "temperature": [node("Div", ["x", "temperature"], ["d"]), node("Softmax", ["d"], ["y"], axis=1)],
    "exp of log": [node("LogSoftmax", ["x"], ["l"], axis=1), node("Exp", ["l"], ["y"])],
    "written out": [
        node("Exp", ["x"], ["e"]),
        node("ReduceSum", ["e", "axis"], ["t"], keepdims=1),
        node("Div", ["e", "t"], ["y"]),
    ],
    "written out, safely": [
        node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=1),
        node("Sub", ["x", "m"], ["d"]),
        node("Exp", ["d"], ["e"]),
        node("ReduceSum", ["e", "axis"], ["t"], keepdims=1),
        node("Reciprocal", ["t"], ["r"]),
        node("Mul", ["r", "e"], ["y"]),
    ],
    "powers": [
        node("Exp", ["x"], ["e"]),
        node("ReduceL1", ["e"], ["t"], axes=[1], keepdims=1),
        node("Div", ["e", "t"], ["y"]),
    ],
    "clipped": [SOFTMAX, node("Clip", ["s", "small", "one"], ["y"])],
    "mean of two": [SOFTMAX, node("Mean", ["s", "s"], ["y"])],
    "quantised": [
        SOFTMAX,
        node("QuantizeLinear", ["s", "scale", "point"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "point"], ["y"]),
    ],
    "in an if": [node("If", ["yes"], ["y"], then_branch=_branch("a", "Softmax"), else_branch=_branch("b", "Softmax"))],
    "in a loop": [node("Loop", ["trips", "yes", "x"], ["y"], body=_loop())],
}


@pytest.mark.parametrize("name", TAILS)
def test_softmax_in_disguise(name: str) -> None:
    """Scores come out as the file gives them: a second softmax would make them nearly equal."""
    model = network(TAILS[name])
    engine, right = opened(model), by_hand(model, PHOTOS)
    tolerance = 0.02 if name == "quantised" else 1e-5
    assert np.abs(scores(engine, PHOTOS) - right).max() < tolerance
    assert right.max() > 0.5 and "ends with a softmax" in " ".join(engine.notes)


def test_softmax_within_a_function() -> None:
    function = helper.make_function(
        "own", "Head", ["a"], ["b"], [node("Softmax", ["a"], ["b"], axis=1)], [helper.make_opsetid("", 13)]
    )
    tail = [node("Head", ["x"], ["h"], domain="own"), node("Identity", ["h"], ["y"])]
    model = network(tail, functions=[function])
    assert np.abs(scores(opened(model), PHOTOS) - by_hand(model, PHOTOS)).max() < 1e-5


MIXED: dict[str, Nodes] = {
    "plus a little": [SOFTMAX, node("Add", ["s", "small"], ["y"])],
    "mean of two": [
        SOFTMAX,
        node("Mul", ["x", "half"], ["x2"]),
        node("Softmax", ["x2"], ["s2"], axis=1),
        node("Add", ["s", "s2"], ["sum"]),
        node("Mul", ["sum", "half"], ["y"]),
    ],
    "weighted": [
        SOFTMAX,
        node("Softmax", ["product"], ["s2"], axis=1),
        node("Mul", ["s", "share"], ["a"]),
        node("Mul", ["s2", "rest"], ["b"]),
        node("Add", ["a", "b"], ["y"]),
    ],
    "classes in another order": [SOFTMAX, node("MatMul", ["s", "turned"], ["y"])],
    "classes by a layer": [SOFTMAX, node("Gemm", ["s", "turned"], ["y"])],
    "smoothed": [SOFTMAX, node("Mul", ["s", "rest"], ["a"]), node("Add", ["a", "part"], ["y"])],
    "one less all others": [SOFTMAX, node("Sub", ["one", "s"], ["o"]), node("Sub", ["one", "o"], ["y"])],
}


@pytest.mark.parametrize("name", MIXED)
def test_linear_operations_on_a_softmax_give_scores(name: str) -> None:
    more = [
        constant("share", 0.3),
        constant("rest", 0.7),
        constant("part", 0.3 / CLASSES),
        constant("turned", np.eye(CLASSES)[::-1]),
    ]
    model = network(MIXED[name], extra=more)
    engine = opened(model)
    assert np.abs(scores(engine, PHOTOS) - by_hand(model, PHOTOS)).max() < 1e-5
    assert any("softmax" in note for note in engine.notes)


JOINED: dict[str, Nodes] = {
    "concat": [
        SOFTMAX,
        node("Neg", ["x"], ["n"]),
        node("Softmax", ["n"], ["s2"], axis=1),
        node("Concat", ["s", "s2"], ["c"], axis=1),
        node("Identity", ["c"], ["y"]),
    ],
    "softmax over parts": [
        node("Concat", ["x", "x"], ["xx"], axis=1),
        node("Reshape", ["xx", "parts"], ["r"]),
        node("Softmax", ["r"], ["s"], axis=2),
        node("Flatten", ["s"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", JOINED)
def test_several_softmaxes_in_one_output_are_refused(name: str) -> None:
    parts = [constant("parts", [-1, 2, CLASSES], np.int64)]
    with pytest.raises(ModelError, match="joins 2 heads in one output") as raised:
        opened(network(JOINED[name], output_shape=("n", 2 * CLASSES), extra=parts))
    assert "export one head alone" in str(raised.value.hint)


QUANTISED: dict[str, tuple[int, Nodes]] = {
    "double": (TensorProto.DOUBLE, [SOFTMAX, node("Cast", ["s"], ["y"], to=TensorProto.DOUBLE)]),
    "uint8": (TensorProto.UINT8, [SOFTMAX, node("QuantizeLinear", ["s", "scale", "point"], ["y"])]),
    "int8": (TensorProto.INT8, [SOFTMAX, node("QuantizeLinear", ["s", "scale", "low"], ["y"])]),
    "uint8 of logits": (TensorProto.UINT8, [node("QuantizeLinear", ["x", "step", "middle"], ["y"])]),
}
QUANTISERS = [constant("low", -128, np.int8), constant("step", 0.2), constant("middle", 128, np.uint8)]


@pytest.mark.parametrize("name", QUANTISED)
def test_outputs_of_other_types_are_read(name: str) -> None:
    output_type, tail = QUANTISED[name]
    right = by_hand(network([SOFTMAX, node("Identity", ["s"], ["y"])]), PHOTOS)
    engine = opened(network(tail, output_type=output_type, extra=QUANTISERS))
    most = 1e-5 if name == "double" else 0.06 if "logits" in name else 0.02
    assert np.abs(scores(engine, PHOTOS) - right).max() < most
    assert engine.card.problem == "single_label"


def test_bytes_without_a_scale_are_refused() -> None:
    tail = [SOFTMAX, node("Mul", ["s", "hundred"], ["m"]), node("Cast", ["m"], ["y"], to=TensorProto.UINT8)]
    with pytest.raises(ModelError, match="has no output of scores"):
        opened(network(tail, output_type=TensorProto.UINT8))


def test_photos_in_double_are_made() -> None:
    model = network(
        [node("Softmax", ["x"], ["y"], axis=1)],
        head=[node("Cast", ["input"], ["in"], to=1)],
        pooled="in",
        input_type=TensorProto.DOUBLE,
    )
    assert np.abs(scores(opened(model), PHOTOS) - by_hand(model, PHOTOS.astype(np.float64))).max() < 1e-5


def test_scores_in_the_order_of_their_size_are_refused() -> None:
    best = node("TopK", ["s", "three"], ["y", "indices"], axis=1)
    model = network([SOFTMAX, best], output_shape=("n", 3), extra=[constant("three", [3], np.int64)])
    with pytest.raises(ModelError, match="only the best scores"):
        opened(model)


def test_percentages_of_single_labels_are_refused() -> None:
    model = network([node("Sigmoid", ["x"], ["s"]), node("Mul", ["s", "hundred"], ["y"])])
    with pytest.raises(ModelError, match="a percentage for each label"):
        opened(model)


def test_percent_are_shares_too() -> None:
    model = network([SOFTMAX, node("Mul", ["s", "hundred"], ["y"])])
    assert np.abs(scores(opened(model), PHOTOS) - by_hand(model, PHOTOS) / 100).max() < 1e-5


LOGITS: dict[str, Nodes] = {
    "plain": [node("Identity", ["x"], ["y"])],
    "logarithms": [node("LogSoftmax", ["x"], ["y"], axis=1)],
    "log of softmax": [SOFTMAX, node("Log", ["s"], ["y"])],
    "over a temperature": [node("Div", ["x", "temperature"], ["y"])],
    "squeezed": [node("Reshape", ["x", "shape4"], ["r"]), node("Squeeze", ["r", "axes23"], ["y"])],
}


@pytest.mark.parametrize("name", LOGITS)
def test_logits_stay_logits(name: str) -> None:
    model = network(LOGITS[name])
    engine, right = opened(model), by_hand(model, PHOTOS)
    assert np.allclose(engine(PHOTOS), right, atol=1e-6) and engine.card.problem == "single_label"
    assert len(engine.notes) == 1


SIGMOIDS: dict[str, Nodes] = {
    "sigmoid": [node("Sigmoid", ["x"], ["y"])],
    "cast": [node("Sigmoid", ["x"], ["s"]), node("Cast", ["s"], ["c"], to=11), node("Cast", ["c"], ["y"], to=1)],
    "written out": [
        node("Neg", ["x"], ["n"]),
        node("Exp", ["n"], ["e"]),
        node("Add", ["one", "e"], ["a"]),
        node("Div", ["one", "a"], ["y"]),
    ],
    "reciprocal": [
        node("Neg", ["x"], ["n"]),
        node("Exp", ["n"], ["e"]),
        node("Add", ["e", "one"], ["a"]),
        node("Reciprocal", ["a"], ["y"]),
    ],
    "tanh": [
        node("Mul", ["x", "half"], ["h"]),
        node("Tanh", ["h"], ["t"]),
        node("Mul", ["t", "half"], ["u"]),
        node("Add", ["u", "half"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", SIGMOIDS)
def test_sigmoids_are_several_labels_a_photo(name: str) -> None:
    model = network(SIGMOIDS[name])
    engine, right = opened(model), by_hand(model, PHOTOS)
    assert engine.card.problem == "multi_label"
    assert np.abs(scores(engine, PHOTOS) - right).max() < 1e-5
    assert "ends with a sigmoid" in " ".join(engine.notes)


def test_unclear_scores_between_0_and_1_are_said() -> None:
    """The network never comes near 1: whether these are shares of anything, nobody knows."""
    tail = [node("Sigmoid", ["x"], ["s"]), node("Mul", ["s", "half"], ["h"]), node("Sqrt", ["h"], ["y"])]
    engine = opened(network(tail))
    assert engine.card.problem == "single_label"
    assert any("not clear what they are" in note for note in engine.notes)


@pytest.mark.parametrize("shape", ["shape4", "shape3"])
def test_outputs_with_axes_of_one(shape: str) -> None:
    size = ("n", CLASSES, 1, 1) if shape == "shape4" else ("n", 1, CLASSES)
    model = network([SOFTMAX, node("Reshape", ["s", shape], ["y"])], output_shape=size)
    engine = opened(model)
    assert engine.card.config.num_labels == CLASSES
    assert np.abs(scores(engine, PHOTOS) - by_hand(model, PHOTOS)).max() < 1e-5


# Several outputs ------------------------------------------------------------------------------------------------------


def test_the_scores_among_outputs_are_found() -> None:
    best = node("ArgMax", ["y"], ["best"], axis=1, keepdims=0)
    model = network(
        [node("Softmax", ["x"], ["y"], axis=1), best],
        outputs={"best": ("n",), "mean": ("n", 3), "x": ("n", CLASSES), "y": ("n", CLASSES)},
    )
    engine = opened(model)
    assert np.abs(scores(engine, PHOTOS) - by_hand(model, PHOTOS)).max() < 1e-5
    assert "3 outputs; 'y' is taken for the scores" in " ".join(engine.notes)


def test_two_classifiers_are_refused_by_name() -> None:
    tail = [node("MatMul", ["mean", "weight"], ["second"]), node("Identity", ["x"], ["first"])]
    with pytest.raises(ModelError, match="2 outputs that may be its scores: first, second") as found:
        opened(network(tail, outputs={"first": ("n", CLASSES), "second": ("n", CLASSES)}))
    assert found.value.hint


# Inputs ---------------------------------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(2).integers(0, 256, (4, 3, 32, 32)).astype(np.float32)
IN_GRAPH: dict[str, tuple[Nodes, str, tuple[float, float]]] = {
    # operations, what is said, and (rescale, mean) of the preprocessing
    "to [-1, 1]": (
        [node("Div", ["input", "c127"], ["d"]), node("Sub", ["d", "one"], ["in"])],
        "0 to 255",
        (1.0, 0.0),
    ),
    "to [0, 1]": ([node("Mul", ["input", "c255"], ["in"])], "0 to 255", (1.0, 0.0)),
    "by mean and deviation": (
        [node("Sub", ["input", "means"], ["d"]), node("Div", ["d", "deviations"], ["in"])],
        "0 to 1",
        (1 / 255, 0.0),
    ),
    "none": ([node("Identity", ["input"], ["in"])], "normalised", (1 / 255, 0.485)),
}
EXTRA = [
    constant("c127", 127.5),
    constant("c255", 1 / 255),
    constant("means", np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)),
    constant("deviations", np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)),
]


@pytest.mark.parametrize("name", IN_GRAPH)
def test_normalisation_within_the_graph_is_not_done_twice(name: str) -> None:
    head, words, (rescale, mean) = IN_GRAPH[name]
    engine = opened(network([node("Identity", ["x"], ["y"])], head=head, pooled="in", extra=EXTRA))
    assert words in " ".join(engine.notes)
    assert (engine.card.preprocessing.rescale, engine.card.preprocessing.mean[0]) == (rescale, mean)


def test_bytes_with_channels_last() -> None:
    """What Frigate takes: uint8 (1, height, width, 3)."""
    head = [node("Cast", ["input"], ["in"], to=1)]
    tail = [node("Mul", ["x", "c255"], ["z"]), node("Softmax", ["z"], ["y"], axis=1)]
    model = network(
        tail,
        head=head,
        pooled="in",
        shape=(1, 32, 48, 3),
        input_type=TensorProto.UINT8,
        output_shape=(1, 6),
        extra=EXTRA,
    )
    engine = opened(model)
    preprocessing = engine.card.preprocessing
    assert preprocessing.size == (32, 48) and (preprocessing.rescale, preprocessing.mean, preprocessing.std) == (
        1,
        (0, 0, 0),
        (1, 1, 1),
    )
    x = np.random.default_rng(3).integers(0, 256, (3, 32, 48, 3)).astype(np.uint8)
    right = np.concatenate([by_hand(model, x[i : i + 1]) for i in range(3)])
    assert np.abs(scores(engine, x.transpose(0, 3, 1, 2).astype(np.float32)) - right).max() < 1e-5


def test_keras_by_tf2onnx_takes_pixels_from_minus_one_to_one() -> None:
    """What Teachable Machine writes."""
    model = network(
        [node("Softmax", ["x"], ["y"], axis=1)], shape=("n", 224, 224, 3), producer="tf2onnx", output_shape=("n", 6)
    )
    engine = opened(model)
    preprocessing = engine.card.preprocessing
    assert (preprocessing.size, preprocessing.resize_to) == ((224, 224), (224, 224))
    assert (preprocessing.mean, preprocessing.std) == ((0.5,) * 3, (0.5,) * 3) and preprocessing.rescale == 1 / 255
    assert "pixels from -1 to 1" in " ".join(engine.notes)
    x = np.random.default_rng(4).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    assert np.abs(scores(engine, x.transpose(0, 3, 1, 2)) - by_hand(model, x)).max() < 1e-5


def test_the_first_operation_tells_the_layout_where_no_size_does() -> None:
    head = [node("Transpose", ["input"], ["nchw"], perm=[0, 3, 1, 2])]
    model = network([node("Identity", ["x"], ["y"])], shape=("n", "h", "w", "c"), head=head, pooled="nchw")
    engine = opened(model)
    x = np.random.default_rng(5).standard_normal((2, 24, 40, 3)).astype(np.float32)
    assert np.allclose(engine(x.transpose(0, 3, 1, 2)), by_hand(model, x), atol=1e-5)


def test_a_photo_goes_through_the_command(convnext: Run, tmp_path: Path) -> None:
    """The whole way: the sample as bytes, channels last, against onnxruntime with Pillow by hand."""
    from PIL import Image

    head = [node("Cast", ["input"], ["in"], to=1)]
    tail = [node("Mul", ["x", "c255"], ["z"]), node("Softmax", ["z"], ["s"], axis=1), node("Identity", ["s"], ["y"])]
    model = network(
        tail,
        head=head,
        pooled="in",
        shape=(1, 64, 64, 3),
        input_type=TensorProto.UINT8,
        output_shape=(1, 6),
        extra=EXTRA,
    )
    path = tmp_path / "theirs.onnx"
    path.write_bytes(model.SerializeToString())
    photo = tmp_path / "square.png"
    Image.open(SAMPLES[0]).convert("RGB").resize((73, 73)).save(photo)
    done = convnext("classify", "-m", path, photo, "-k", "0", "--json")
    assert done.status == 0, done.err
    (row,) = json.loads(done.out)
    found = {guess["index"]: guess["score"] for guess in row["predictions"]}
    pixels = np.asarray(Image.open(photo).crop((4, 4, 68, 68)))[None]
    assert np.allclose([found[i] for i in range(CLASSES)], by_hand(model, pixels)[0], atol=1e-5)


def test_a_background_class_is_said() -> None:
    engine = opened(network([node("Identity", ["x"], ["y"])], classes=1001, output_shape=("n", 1001)))
    assert "imagenet-1k has one less: it may have a background class" in " ".join(engine.notes)


# What cannot be used --------------------------------------------------------------------------------------------------


def _refusal(change: Callable[[], onnx.ModelProto]) -> str:
    with pytest.raises(ModelError) as found:
        opened(change())
    assert found.value.hint
    return found.value.message


def test_absurd_sizes_are_refused() -> None:
    plain = [node("Identity", ["x"], ["y"])]
    assert "4096 an edge is the most" in _refusal(lambda: network(plain, shape=("n", 3, 100_000, 100_000)))


COSTLY: dict[str, tuple[Nodes, dict[str, Any], str]] = {
    "classes": ([node("Expand", ["x", "wide"], ["y"])], {"output_shape": ("n", 10**8), "classes": 1}, "100,000,000"),
    "values": (
        [
            node("ConstantOfShape", ["count"], ["c"]),
            node("ReduceSum", ["c"], ["r"], keepdims=0),
            node("Add", ["x", "r"], ["y"]),
        ],
        {},
        "its ConstantOfShape makes 10,000,000,000 values",
    ),
    "operations": (
        [
            node("Identity", ["x"], ["i0"]),
            *(node("Identity", [f"i{i}"], [f"i{i + 1}"]) for i in range(60_000)),
            node("Identity", ["i60000"], ["y"]),
        ],
        {},
        "it has 60,005 operations",
    ),
    "a batch": ([node("Identity", ["x"], ["y"])], {"shape": (10**7, 3, 32, 32)}, "10,000,000 photos in each call"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_graphs_that_cost_far_more_than_their_size_are_refused(name: str) -> None:
    tail, options, words = COSTLY[name]
    extra = [constant("wide", [1, 10**8], np.int64), constant("count", [10**10], np.int64)]
    assert words in _refusal(lambda: network(tail, extra=extra, **options))


def doubled(source: str, name: str, times: int, axis: int) -> tuple[Nodes, str]:
    """A value that is joined with itself again and again, and its name."""
    steps = [node("Concat", [f"{name}{step}"] * 2, [f"{name}{step + 1}"], axis=axis) for step in range(times)]
    return [node("Identity", [source], [f"{name}0"]), *steps], f"{name}{times}"


def convolution(source: str) -> Nodes:
    """One operation that takes hours and little memory, and its mean, "m": 2,048² pixels by a kernel of 1,024².

    source: a value of shape (1, 1, 1, 1).
    """
    rows, tall = doubled(source, "rows", 11, 2)
    columns, photo = doubled(tall, "columns", 11, 3)
    kernel_rows, narrow = doubled(source, "kernel_rows", 10, 2)
    kernel_columns, kernel = doubled(narrow, "kernel_columns", 10, 3)
    last = [node("Conv", [photo, kernel], ["slow"]), node("ReduceMean", ["slow"], ["m"], keepdims=0)]
    return [*rows, *columns, *kernel_rows, *kernel_columns, *last]


def untaken(branch: Nodes) -> Nodes:
    """A branch that makes "m", and is taken for no photo: it is computed only when the file is opened."""

    def body(nodes: Nodes, output: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        return helper.make_graph(nodes, "branch", [], [value])

    return [
        node("ReduceSum", ["input"], ["sum"], keepdims=0),
        node("Greater", ["sum", "huge"], ["never"]),
        node(
            "If",
            ["never"],
            ["added"],
            then_branch=body(branch, "m"),
            else_branch=body([node("Identity", ["zero"], ["other"])], "other"),
        ),
        node("Add", ["x", "added"], ["y"]),
    ]


SEED = [constant("seed", [[[[1.0]]]]), constant("huge", 1e30)]


@pytest.mark.parametrize("name", ["values", "outer product", "untaken branch"])
def test_a_file_that_takes_far_more_memory_than_its_size_is_refused(name: str, tmp_path: Path) -> None:
    """No constant in it says so; and nothing is computed before it is refused, not even when it is opened."""
    if name == "values":
        nodes, wide = doubled("x", "d", 28, 1)
        tail = [*nodes, node("Slice", [wide, "start", "end", "axes1"], ["y"])]
    elif name == "outer product":
        nodes, long = doubled("ones", "d", 18, 0)  # which is computed when the file is opened
        tail = [
            *nodes,
            node("Transpose", [long], ["t"], perm=[1, 0]),
            node("MatMul", [long, "t"], ["m"]),
            node("ReduceMean", ["m"], ["mean_of_all"], keepdims=0),
            node("Add", ["x", "mean_of_all"], ["y"]),
        ]
    else:
        rows, tall = doubled("seed", "rows", 15, 2)
        columns, large = doubled(tall, "columns", 15, 3)
        tail = untaken([*rows, *columns, node("ReduceMean", [large], ["m"], keepdims=0)])
    path = tmp_path / "theirs.onnx"
    onnx.save(network(tail, extra=[constant("ones", [[1.0]]), *SEED]), path)
    code = (
        "import sys; from pathlib import Path\n"
        "from convnext_cli.base.errors import ModelError\n"
        "from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine\n"
        "try: print(OnnxRuntimeEngine(Path(sys.argv[1]), None).name)\n"
        "except ModelError as error: print(error)\n"
        # ru_maxrss begins with the memory of the process that started this one
        "status = Path('/proc/self/status')\n"
        "peak = status.read_text().partition('VmHWM:')[2].split()[0] if status.exists() else '0'\n"
        "print(int(peak) >> 20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    words, gigabytes = done.stdout.splitlines()
    if name == "untaken branch":
        assert words == "onnxruntime"  # it costs nothing, and is not refused
    else:
        assert "is refused: one call of it takes more than 1.1 GB of memory" in words
    assert int(gigabytes) < 2


@pytest.mark.parametrize("is_ours", [False, True], ids=["foreign", "with a card of ours"])
def test_an_endless_loop_is_refused(is_ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from convnext_cli.runtimes.onnx import foreign_cost

    monkeypatch.setattr(foreign_cost, "SECONDS", 0.5)
    endless = constant("endless", 2**62, np.int64)
    model = network([node("Loop", ["endless", "yes", "x"], ["y"], body=_loop())], extra=[endless])
    if is_ours:
        helper.set_model_props(model, {METADATA_KEY: Card(ConvNextConfig(num_labels=CLASSES)).to_json()})
    assert "one photo takes more than 0.5 seconds" in _refusal(lambda: model)


def _loop_for_dark_photos() -> onnx.ModelProto:
    """Its loop has no end where a photo of the batch is dark."""
    again = node("Less", ["level", "minus_one"], ["co"])
    body = helper.make_graph([again, node("Softmax", ["x"], ["vo"], axis=1)], "body", _loop().input, _loop().output)
    tail = [
        node("ReduceMin", ["mean"], ["level"], keepdims=0),
        node("Loop", ["endless", "yes", "x"], ["y"], body=body),
    ]
    return network(tail, extra=[constant("endless", 2**62, np.int64), constant("minus_one", -1)])


def test_a_loop_that_is_endless_for_some_photos_fails_those(
    convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnext_cli.runtimes.onnx import foreign_cost

    monkeypatch.setattr(foreign_cost, "SECONDS", 0.3)
    onnx.save(_loop_for_dark_photos(), tmp_path / "theirs.onnx")
    for name, level in (("1.png", 200), ("2.png", 0), ("3.png", 200)):
        Image.new("RGB", (40, 40), (level, level, level)).save(tmp_path / name)
    photos = sorted(tmp_path.glob("*.png"))
    done = convnext("classify", "-m", tmp_path / "theirs.onnx", "--batch-size", "3", "-f", "jsonl", *photos)
    assert done.status == 1, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["error"]["kind"] == "timeout"
    assert "theirs.onnx takes more than 0.3 seconds" in rows[1]["error"]["message"]


@pytest.mark.parametrize("name", slow_except(["photo", "photo, with a card of ours", "opening"], "photo"))
def test_an_endless_operation_is_refused_and_the_program_ends(name: str, tmp_path: Path) -> None:
    """It cannot be interrupted, so it goes on in its thread until the process ends."""
    corner = {"first": [0, 0, 0, 0], "last": [1, 1, 1, 1], "axes": [0, 1, 2, 3]}
    pixel = node("Slice", ["input", *corner], ["pixel"])
    tail = untaken(convolution("seed"))
    if name != "opening":
        tail = [pixel, *convolution("pixel"), node("Add", ["x", "m"], ["y"])]
    model = network(tail, extra=[*SEED, *(constant(key, value, np.int64) for key, value in corner.items())])
    if "card" in name:
        helper.set_model_props(model, {METADATA_KEY: Card(ConvNextConfig(num_labels=CLASSES)).to_json()})
    onnx.save(model, tmp_path / "theirs.onnx")
    code = (
        "import sys; from convnext_cli.cli import main; from convnext_cli.runtimes.onnx import foreign_cost\n"
        "foreign_cost.SECONDS = 0.5; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "classify", "-m", tmp_path / "theirs.onnx", SAMPLES[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    words = "it takes more than 0.5 seconds to open" if name == "opening" else "one photo takes more than 0.5 seconds"
    assert f"error: theirs.onnx is refused: {words}" in done.stderr
    assert done.stderr.count("\n") == 2


def test_only_scores_that_the_file_gives_can_be_asked_for(convnext: Run, tmp_path: Path) -> None:
    tails = {"softmax": [node("Softmax", ["x"], ["y"], axis=-1)], "sigmoid": [node("Sigmoid", ["x"], ["y"])]}
    for kind, tail in tails.items():
        path = tmp_path / f"{kind}.onnx"
        onnx.save(network(tail), path)
        for asked in tails.keys() | {"logits"}:
            done = convnext("classify", "-m", path, f"--{asked}", SAMPLES[0])
            assert done.status == (0 if asked == kind else 2), (kind, asked, done.err)
            assert asked == kind or f"--{asked} cannot be computed" in done.err
        assert convnext("classify", "-m", path, SAMPLES[0]).status == 0
