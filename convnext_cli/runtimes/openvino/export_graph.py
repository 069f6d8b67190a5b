"""The whole OpenVINO graph of an export: preprocessing, the network, the scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convnext_cli.model.card import Card
from convnext_cli.runtimes.exporting.placement import probe
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.int8.quantise import quantise
from convnext_cli.runtimes.openvino import export_preprocessing
from convnext_cli.runtimes.openvino.engine import Ops
from convnext_cli.runtimes.openvino.ir_file import CARD, WEIGHTS, checksum
from convnext_cli.runtimes.openvino.runtime import op, ov
from convnext_cli.runtimes.operations import Arrays, network, network_with_features

_LATER = "known when the weights are written"
_HALVES = {"float16": ov.Type.f16, "bfloat16": ov.Type.bf16}


def write(card: Card, temperature: float, arrays: Arrays, plan: Plan, path: Path) -> None:
    """Write what the plan asks for. temperature: that logits are divided by before the softmax.

    Raises OSError when it cannot be written.
    """
    model = _network(card, arrays, plan)
    if plan.calibration is not None:
        model = quantise(model, plan.calibration(), threads=plan.threads)
    if plan.dtype in _HALVES:
        _store(model, _HALVES[plan.dtype])
    model = _between(model, card, temperature, plan)
    model.set_rt_info(card.to_json(full=True), CARD)
    model.set_rt_info(_LATER, WEIGHTS)
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        probe(path.parent, sum(array.nbytes for array in arrays.values()))
        raise OSError(str(error).strip().splitlines()[-1]) from error
    path.write_text(path.read_text("utf-8").replace(_LATER, checksum(path.with_suffix(".bin"))), "utf-8")


def _network(card: Card, arrays: Arrays, plan: Plan) -> ov.Model:
    """Tensors of any batch and size to logits and, if wanted, features."""
    tensors = op.parameter([-1, card.config.num_channels, -1, -1], np.float32)
    if plan.features:
        outputs = list(network_with_features(card.config, arrays, Ops(), tensors))
    else:
        outputs = [network(card.config, arrays, Ops(), tensors)]
    return ov.Model([op.result(output) for output in outputs], [tensors], "convnext")


def _between(model: ov.Model, card: Card, temperature: float, plan: Plan) -> ov.Model:
    """The network with what the plan puts before and behind it, and names."""
    (tensors,) = model.get_parameters()
    logits, *features = (result.input_value(0) for result in model.get_results())
    batch, source, name = plan.batch or -1, tensors, "pixel_values"
    if plan.preprocessing:
        source, name = op.parameter([batch, -1, -1, card.config.num_channels], np.uint8), "photos"
        tensors.output(0).replace(export_preprocessing.tensors(source, card.preprocessing).output(0))
    else:
        tensors.set_partial_shape(ov.PartialShape([batch, card.config.num_channels, *(plan.size or (-1, -1))]))
    if plan.scores and card.problem == "multi_label":
        logits = op.sigmoid(logits).output(0)
    elif plan.scores:
        logits = op.softmax(op.divide(logits, op.constant(np.float32(temperature))), 1).output(0)
    source.output(0).set_names({name})
    source.set_friendly_name(name)
    results = []
    for output, called in zip((logits, *features), ("scores" if plan.scores else "logits", "features"), strict=False):
        results.append(op.result(output))
        results[-1].output(0).set_names({called})
        results[-1].set_friendly_name(called)
    return ov.Model(results, [source], "convnext")


def _store(model: ov.Model, kind: ov.Type) -> None:
    """Keep the parameters in half precision, and convert them where they are read."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.f32 and np.prod(node.shape) > 1:
            kept = op.convert(op.constant(node.data, dtype=kind), np.float32)
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(kept.output(0))
