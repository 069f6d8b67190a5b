"""The network as ExecuTorch has it: exported by torch, rounded where that is asked for, lowered to XNNPACK."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.exir import ExecutorchProgramManager, to_edge_transform_and_lower
from torch import Tensor, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.torch.program import Network

METHOD = "convnext"  # gives the card
MOST = 64  # photos a call where the batch is open


def lowered(checkpoint: Checkpoint, card: Card, plan: Plan) -> ExecutorchProgramManager:
    """The program, with the card."""
    assert plan.size is not None
    network: nn.Module = _network(checkpoint, card, plan)
    # The sample is as large as a batch may be: where torch picks a convolution's kernel it compares the batch with 16,
    # and a smaller sample would make that the bound.
    sample = torch.zeros(plan.batch or MOST, card.config.num_channels, *plan.size)
    shapes = None if plan.batch else ({0: torch.export.Dim("batch", min=1, max=MOST)},)
    if plan.dtype == "int8":
        module = torch.export.export(network, (sample,), dynamic_shapes=shapes).module()
        network = _rounded(module, sample[: plan.batch or 2])
    exported = torch.export.export(network, (sample,), dynamic_shapes=shapes)
    methods = {METHOD: card.to_json(full=True)}
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()], constant_methods=methods)
    return edge.to_executorch()


def _network(checkpoint: Checkpoint, card: Card, plan: Plan) -> Network:
    wide = replace(plan, dtype="float32") if plan.dtype == "int8" else plan
    network = Network(checkpoint, card, wide).eval()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GELU) and child.approximate == "tanh":
                setattr(module, name, _TanhGELU())
    return network.to(memory_format=torch.contiguous_format)  # in which ExecuTorch wants the weights


class _TanhGELU(nn.Module):
    """GELU's approximation by tanh (arXiv 1606.08415) in its parts: ExecuTorch hands any GELU to XNNPACK, which takes
    it for the exact one."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _rounded(network: torch.fx.GraphModule, sample: Tensor) -> torch.fx.GraphModule:
    """With linear layers in eight bits: a scale for each output channel of the weights, and for each position one that
    is found in the values when they are there, so that nothing has to be calibrated."""
    quantiser = XNNPACKQuantizer()
    how = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantiser.set_module_type(nn.Linear, how)
    watched = prepare_pt2e(network, quantiser)
    watched(sample)  # it looks at the weights when it is run
    rounded: torch.fx.GraphModule = convert_pt2e(watched)
    return rounded
