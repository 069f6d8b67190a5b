"""The program of torch's three formats: what turns photos or tensors into outputs, as one ``nn.Module``.

It is ``model/network.py`` with what the plan puts before and behind it. Input and outputs are float32 whatever the
weights are.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import ModuleType

import torch
import torch.fx.experimental._config
from torch import Tensor, nn
from torch.export import Dim

from convnext_cli.base.errors import UnavailableError, UsageError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card
from convnext_cli.model.network import ConvNextForImageClassification, build
from convnext_cli.model.preprocessing import MOST, Preprocessing
from convnext_cli.runtimes.exporting.float16 import refuse_overflow
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.exporting.preprocessing_support import refuse_preprocessing

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def refuse(card: Card, plan: Plan) -> None:
    """Raise UsageError for what no torch format does."""
    if plan.dtype not in DTYPES:
        raise UsageError(
            f"torch has given its {plan.dtype} up for torchao, another library, which is not used here",
            f"--to openvino or --to onnx, which compute in {plan.dtype}; or --dtype bfloat16",
        )
    if plan.preprocessing:
        refuse_preprocessing(card.preprocessing)


def refuse_old_torch() -> None:
    """Raise UnavailableError for a torch without what programs are recorded, kept and compiled with here."""
    if not hasattr(torch.cpu, "get_capabilities"):  # the latest of it
        raise UnavailableError(
            f"torch {torch.__version__} is too old for this format, which was tried with 2.14",
            "pip install --upgrade torch, or take --to torchscript",
        )


def program(checkpoint: Checkpoint, card: Card, plan: Plan) -> nn.Module:
    """What the plan asks for, in eval mode: ``Network``, or ``PhotoNetwork`` where preprocessing is inside.

    Raises ModelError when it does not fit into float16.
    """
    if plan.dtype == "float16":
        refuse_overflow(checkpoint)
    network = Network(checkpoint, card, plan)
    return (PhotoNetwork(Prepare(card.preprocessing), network) if plan.preprocessing else network).eval()


def example(card: Card, plan: Plan) -> Tensor:
    """An input to record the program with; what is open is neither 0 nor 1, nor the same twice."""
    batch = plan.batch or 2
    if plan.preprocessing:
        return torch.zeros((batch, 90, 117, 3), dtype=torch.uint8)
    stride = card.config.stride
    return torch.zeros((batch, card.config.num_channels, *(plan.size or (3 * stride, 5 * stride))))


def exported(checkpoint: Checkpoint, card: Card, plan: Plan) -> torch.export.ExportedProgram:
    """The program as torch.export records it.

    What is open stays so down to 1. Recorded in the usual way, a size of the last stage that could be 1 is taken to be
    more, and so a photo to be two strides long at least. What is "from 2 on" here holds for 1 as well, which is how
    torch.export counts (docs.pytorch.org, "torch.export programming model", on 0/1 specialisation); said to be from 1
    on, it would be refused.
    """
    dims: dict[int, Dim] = {} if plan.batch else {0: Dim("batch", min=2)}
    if plan.preprocessing:
        name, dims = "photos", dims | {1: Dim("height", min=2), 2: Dim("width", min=2)}
    else:
        name = "pixel_values"
        if plan.size is None:
            least = card.config.stride
            dims |= {2: Dim("height", min=least, max=MOST), 3: Dim("width", min=least, max=MOST)}
    with any_size():
        exported_program = torch.export.export(
            program(checkpoint, card, plan), (example(card, plan),), dynamic_shapes={name: dims or None}
        )
    # Before a linear layer torch asks whether a map has one position, where a norm left it in another order. It
    # computes the same either way, and would only have noted, to be checked at each call, that it has more.
    exported_program._guards_code = [guard for guard in exported_program._guards_code if not guard.endswith("!= 1")]
    return exported_program


def any_size() -> AbstractContextManager[None]:
    """Have torch not take sizes for more than 1 meanwhile."""
    config: ModuleType = torch.fx.experimental._config
    patched: AbstractContextManager[None] = config.patch(backed_size_oblivious=True)
    return patched


class Network(nn.Module):
    """pixel_values (N, 3, H, W) float32 -> logits or scores (N, classes), and the features (N, C) where the plan says
    so; a tensor, or a pair of them, float32.

    Freezing it and channels_last were tried, and were no faster.
    """

    def __init__(self, checkpoint: Checkpoint, card: Card, plan: Plan) -> None:
        super().__init__()
        self.dtype = DTYPES[plan.dtype]
        tensors = {name: tensor.to(self.dtype) for name, tensor in checkpoint.tensors.items()}
        self.network: ConvNextForImageClassification = build(checkpoint.card.config, tensors)
        self.network.requires_grad_(False)
        self.temperature = checkpoint.card.temperature or 1.0
        self.multi_label = card.problem == "multi_label"
        self.scores, self.features = plan.scores, plan.features

    def forward(self, pixel_values: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        *_, last = self.network.hidden_states(pixel_values.to(self.dtype))
        pooled = self.network.pool(last)
        output = self.network.classify(pooled).float()
        if self.scores:
            output = output.sigmoid() if self.multi_label else (output / self.temperature).softmax(1)
        return (output, pooled.float()) if self.features else output


class PhotoNetwork(nn.Module):
    """photos (N, height, width, 3) uint8, of any one size -> the same. prepare, network: what it does in turn."""

    def __init__(self, prepare: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.prepare, self.network = prepare, network

    def forward(self, photos: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.network(self.prepare(photos))  # type: ignore[no-any-return]


class Prepare(nn.Module):
    """Preprocessing: photos (N, H, W, 3) uint8 -> (N, 3, height, width) float32, byte for byte as Pillow's.

    Resize and crop are two products with matrices made of the photo's height and width: pixels across, then down, each
    rounded to bytes, as Pillow does (its ``Resample.c``). Pillow's weights are whole multiples of 2^-22, so products
    with bytes and their sums are exact in float64. There is no branch on a size, which torch.export would freeze, and
    nothing that TorchScript does not know.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.shortest, self.cubic = preprocessing.resize == "shortest", preprocessing.interpolation == "bicubic"
        self.one, self.a = 2.0**22, -0.5  # what Pillow's weights are whole parts of, and its a of Keys' kernel
        self.even = preprocessing.crop_offset == "round"
        self.height, self.width = preprocessing.size
        self.to_height, self.to_width = preprocessing.resize_to
        mean, std = (
            torch.tensor(values, dtype=torch.float64)[:, None, None]
            for values in (preprocessing.mean, preprocessing.std)
        )
        self.scale, self.shift = (preprocessing.rescale / std).float(), (mean / std).float()

    def forward(self, photos: Tensor) -> Tensor:
        rows = torch.arange(photos.shape[1], device=photos.device)
        columns = torch.arange(photos.shape[2], device=photos.device)
        height, width = rows[-1:] + 1, columns[-1:] + 1
        down, across = torch.full_like(height, self.to_height), torch.full_like(width, self.to_width)
        if self.shortest:
            least = torch.minimum(height, width)
            down, across = down * height // least, across * width // least
        # from Pillow 13 on; before, always across first, by a level another in a tenth of the bytes of such photos
        tall = height - down > (2 * (width - across)).clamp(min=0)
        x = photos.permute(0, 3, 1, 2).flatten(0, 1).to(torch.float64)
        lines = self._weights(rows, height, down, self.height)
        turned = self._weights(columns, width, across, self.width).t()
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            x = _down_first(lines, x, turned) if bool(tall) else _across_first(lines, x, turned)
        else:
            x = torch.cond(tall, _down_first, _across_first, (lines, x, turned))
        x = x.float().reshape(photos.shape[0], 3, self.height, self.width)
        return x * self.scale - self.shift

    def _weights(self, pixels: Tensor, edge: Tensor, to: Tensor, size: int) -> Tensor:
        """Pillow's weights of the crop's rows, in parts of 2^-22: (size, edge) float64. to: the resized edge."""
        excess = to - size
        start = excess // 2
        if self.even:  # halves to the even number
            start = start + excess % 2 * (start % 2)
        row = torch.arange(size, device=pixels.device)[:, None] + start
        # row i and pixel j: |j + 1/2 - (i + 1/2) · edge / to| in units of the filter, max(edge / to, 1) pixels
        off = (2 * pixels + 1) * to - (2 * row + 1) * edge
        x = off.abs().to(torch.float64) / (2 * torch.maximum(edge, to)).to(torch.float64)
        if self.cubic:  # Keys' kernel
            near = ((self.a + 2) * x - (self.a + 3)) * x * x + 1
            far = (((x - 5) * x + 8) * x - 4) * self.a
            weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
        else:
            weights = (1 - x).clamp(min=0)
        parts = weights / weights.sum(1, keepdim=True) * self.one
        return parts.sign() * (parts.abs() + 0.5).floor()


def _down_first(lines: Tensor, x: Tensor, turned: Tensor) -> Tensor:
    return _across(_down(lines, x), turned)


def _across_first(lines: Tensor, x: Tensor, turned: Tensor) -> Tensor:
    return _down(lines, _across(x, turned))


def _down(lines: Tensor, x: Tensor) -> Tensor:
    """(h, H) and (M, H, W) -> (M, h, W)."""
    return _rounded(torch.bmm(lines.expand(x.shape[0], -1, -1), x))


def _across(x: Tensor, turned: Tensor) -> Tensor:
    """(M, H, W) and (W, w) -> (M, H, w)."""
    return _rounded(torch.bmm(x, turned.expand(x.shape[0], -1, -1)))


def _rounded(x: Tensor) -> Tensor:
    """Parts of 2^-22 to bytes, halves up."""
    return (x / 4194304.0 + 0.5).floor().clamp(0, 255)
