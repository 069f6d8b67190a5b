"""The table of variants against the published sizes."""

import pytest

from convnext_cli.model.config import VARIANTS, ConvNextConfig

# Parameters, and GMACs at 224 pixels, of N=1000 classifiers: timm's and the papers' tables.
PUBLISHED = {
    "convnext_zepto_rms": (2155656, 0.30),
    "convnext_zepto_rms_ols": (2164232, 0.34),
    "convnext_atto": (3695520, 0.55),
    "convnext_atto_ols": (3702912, 0.58),
    "convnext_nano_ols": (15649560, 2.64),
    "convnext_tiny": (28589128, 4.46),
    "convnext_small": (50223688, 8.68),
    "convnext_base": (88591464, 15.35),
    "convnext_large": (197767336, 34.36),
    "convnext_large_mlp": (200128168, 34.36),
    "convnext_xlarge": (350196968, 60.92),
    "convnext_xxlarge": (846471016, 151.57),
    "convnextv2_atto": (3708400, 0.55),
    "convnextv2_pico": (9066280, 1.37),
    "convnextv2_base": (88717800, 15.35),
    "convnextv2_huge": (660289640, 114.92),
    "convnext_isotropic_small": (22308712, 4.29),
    "convnext_isotropic_base": (87083752, 16.90),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name: str) -> None:
    parameters, gmacs = PUBLISHED[name]
    assert VARIANTS[name].num_parameters == parameters
    assert VARIANTS[name].gmacs(224, 224) == pytest.approx(gmacs, abs=0.005)


@pytest.mark.parametrize("name", VARIANTS)
def test_dict_round_trip(name: str) -> None:
    assert ConvNextConfig.from_dict(VARIANTS[name].to_dict()) == VARIANTS[name]


def test_stride() -> None:
    assert VARIANTS["convnext_tiny"].stride == 32
    assert VARIANTS["convnext_isotropic_small"].stride == 16
    assert ConvNextConfig(patch_size=2).stride == 16
    assert ConvNextConfig(patch_size=2, stem_downsample=True).stride == 32


@pytest.mark.parametrize(
    "wrong",
    [
        {"depths": (3, 3)},
        {"depths": 3},
        {"depths": (3, 0, 9, 3)},
        {"depths": (3, 3.5, 9, 3)},
        {"kernel_sizes": (7, 7)},
        {"patch_size": 0},
        {"patch_size": "4"},
        {"num_labels": -1},
        {"num_labels": True},
        {"layer_norm_eps": 0.0},
        {"norm_eps": float("nan")},
        {"layer_norm_eps": "small"},
        {"layer_scale_init_value": float("inf")},
        {"drop_path_rate": 1.0},
        {"hidden_act": "mish"},
        {"hidden_act": None},
        {"norm": "batch"},
        {"stem": "overlap"},
        {"head_hidden_size": 0},
        {"use_grn": 1},
        {"image_size": [0, 224]},
    ],
    ids=str,
)
def test_impossible_values_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must") as error:
        ConvNextConfig(**wrong)
    assert next(iter(wrong)) in str(error.value)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("swish", "silu"), ("SiLU", "silu")],
)
def test_other_spellings_of_an_activation(theirs: str, ours: str) -> None:
    assert ConvNextConfig(hidden_act=theirs).hidden_act == ours  # type: ignore[arg-type]


def test_image_size_may_be_a_pair() -> None:
    assert ConvNextConfig(image_size=[256, 224]).image_size == 256  # type: ignore[arg-type]
