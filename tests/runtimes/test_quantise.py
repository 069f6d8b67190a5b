"""int8: what rounding costs, where it is refused, and whether it is said when it does not pay."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.base.machine import instruction_sets
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes import reference
from convnext_cli.runtimes.int8 import comparison, quantise
from convnext_cli.runtimes.int8.comparison import Comparison
from convnext_cli.runtimes.openvino.engine import OpenVINOEngine, graph
from convnext_cli.runtimes.openvino.runtime import ov
from tests.helpers.paths import ROOT, SAMPLES
from tests.helpers.weights import SMALL, random_tensors

DEFAULT = ROOT / "weights" / "default.safetensors"
NETWORKS = {
    "V1": SMALL,
    "V2": replace(SMALL, use_grn=True, layer_scale_init_value=0.0),
    "overlapping stem": replace(SMALL, stem="overlap_act", stem_width=8, hidden_act="silu"),
    "isotropic": replace(SMALL, hidden_sizes=(32,), depths=(4,), kernel_sizes=(7,), patch_size=16, stem_norm=False),
    "hidden head": replace(SMALL, head_hidden_size=16, norm="rms", norm_bias=False),
}


def noise(photos: int, size: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((photos, 3, size, size)).astype(np.float32)


def network(config: ConvNextConfig = SMALL, **changed: np.ndarray) -> ov.Model:
    tensors = {name: tensor.numpy() for name, tensor in random_tensors(config).items()}
    return graph(config, tensors | changed)


def answers(model: ov.Model, photos: np.ndarray, dtype: str = "int8") -> np.ndarray:
    return OpenVINOEngine(model, Card(SMALL), dtype=dtype)(photos)


class Default:
    """The bundled default in both precisions; crops of the samples, half of them to calibrate."""

    def __init__(self) -> None:
        found = checkpoints.load(DEFAULT)
        self.card = found.card
        rng, photos = np.random.default_rng(0), []
        for path in SAMPLES:
            picture = Image.open(path).convert("RGB")
            for _ in range(40):
                edge = int(rng.integers(64, min(picture.size) + 1))
                left, top = (int(rng.integers(0, side - edge + 1)) for side in picture.size)
                photos.append(
                    apply_preprocessing(found.card.preprocessing, picture.crop((left, top, left + edge, top + edge)))
                )
        self.calibrating, self.held_out = np.stack(photos[::2]), np.stack(photos[1::2])
        self.float32 = graph(found.card.config, {name: tensor.numpy() for name, tensor in found.tensors.items()})
        self.before = self.engine(self.float32, "float32")(self.held_out)
        self.int8 = quantise.quantise(self.float32, self.calibrating)

    def engine(self, model: ov.Model, dtype: str) -> OpenVINOEngine:
        return OpenVINOEngine(model, self.card, dtype=dtype)

    def error(self, int8: ov.Model) -> float:
        """Of the logits, by their root mean square, as a share of how far these spread."""
        after = self.engine(int8, "int8")(self.held_out)
        return float(np.sqrt(np.square(after - self.before).mean()) / self.before.std())


@pytest.fixture(scope="module")
def default() -> Default:
    return Default()


def test_the_default_keeps_its_answers(default: Default) -> None:
    engine = default.engine(default.int8, "int8")
    assert engine.dtype == "int8"
    after = engine(default.held_out)
    assert (after.argmax(1) == default.before.argmax(1)).mean() >= 0.95
    assert 1e-4 < default.error(default.int8) < 0.02


def test_corrected_biases_bring_the_answers_nearer(default: Default, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "_correct", lambda layer, shift: None)
    uncorrected = default.error(quantise.quantise(default.float32, default.calibrating))
    assert default.error(default.int8) < 0.9 * uncorrected


def test_the_model_itself_stays_float32(default: Default) -> None:
    again = default.engine(default.float32, "float32")(default.held_out)
    np.testing.assert_array_equal(again, default.before)
    assert [output.any_name for output in default.float32.outputs] == ["logits", "features"]


def test_batch_and_size_stay_open(default: Default) -> None:
    engine = OpenVINOEngine(default.int8, default.card, dtype="int8", batch_size=4)
    photos = default.held_out[:4]
    together, alone = engine(photos), np.concatenate([engine(photo[None]) for photo in photos])
    np.testing.assert_allclose(together, alone, atol=0.1)  # another order of sums, and a value rounds the other way
    assert engine(noise(3, size=101)[..., :97]).shape == (3, 200)


def test_a_prepared_file_is_a_third_and_answers_the_same(default: Default, tmp_path: Path) -> None:
    sizes = {}
    for name, model in (("float32", default.float32), ("int8", default.int8)):
        ov.save_model(model, tmp_path / f"{name}.xml", compress_to_fp16=False)
        sizes[name] = (tmp_path / f"{name}.bin").stat().st_size
    assert sizes["int8"] < 0.35 * sizes["float32"]
    kept = OpenVINOEngine(tmp_path / "int8.xml", default.card, dtype="int8")(default.held_out)
    np.testing.assert_allclose(kept, default.engine(default.int8, "int8")(default.held_out), atol=1e-4)


@pytest.mark.skipif(
    not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(instruction_sets()), reason="this processor has no int8 products"
)
def test_the_processor_multiplies_eight_bits_and_rounds_nowhere_else(default: Default) -> None:
    core = ov.Core()
    running = core.compile_model(default.int8, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    said = [{key: str(value.value) for key, value in node.get_rt_info().items()} for node in running.get_ordered_ops()]
    kernels = [node["primitiveType"] for node in said if node["layerType"] == "Convolution"]
    kernels = [kernel for kernel in kernels if "_dw_" not in kernel]
    blocks, downsamplings = sum(default.card.config.depths), 3
    # the stem and the classifier are the two others
    assert sum(kernel.endswith("_I8") for kernel in kernels) == 2 * blocks + downsamplings == len(kernels) - 2
    assert not [node for node in said if node["layerType"] == "FakeQuantize"]


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_every_kind_of_network_can_be_int8(config: ConvNextConfig) -> None:
    model = network(config)
    rounded = quantise.quantise(model, noise(32))
    photos = noise(8, seed=1)
    far = reference.difference(answers(rounded, photos), answers(model, photos, "float32"))
    assert 1e-4 < far < reference.TOLERANCE["bfloat16"]


def test_channels_that_reach_far_do_not_drown_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "stages.2.0.dwconv.weight"
    weight = random_tensors(SMALL)[name].numpy().copy()
    weight[3] *= 40
    model, photos = network(**{name: weight}), noise(8, seed=1)
    wanted = answers(model, photos, "float32")

    def error() -> float:
        return float(np.sqrt(np.square(answers(quantise.quantise(model, noise(32)), photos) - wanted).mean()))

    smoothed = error()
    monkeypatch.setattr(quantise, "_factors", lambda seen, weight: np.ones(weight.shape[1]))
    assert smoothed < 0.8 * error()


def test_zero_is_exact_at_the_edges_and_in_dead_channels() -> None:
    for low, high in ((-0.17, 11.0), (-3.0, 5.0), (0.0, 1.0), (0.0, 0.0), (1.0, 2.0), (-4.0, -1.0)):
        low_, high_ = quantise._with_zero(low, high)
        step = (high_ - low_) / 255
        assert low_ / step == pytest.approx(round(low_ / step), abs=1e-6)
        assert low_ <= 0 <= high_
        assert low_ <= low + step
        assert high_ >= high - step
    dead = dict.fromkeys(("stages.1.0.dwconv.weight", "stages.1.0.pwconv1.weight"))
    tensors = random_tensors(SMALL)
    model = network(**{name: np.zeros_like(tensors[name].numpy()) for name in dead})
    assert np.isfinite(answers(quantise.quantise(model, noise(16)), noise(2))).all()


def test_only_as_many_photos_are_taken_as_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "MOST", 20)
    photos: Iterator[np.ndarray] = iter(noise(30))
    quantise.quantise(network(), photos)
    assert len(list(photos)) == 10


@pytest.mark.parametrize(("count", "said"), [(0, "there are none"), (15, "there are 15")])
def test_too_few_photos_are_refused(count: int, said: str) -> None:
    with pytest.raises(UsageError, match=f"at least 16 photos, and {said}") as caught:
        quantise.quantise(network(), noise(count))
    assert "--calibrate" in str(caught.value.hint)


def test_networks_without_finite_values_are_refused() -> None:
    bias = np.full(16, np.nan, np.float32)
    with pytest.raises(ModelError, match="not finite"):
        quantise.quantise(network(**{"stages.1.0.pwconv2.bias": bias}), noise(16))


def test_no_connection_is_opened_and_no_telemetry_imported() -> None:
    code = """
import sys
def refuse(event, arguments):
    if event.startswith("socket."):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
import numpy as np
from tests.runtimes.test_quantise import answers, network, noise, quantise
model = quantise.quantise(network(), noise(16))
print(answers(model, noise(2)).shape, "openvino_telemetry" in sys.modules, "nncf" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "(2, 7) False False\n", done.stdout + done.stderr
    assert not done.stderr


class Known:
    """An engine that has these answers ready, photo by photo."""

    name, device, dtype = "known", "cpu", "float32"
    card = Card(SMALL)
    notes: list[str] = []  # noqa: RUF012 - as the protocol has it

    def __init__(self, choices: list[int]) -> None:
        self.choices, self.sizes = choices, list[int]()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.sizes.append(len(batch))
        return np.eye(7, dtype=np.float32)[[self.choices[int(photo[0, 0, 0])] for photo in batch]]

    def close(self) -> None: ...


def numbered(count: int) -> Iterator[np.ndarray]:
    return (np.full((3, 1, 1), i, np.float32) for i in range(count))


def test_answers_are_counted_photo_by_photo() -> None:
    before, after = Known([0, 1, 2, 3, 4]), Known([0, 1, 2, 5, 6])
    found = comparison.compare(before, after, numbered(5), [0, 1, 6, 3, 6], batch_size=2)
    assert (found.photos, found.batch_size, found.agreement) == (5, 2, 60)
    assert (found.float32_accuracy, found.int8_accuracy, found.lost) == (60, 60, 0)
    assert found.uncertainty == pytest.approx(100 * 1.96 * 2**0.5 / 5)
    assert before.sizes[:4] == after.sizes[:4] == [2, 2, 2, 1]
    assert comparison.compare(before, after, numbered(5), batch_size=9).lost is None
    with pytest.raises(UsageError, match="none are left"):
        comparison.compare(before, after, numbered(0), batch_size=2)


def test_the_default_is_compared_with_itself(default: Default) -> None:
    engines = default.engine(default.float32, "float32"), default.engine(default.int8, "int8")
    labels = default.before.argmax(1)
    found = comparison.compare(*engines, default.held_out, labels.tolist(), batch_size=8)
    assert found.photos == 60
    assert found.float32_accuracy == 100
    assert found.int8_accuracy == found.agreement >= 95
    assert 0 < found.int8_ms < 1000
    assert found.to_dict()["speedup"] == pytest.approx(found.float32_ms / found.int8_ms, abs=1e-3)


GOOD = Comparison(500, 8, 99.0, 20.0, 10.0, 80.0, 79.8, 0.5)


@pytest.mark.parametrize(
    ("found", "pays", "said"),
    [
        (GOOD, True, "2.0 times as fast as float32, 99.0 % of 500 photos keep their label, accuracy 80.0 % becomes"),
        (replace(GOOD, int8_ms=18.0), False, "1.11 times as fast as float32 on this machine"),
        (replace(GOOD, int8_ms=30.0), False, "slower than float32 on this machine"),
        (replace(GOOD, int8_accuracy=78.0), False, "loses 2.0 points of accuracy; "),
        (replace(GOOD, int8_accuracy=79.2), False, "loses 0.8 points of accuracy, though 500 photos are too few"),
        (replace(GOOD, int8_accuracy=81.0), True, "accuracy 80.0 % becomes 81.0 %"),
        (replace(GOOD, float32_accuracy=None, int8_accuracy=None), True, "99.0 % of 500 photos keep their label"),
        (replace(GOOD, agreement=90.0, float32_accuracy=None), False, "gives 10.0 % of the photos another label"),
    ],
)
def test_what_does_not_pay_is_said(found: Comparison, pays: bool, said: str) -> None:
    assert found.pays == pays
    assert said in found.verdict
    assert found.verdict.startswith("int8 pays" if pays else "int8 does not pay")
