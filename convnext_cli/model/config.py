"""ConvNextConfig, and the table of every published variant.

Sources: "A ConvNet for the 2020s" (arXiv 2201.03545) and its repository facebookresearch/ConvNeXt; "ConvNeXt V2"
(arXiv 2301.00808); timm (huggingface/pytorch-image-models) for its own small models and stems; the field names of
transformers' ConvNextConfig page where it has one.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from convnext_cli.base.text import JsonObject

Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
Stem = Literal["patch", "overlap", "overlap_act"]
Norm = Literal["layer", "rms", "simple"]
HeadNorm = Literal["after_pool", "before_pool", "none"]

# Other libraries' spellings of ``hidden_act``: transformers', and timm's where they differ.
_ACTIVATIONS: dict[str, Activation] = {
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
}

# A limit against damaged files; the deepest published network has 40.
_MOST_BLOCKS = 1000
MOST_LABELS = 1_000_000  # classes; the largest published set has 22,000

# Shapes by canonical name, in the order of the network.
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ConvNextConfig:
    """The shape of a network; every field is plain data.

    Args:
        num_channels: channels of the photo.
        patch_size: edge and stride of the patchify stem, in pixels.
        hidden_sizes: channels of each stage; one stage makes an isotropic network.
        depths: number of blocks of each stage.
        hidden_act: activation of the blocks ("gelu" is the erf form); the spellings of transformers ("gelu_new",
            "swish") are accepted.
        layer_norm_eps: epsilon of the last norm (transformers' default is 1e-12, everyone else's 1e-6).
        norm_eps: epsilon of all other norms.
        layer_scale_init_value: initial layer scale; 0 for no layer scale (V2).
        initializer_range: standard deviation of the initial weights.
        drop_path_rate: rate of stochastic depth in training; it grows linearly over the blocks.
        num_labels: rows of the classifier; 0 for pooled features.
        use_grn: whether Global Response Normalisation follows the activation (V2).
        kernel_sizes: edge of the depthwise kernel of each stage.
        mlp_ratio: width of a block's hidden layer over its input.
        stem: "patch"; "overlap" is two 3×3 stride-2 convolutions; "overlap_act" has the activation between them.
        stem_width: channels between the two convolutions of an overlapping stem.
        stem_norm: whether a norm follows the stem (not in isotropic networks).
        stem_downsample: whether a norm and a 2×2 stride-2 convolution follow the stem (timm with patch_size 2).
        norm: "layer"; "rms" and "simple" are timm's RmsNorm2d and SimpleNorm2d.
        norm_bias, conv_bias, mlp_bias, head_bias: whether norms, convolutions, pointwise layers and the classifier have
            a bias.
        head_norm: the place of the last norm: after the pooling, before it (timm's hnf), or none (FCMAE backbones).
        head_hidden_size: width of a hidden layer in the classifier (timm's large_mlp); None for none.
        image_size: edge of the training photos in pixels, or [height, width], of which the height is kept. This is
            information only.

    Raises:
        ValueError: a value is not valid; the message has the name of the field.
    """

    num_channels: int = 3
    patch_size: int = 4
    hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (3, 3, 9, 3)
    hidden_act: Activation = "gelu"
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    norm_eps: float = 1e-6
    layer_scale_init_value: float = 1e-6
    drop_path_rate: float = 0.0
    image_size: int = 224
    num_labels: int = 1000
    use_grn: bool = False
    kernel_sizes: tuple[int, ...] = ()
    mlp_ratio: int = 4
    stem: Stem = "patch"
    stem_width: int = 0
    stem_norm: bool = True
    stem_downsample: bool = False
    norm: Norm = "layer"
    norm_bias: bool = True
    conv_bias: bool = True
    mlp_bias: bool = True
    head_bias: bool = True
    head_norm: HeadNorm = "after_pool"
    head_hidden_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("hidden_sizes", "depths", "kernel_sizes"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise ValueError(f"{name} must be a list of whole numbers, not {value!r}")
            object.__setattr__(self, name, tuple(value))
        if not self.kernel_sizes:
            object.__setattr__(self, "kernel_sizes", (7,) * len(self.depths))
        if not (0 < len(self.depths) == len(self.hidden_sizes) == len(self.kernel_sizes)):
            raise ValueError(
                "depths, hidden_sizes and kernel_sizes must have one entry a stage, but have "
                f"{len(self.depths)}, {len(self.hidden_sizes)} and {len(self.kernel_sizes)}"
            )
        if isinstance(self.image_size, list | tuple) and self.image_size:
            object.__setattr__(self, "image_size", self.image_size[0])
        act = str(self.hidden_act).lower()
        object.__setattr__(self, "hidden_act", _ACTIVATIONS.get(act, act))
        self._check()

    def _check(self) -> None:
        for name in ("depths", "hidden_sizes", "kernel_sizes"):
            for value in getattr(self, name):
                _whole(name, value, least=1)
        if sum(self.depths) > _MOST_BLOCKS:
            raise ValueError(f"depths must be at most {_MOST_BLOCKS} blocks in all, not {sum(self.depths)}")
        for name, least in (
            *(("num_channels", 1), ("patch_size", 1), ("image_size", 1), ("mlp_ratio", 1), ("num_labels", 0)),
            ("stem_width", 0 if self.stem == "patch" else 1),
        ):
            _whole(name, getattr(self, name), least)
        if self.num_labels > MOST_LABELS:
            raise ValueError(f"num_labels must be at most {MOST_LABELS:,}, not {self.num_labels:,}")
        if self.head_hidden_size is not None:
            _whole("head_hidden_size", self.head_hidden_size, least=1)
        for name in ("layer_norm_eps", "norm_eps"):
            _real(name, getattr(self, name), above=0)
        for name in ("initializer_range", "layer_scale_init_value", "drop_path_rate"):
            _real(name, getattr(self, name))
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be in [0, 1), not {self.drop_path_rate}")
        for name, kind in (("hidden_act", Activation), ("stem", Stem), ("norm", Norm), ("head_norm", HeadNorm)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        for name in ("use_grn", "stem_norm", "stem_downsample", "norm_bias", "conv_bias", "mlp_bias", "head_bias"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")

    @property
    def isotropic(self) -> bool:
        """Whether there is only one stage, at one resolution (section 3.3 of the paper)."""
        return len(self.depths) == 1

    @property
    def bare(self) -> bool:
        """Whether the parts have the names of the official isotropic code: ``stem`` without a norm, ``blocks.j``."""
        return self.isotropic and not self.stem_norm

    @property
    def num_stages(self) -> int:
        return len(self.depths)

    @property
    def stride(self) -> int:
        """Photo pixels per pixel of the last feature map, along one edge."""
        stem = 4 if self.stem != "patch" else self.patch_size
        return int(stem * 2 ** (len(self.depths) - 1 + self.stem_downsample))

    def to_dict(self) -> JsonObject:
        """Plain JSON values; the inverse of ``from_dict``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: JsonObject) -> ConvNextConfig:
        """A config from a card's JSON; unknown keys raise TypeError."""
        return cls(**values)

    replace = dataclasses.replace  # a copy with other fields

    def shapes(self) -> Shapes:
        """Every parameter's canonical name (the official repository's) and shape."""
        return dict(self._shapes())

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        dims = self.hidden_sizes

        def layer(name: str, *shape: int, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
            yield f"{name}.weight", shape
            if bias:
                yield f"{name}.bias", shape[:1]

        def downsample(
            name: str, norm: int, conv: int, before: int, after: int
        ) -> Iterator[tuple[str, tuple[int, ...]]]:
            yield from layer(f"{name}.{norm}", before, bias=self.norm_bias)
            yield from layer(f"{name}.{conv}", after, before, 2, 2, bias=self.conv_bias)

        stem = "stem" if self.bare else "downsample_layers.0.0"
        if self.stem == "patch":
            p = self.patch_size
            yield from layer(stem, dims[0], self.num_channels, p, p, bias=self.conv_bias)
            last = 1
        else:
            last = 2 if self.stem == "overlap" else 3  # the activation takes a place, but has no parameters
            yield from layer(stem, self.stem_width, self.num_channels, 3, 3, bias=self.conv_bias)
            yield from layer(f"downsample_layers.0.{last - 1}", dims[0], self.stem_width, 3, 3, bias=self.conv_bias)
        if self.stem_norm:
            yield from layer(f"downsample_layers.0.{last}", dims[0], bias=self.norm_bias)
        if self.stem_downsample:
            yield from downsample("downsample_layers.0", last + 1, last + 2, dims[0], dims[0])
        for i, (depth, c, k) in enumerate(zip(self.depths, dims, self.kernel_sizes, strict=True)):
            if i:
                yield from downsample(f"downsample_layers.{i}", 0, 1, dims[i - 1], c)
            for j in range(depth):
                block = f"blocks.{j}" if self.bare else f"stages.{i}.{j}"
                hidden = self.mlp_ratio * c
                if self.layer_scale_init_value > 0:
                    yield f"{block}.gamma", (c,)
                yield from layer(f"{block}.dwconv", c, 1, k, k, bias=self.conv_bias)
                yield from layer(f"{block}.norm", c, bias=self.norm_bias)
                yield from layer(f"{block}.pwconv1", hidden, c, bias=self.mlp_bias)
                if self.use_grn:
                    yield f"{block}.grn.gamma", (1, 1, 1, hidden)
                    yield f"{block}.grn.beta", (1, 1, 1, hidden)
                yield from layer(f"{block}.pwconv2", c, hidden, bias=self.mlp_bias)
        if self.head_norm != "none":
            yield from layer("norm", dims[-1], bias=self.norm_bias)
        width = dims[-1]
        if self.head_hidden_size:
            yield from layer("head_hidden", self.head_hidden_size, width, bias=True)
            width = self.head_hidden_size
        if self.num_labels:
            yield from layer("head", self.num_labels, width, bias=self.head_bias)

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes().values())

    def gmacs(self, height: int, width: int) -> float:
        """Billions of multiply-adds in the convolutions and linear layers, for one photo of this size.

        Twice as many floating-point operations; norms and activations are not counted (0.2 % of tiny's).
        """
        total = 0
        h, w = height, width
        for name, shape in self.shapes().items():
            if len(shape) < 2 or ".grn." in name:
                continue
            if len(shape) == 4 and "dwconv" not in name:
                step = 2 if name.startswith("downsample_layers") and shape[-1] in (2, 3) else shape[-1]
                if name in ("stem.weight", "downsample_layers.0.0.weight") and self.stem == "patch":
                    step = shape[-1]
                h, w = (-(-h // step), -(-w // step)) if shape[-1] == 3 else (h // step, w // step)
            positions = 1 if name.startswith("head") else h * w
            total += math.prod(shape) * positions
        return total / 1e9


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _real(name: str, value: object, above: float | None = None) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be above {above}, not {value!r}")


def _v1(depths: tuple[int, ...], width: int, **fields: Any) -> ConvNextConfig:
    dims = tuple(width * 2**i for i in range(4))
    return ConvNextConfig(hidden_sizes=dims, depths=depths, **{"layer_norm_eps": 1e-6} | fields)


def _v2(depths: tuple[int, ...], width: int) -> ConvNextConfig:
    return _v1(depths, width, use_grn=True, layer_scale_init_value=0.0)


def _iso(depth: int, width: int, gamma: float = 0.0) -> ConvNextConfig:
    return ConvNextConfig(
        depths=(depth,),
        hidden_sizes=(width,),
        patch_size=16,
        stem_norm=False,
        layer_scale_init_value=gamma,
        layer_norm_eps=1e-6,
    )


def _test(
    depths: tuple[int, ...], dims: tuple[int, ...], act: Activation, kernels: tuple[int, ...] = ()
) -> ConvNextConfig:
    return ConvNextConfig(
        hidden_sizes=dims,
        depths=depths,
        hidden_act=act,
        kernel_sizes=kernels,
        layer_norm_eps=1e-5,
        norm_eps=1e-5,
        image_size=160,
    )


_A, _N, _T, _B = (2, 2, 6, 2), (2, 2, 8, 2), (3, 3, 9, 3), (3, 3, 27, 3)
_ZEPTO = {"norm": "simple", "norm_bias": False}

VARIANTS: dict[str, ConvNextConfig] = {
    "convnext_zepto_rms": _v1((2, 2, 4, 2), 32, **_ZEPTO),
    "convnext_zepto_rms_ols": _v1((2, 2, 4, 2), 32, stem="overlap_act", stem_width=32, **_ZEPTO),
    "convnext_atto": _v1(_A, 40),
    "convnext_atto_ols": _v1(_A, 40, stem="overlap", stem_width=24),
    "convnext_atto_rms": _v1(_A, 40, norm="rms", norm_bias=False),
    "convnext_femto": _v1(_A, 48),
    "convnext_femto_ols": _v1(_A, 48, stem="overlap", stem_width=24),
    "convnext_pico": _v1(_A, 64),
    "convnext_pico_ols": _v1(_A, 64, stem="overlap", stem_width=32),
    "convnext_nano": _v1(_N, 80),
    "convnext_nano_ols": _v1(_N, 80, stem="overlap", stem_width=80),
    "convnext_tiny": _v1(_T, 96),
    "convnext_tiny_hnf": _v1(_T, 96, head_norm="before_pool"),
    "convnext_small": _v1(_B, 96),
    "convnext_base": _v1(_B, 128),
    "convnext_large": _v1(_B, 192),
    "convnext_large_mlp": _v1(_B, 192, head_hidden_size=1536),
    "convnext_xlarge": _v1(_B, 256),
    "convnext_xxlarge": _v1((3, 4, 30, 3), 384, layer_norm_eps=1e-5, norm_eps=1e-5),
    "test_convnext": _test((1, 2, 4, 2), (24, 32, 48, 64), "gelu_tanh"),
    "test_convnext2": _test((1, 1, 1, 1), (32, 64, 96, 128), "gelu_tanh"),
    "test_convnext3": _test((1, 1, 1, 1), (32, 64, 96, 128), "silu", (7, 5, 5, 3)),
    "convnextv2_atto": _v2(_A, 40),
    "convnextv2_femto": _v2(_A, 48),
    "convnextv2_pico": _v2(_A, 64),
    "convnextv2_nano": _v2(_N, 80),
    "convnextv2_tiny": _v2(_T, 96),
    "convnextv2_small": _v2(_B, 96),
    "convnextv2_base": _v2(_B, 128),
    "convnextv2_large": _v2(_B, 192),
    "convnextv2_huge": _v2(_B, 352),
    "convnext_isotropic_small": _iso(18, 384),
    "convnext_isotropic_base": _iso(18, 768),
    "convnext_isotropic_large": _iso(36, 1024, 1e-6),
    **{
        f"dinov3_convnext_{s}": _v1(d, w, num_labels=0)
        for s, d, w in (("tiny", _T, 96), ("small", _B, 96), ("base", _B, 128), ("large", _B, 192))
    },
}
