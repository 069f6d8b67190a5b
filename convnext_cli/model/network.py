"""The ConvNeXt network, V1, V2 and isotropic, readable beside the papers.

"A ConvNet for the 2020s" (arXiv 2201.03545), figure 4 and table 9; "ConvNeXt V2" (arXiv 2301.00808), section 3.3
and algorithm 1. Parameter names are those of the official repositories (facebookresearch/ConvNeXt, ConvNeXt-V2), so
a canonical weights file is a plain ``state_dict``; the calls and outputs are those of transformers' ConvNext page.

Shapes: N photos, C channels, H×W positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_cli.model.config import ConvNextConfig

Field: TypeAlias = Tensor | tuple[Tensor, ...]


class _Output(Mapping[str, Field]):
    """Fields by attribute, name and position, like the outputs of transformers: fields that are None do not count."""

    def _fields(self) -> dict[str, Field]:
        return {name: value for name, value in vars(self).items() if value is not None}

    def to_tuple(self) -> tuple[Field, ...]:
        return tuple(self._fields().values())

    @overload
    def __getitem__(self, key: str | int) -> Field: ...

    @overload
    def __getitem__(self, key: slice) -> tuple[Field, ...]: ...

    def __getitem__(self, key: str | int | slice) -> Field | tuple[Field, ...]:
        return self._fields()[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields())

    def __len__(self) -> int:
        return len(self._fields())


@dataclass(frozen=True, eq=False)
class ConvNextOutput(_Output):
    """The output of the network's body.

    Args:
        last_hidden_state: (N, C, H, W), after the last stage, before the last norm.
        pooler_output: (N, C), mean over positions, normalised as the config says.
        hidden_states: the outputs of the stem and of each stage, if they were asked for.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, eq=False)
class ImageClassifierOutput(_Output):
    """The output of the classifier.

    Args:
        loss: scalar, if there were labels.
        logits: (N, num_labels).
        hidden_states: the outputs of the stem and of each stage, if they were asked for.
    """

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


class Norm(nn.Module):
    """Normalise over channels, the last axis, in float32 or wider, whatever the dtype.

    "layer" is LayerNorm; "rms" divides by the root mean square; "simple" divides by the unbiased standard deviation
    without subtracting the mean (timm's RmsNorm and SimpleNorm). In half precision the squares overflow.
    """

    def __init__(self, channels: int, eps: float, config: ConvNextConfig) -> None:
        super().__init__()
        self.kind = config.norm
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if config.norm_bias else None

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        y, weight = x.to(wide), self.weight.to(wide)
        bias = None if self.bias is None else self.bias.to(wide)
        if self.kind == "layer":
            y = F.layer_norm(y, weight.shape, weight, bias, self.eps)
        else:
            power = y.square().mean(-1, keepdim=True) if self.kind == "rms" else y.var(-1, keepdim=True)
            y = y * torch.rsqrt(power + self.eps) * weight
            y = y if bias is None else y + bias
        return y.to(x.dtype)


class Norm2d(Norm):
    """The same norm for (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GRN(nn.Module):
    """Global Response Normalisation (V2, algorithm 1) over (N, H, W, C), in float32 or wider."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        y = x.to(wide)
        response = y.square().sum((1, 2), keepdim=True).sqrt()
        response = response / (response.mean(-1, keepdim=True) + 1e-6)
        # gamma * (y * response) + beta + y with y factored out: one pass over the large tensor less
        y = torch.addcmul(self.beta.to(wide), y, 1 + self.gamma.to(wide) * response)
        return y.to(x.dtype)


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a sample's branch with this probability.

    Args:
        rate: the probability.
        kept: (N,): the samples that keep their branch, where training has drawn them itself.
    """

    kept: Tensor | None = None

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = x.new_empty(x.shape[0]).bernoulli_(keep) if self.kept is None else self.kept
        return x * (kept / keep).to(x.dtype).view(-1, 1, 1, 1)


def activation(name: str) -> nn.Module:
    """The module of a config's ``hidden_act``."""
    if name == "gelu":
        return nn.GELU()
    if name == "gelu_tanh":
        return nn.GELU(approximate="tanh")
    return nn.SiLU() if name == "silu" else nn.ReLU()


class Block(nn.Module):
    """Depthwise convolution → norm → widen → activation → [GRN] → narrow → [layer scale] → add the input."""

    def __init__(self, config: ConvNextConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        dim, kernel, bias = config.hidden_sizes[stage], config.kernel_sizes[stage], config.conv_bias
        self.dwconv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=bias)
        self.norm = Norm(dim, config.norm_eps, config)
        self.pwconv1 = nn.Linear(dim, config.mlp_ratio * dim, bias=config.mlp_bias)  # a 1×1 convolution
        self.act = activation(config.hidden_act)
        self.grn = GRN(config.mlp_ratio * dim) if config.use_grn else None
        self.pwconv2 = nn.Linear(config.mlp_ratio * dim, dim, bias=config.mlp_bias)
        scale = config.layer_scale_init_value
        self.gamma = nn.Parameter(torch.full((dim,), scale)) if scale > 0 else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        y = self.act(self.pwconv1(self.norm(y)))
        if self.grn is not None:
            y = self.grn(y)
        y = self.pwconv2(y)
        if self.gamma is not None:
            y = self.gamma * y
        return x + self.drop_path(y.permute(0, 3, 1, 2))  # type: ignore[no-any-return]


def _stem(config: ConvNextConfig) -> Iterator[nn.Module]:
    channels, dim, bias = config.num_channels, config.hidden_sizes[0], config.conv_bias
    if config.stem == "patch":
        yield nn.Conv2d(channels, dim, config.patch_size, config.patch_size, bias=bias)
    else:
        yield nn.Conv2d(channels, config.stem_width, 3, 2, padding=1, bias=bias)
        if config.stem == "overlap_act":
            yield activation(config.hidden_act)
        yield nn.Conv2d(config.stem_width, dim, 3, 2, padding=1, bias=bias)
    if config.stem_norm:
        yield Norm2d(dim, config.norm_eps, config)
    if config.stem_downsample:
        yield from _downsample(config, dim, dim)


def _downsample(config: ConvNextConfig, before: int, after: int) -> Iterator[nn.Module]:
    yield Norm2d(before, config.norm_eps, config)
    yield nn.Conv2d(before, after, 2, 2, bias=config.conv_bias)


class ConvNextModel(nn.Module):
    """The network without its classifier: photos (N, 3, H, W) in, features out."""

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__()
        self.config = config
        self._build()
        self.init_weights()

    def _build(self) -> None:
        config, dims = self.config, self.config.hidden_sizes
        rates = iter(torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist())
        stages = [
            nn.Sequential(*(Block(config, i, next(rates)) for _ in range(depth)))
            for i, depth in enumerate(config.depths)
        ]
        if config.bare:  # the official isotropic code names its parts without a stage
            self.stem = next(_stem(config))
            self.blocks = stages[0]
        else:
            self.downsample_layers = nn.ModuleList([nn.Sequential(*_stem(config))])
            for before, after in pairwise(dims):
                self.downsample_layers.append(nn.Sequential(*_downsample(config, before, after)))
            self.stages = nn.ModuleList(stages)
        if config.head_norm == "after_pool":
            self.norm = Norm(dims[-1], config.layer_norm_eps, config)
        elif config.head_norm == "before_pool":
            self.norm = Norm2d(dims[-1], config.layer_norm_eps, config)

    def init_weights(self) -> None:
        """Truncated normal weights and zero biases (appendix A of the paper); nothing on the meta device."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:
                nn.init.trunc_normal_(module.weight, std=self.config.initializer_range)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def hidden_states(self, pixel_values: Tensor) -> Iterator[Tensor]:
        """The stem's output, then each stage's, as (N, C, H, W)."""
        if self.config.bare:
            yield (x := self.stem(pixel_values))
            yield self.blocks(x)
            return
        x = pixel_values
        for i, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = downsample(x)
            if i == 0:
                yield x
            yield (x := stage(x))

    def pool(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        if self.config.head_norm == "before_pool":
            return self.norm(x).mean((-2, -1))  # type: ignore[no-any-return]
        x = x.mean((-2, -1))
        return self.norm(x) if self.config.head_norm == "after_pool" else x

    def forward(
        self, pixel_values: Tensor, *, output_hidden_states: bool = False, return_dict: bool = True
    ) -> _Output | tuple[Field, ...]:
        """Run the body.

        Args:
            pixel_values: (N, num_channels, H, W), preprocessed; H and W are at least the total stride.
            output_hidden_states: whether the output has the hidden states.
            return_dict: False returns the fields of the output as a plain tuple.
        """
        output = self._run_body(pixel_values, output_hidden_states)
        return output if return_dict else output.to_tuple()

    def _run_body(self, pixel_values: Tensor, output_hidden_states: bool) -> ConvNextOutput:
        states, x = [], pixel_values
        for x in self.hidden_states(pixel_values):
            if output_hidden_states:
                states.append(x)
        return ConvNextOutput(x, self.pool(x), tuple(states) if output_hidden_states else None)


class ConvNextForImageClassification(ConvNextModel):
    """The network with its classifier on top of the pooled features."""

    def _build(self) -> None:
        super()._build()
        config, width = self.config, self.config.hidden_sizes[-1]
        if config.head_hidden_size:
            self.head_hidden = nn.Linear(width, config.head_hidden_size)
            width = config.head_hidden_size
        if config.num_labels:
            self.head = nn.Linear(width, config.num_labels, bias=config.head_bias)

    def classify(self, pooled: Tensor) -> Tensor:
        """(N, C) -> logits (N, num_labels); the features themselves when there is no classifier."""
        if self.config.head_hidden_size:
            pooled = F.gelu(self.head_hidden(pooled))
        return self.head(pooled) if self.config.num_labels else pooled

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> _Output | tuple[Field, ...]:
        """Classify.

        Args:
            pixel_values, output_hidden_states, return_dict: as for the body.
            labels: as for ``loss_of``, which uses the config's ``problem_type`` if it has one.
        """
        body = self._run_body(pixel_values, output_hidden_states)
        logits = self.classify(body.pooler_output)
        loss = None
        if labels is not None:
            loss = loss_of(logits, labels, getattr(self.config, "problem_type", None))
        output = ImageClassifierOutput(loss, logits, body.hidden_states)
        return output if return_dict else output.to_tuple()


def loss_of(logits: Tensor, labels: Tensor, problem: str | None = None) -> Tensor:
    """The loss of logits, as transformers computes it for the same labels.

    Args:
        logits: (N, num_labels).
        labels: of cross-entropy, class indices (N,) or probabilities (N, num_labels); otherwise of the logits' shape,
            or (N,) for one column.
        problem: "single_label_classification" is cross-entropy, "multi_label_classification" a binary cross-entropy for
            each class, "regression" the squared error. None is regression for one column; otherwise it depends on the
            labels' dtype: floats mean several labels, integers one.

    Returns:
        A scalar.

    Raises:
        ValueError: the labels have another shape.
    """
    floats = labels.is_floating_point()
    if problem is None and logits.shape[-1] == 1:
        problem = "regression"
    if problem == "single_label_classification" or (problem is None and not floats):
        return F.cross_entropy(logits, labels if floats else labels.reshape(-1))
    if logits.shape[-1] == 1:
        logits, labels = logits.reshape(-1), labels.reshape(-1)
    if logits.shape != labels.shape:
        raise ValueError(f"labels of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}")
    error = F.mse_loss if problem == "regression" else F.binary_cross_entropy_with_logits
    return error(logits, labels.to(logits.dtype))


def build(config: ConvNextConfig, tensors: dict[str, Tensor]) -> ConvNextForImageClassification:
    """A network in eval mode that uses these tensors without a copy.

    Args:
        config: its shape.
        tensors: by canonical name.

    Raises:
        RuntimeError: names or shapes differ; ``checkpoints.load`` checks them earlier, with better messages.
    """
    with torch.device("meta"):
        model = ConvNextForImageClassification(config)
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval()
