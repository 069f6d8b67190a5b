"""The network by itself; parity with other libraries is in tests/peers."""

import pytest
import torch

from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.network import GRN, ConvNextForImageClassification, ConvNextModel, DropPath, Norm, build

SMALL = {"depths": (1, 1, 2, 1), "hidden_sizes": (8, 16, 24, 32), "num_labels": 5, "layer_scale_init_value": 0.5}


def small(**changes: object) -> ConvNextForImageClassification:
    torch.manual_seed(0)
    return ConvNextForImageClassification(ConvNextConfig(**(SMALL | changes))).eval()


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_those_of_the_config(name: str) -> None:
    with torch.device("meta"):
        model = ConvNextForImageClassification(VARIANTS[name])
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == VARIANTS[name].shapes()


def test_outputs_as_documented() -> None:
    config = ConvNextConfig(**SMALL)
    x = torch.randn(2, 3, 64, 96)
    body = ConvNextModel(config).eval()(x, output_hidden_states=True)
    assert body.last_hidden_state.shape == (2, 32, 2, 3)
    assert body.pooler_output.shape == (2, 32)
    assert [tuple(s.shape[1:]) for s in body.hidden_states] == [
        (8, 16, 24), (8, 16, 24), (16, 8, 12), (24, 4, 6), (32, 2, 3),
    ]  # fmt: skip
    torch.testing.assert_close(body.hidden_states[-1], body.last_hidden_state)
    assert ConvNextModel(config)(x).hidden_states is None


def test_outputs_by_name_position_and_as_a_tuple() -> None:
    x, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 4])
    plain, trained = small()(x), small()(x, labels, output_hidden_states=True)
    assert plain[0] is plain["logits"] is plain.logits
    assert (trained[0], trained[1]) == (trained.loss, trained.logits)
    assert list(trained) == ["loss", "logits", "hidden_states"] and list(plain) == ["logits"]
    assert trained[:2] == trained.to_tuple()[:2] and len(trained) == 3
    assert "loss" not in plain and plain.get("loss") is None
    with pytest.raises(KeyError):
        plain["loss"]
    loss, logits = small()(x, labels, return_dict=False)
    assert torch.equal(logits, plain.logits) and loss.ndim == 0
    body = ConvNextModel(ConvNextConfig(**SMALL))
    last, pooled = body(x, return_dict=False)
    assert (last.shape[1], pooled.shape) == (32, (2, 32))


def test_isotropic_keeps_one_resolution() -> None:
    config = ConvNextConfig(depths=(2,), hidden_sizes=(16,), patch_size=16, stem_norm=False, num_labels=3)
    output = ConvNextForImageClassification(config).eval()(torch.randn(1, 3, 64, 64), output_hidden_states=True)
    assert output.logits.shape == (1, 3)
    assert [tuple(s.shape) for s in output.hidden_states] == [(1, 16, 4, 4)] * 2


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (torch.tensor([1, 4]), torch.nn.functional.cross_entropy),
        (torch.tensor([[0.0, 1, 0, 1, 0], [1.0, 0, 0, 0, 0]]), torch.nn.functional.binary_cross_entropy_with_logits),
    ],
)
def test_loss(labels: torch.Tensor, expected) -> None:
    output = small()(torch.randn(2, 3, 32, 32), labels=labels)
    torch.testing.assert_close(output.loss, expected(output.logits, labels))


def test_regression_loss() -> None:
    output = small(num_labels=1)(torch.randn(2, 3, 32, 32), labels=torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - torch.tensor([0.5, -1.0])).square().mean())


def test_norms_are_computed_in_float32() -> None:
    """The squares of 300 overflow float16; the norm must not."""
    norm = Norm(4, 1e-6, ConvNextConfig()).half()
    x = torch.tensor([[300.0, -300.0, 600.0, 0.0]])
    half = norm(x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), Norm(4, 1e-6, ConvNextConfig())(x), atol=1e-3, rtol=1e-3)


def test_grn_is_computed_in_float32() -> None:
    grn = GRN(3)
    torch.nn.init.normal_(grn.gamma)
    x = torch.full((1, 20, 20, 3), 60.0)  # the sum of squares is 1.4e6, over float16's 65504
    torch.testing.assert_close(grn.half()(x.half()).float(), grn.float()(x), atol=0.2, rtol=2e-3)


def test_grn_follows_algorithm_1() -> None:
    grn, x = GRN(3).double(), torch.randn(2, 4, 5, 3, dtype=torch.float64)
    torch.nn.init.normal_(grn.gamma)
    torch.nn.init.normal_(grn.beta)
    gx = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    nx = gx / (gx.mean(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(grn(x), grn.gamma * (x * nx) + grn.beta + x, atol=1e-12, rtol=1e-12)


def test_float64_stays_float64() -> None:
    model = small(use_grn=True).double()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        exact, rounded = model(x).logits, model.float()(x.float()).logits
    assert exact.dtype == torch.float64
    assert 0 < (exact - rounded).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("grn", [False, True])
def test_half_precision_stays_near_float32(dtype: torch.dtype, grn: bool) -> None:
    model = small(use_grn=grn)
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        full, half = model(x).logits, model.to(dtype)(x.to(dtype)).logits.float()
    assert torch.isfinite(half).all()
    assert (full - half).abs().max() < 0.05 * full.abs().max()


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, x = DropPath(0.25).train(), torch.ones(4000, 1, 1, 2)
    y = drop(x)
    assert ((y == 0) | (y == 1 / torch.tensor(0.75))).all()
    assert (y[..., 0] == y[..., 1]).all()
    assert y.mean() == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(drop.eval()(x), x)


def test_build_uses_the_tensors_themselves() -> None:
    source = small()
    tensors = dict(source.state_dict())
    model = build(source.config, tensors)
    assert not model.training
    assert model.head.weight.data_ptr() == tensors["head.weight"].data_ptr()
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(x).logits, source(x).logits)


def test_a_batch_gives_what_each_photo_gives_alone() -> None:
    model, x = small(), torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        alone = torch.cat([model(photo[None]).logits for photo in x])
        torch.testing.assert_close(model(x).logits.softmax(-1), alone.softmax(-1), atol=1e-5, rtol=0)
