"""The features that --freeze fits a classifier to: those of the network, whatever computes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError, UnavailableError
from convnext_cli.datasets import open_data
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.network import ConvNextForImageClassification
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.openvino import engine as openvino
from convnext_cli.training import features, finish
from convnext_cli.training.features import Features
from convnext_cli.training.photo_cache import InMemory, Judged, Pixels, Streamed
from tests.helpers.command import Run
from tests.helpers.training import ALONE, TRAIN, facts, photos_of, place, tensors_of
from tests.helpers.weights import SMALL, random_tensors

RECIPE = Preprocessing(size=(32, 32), resize_to=(32, 32), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
CONFIGS = {
    "v1": SMALL,
    "v2": SMALL.replace(use_grn=True, layer_scale_init_value=0.0),
    "hidden head": SMALL.replace(head_hidden_size=24),
    "no norm before the head": SMALL.replace(head_norm="none"),
    "norm before the pool": SMALL.replace(head_norm="before_pool"),
    "another activation": SMALL.replace(hidden_act="silu"),
    "rms, overlapping stem": SMALL.replace(norm="rms", norm_bias=False, stem="overlap", stem_width=6),
    "simple, overlapping stem": SMALL.replace(norm="simple", norm_bias=False, stem="overlap_act", stem_width=6),
    "isotropic": VARIANTS["convnext_isotropic_small"].replace(depths=(2,), hidden_sizes=(24,), num_labels=7),
}


def network_of(config: ConvNextConfig) -> ConvNextForImageClassification:
    network = ConvNextForImageClassification(config)
    network.load_state_dict(random_tensors(config))
    return network.eval()


def exact(network: ConvNextForImageClassification, photos: torch.Tensor) -> torch.Tensor:
    """By network.py in float64, of bytes (N, 3, H, W)."""
    network = network.double()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (RECIPE.mean, RECIPE.std))
    with torch.inference_mode():
        *_, last = network.hidden_states((photos.double() / 255 - mean) / std)
        pooled = network.pool(last)
        return F.gelu(network.head_hidden(pooled)) if network.config.head_hidden_size else pooled


class TestParity:
    @pytest.mark.parametrize("name", CONFIGS)
    @pytest.mark.parametrize("engine", ["openvino", "torch"])
    def test_they_are_those_of_the_network(self, name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if engine == "torch":
            monkeypatch.setattr(features, "find_spec", lambda _: None)
        network, pixels = network_of(CONFIGS[name]), photos_of(19).train
        found = Features(network, RECIPE, ALONE.device)
        assert found.engine == engine
        counts: list[int] = []
        plain, mirrored = found.of(pixels, mirrored=True, progress=counts.append)
        assert mirrored is not None and plain.dtype == mirrored.dtype == torch.float64
        photos = torch.stack([pixels[number] for number in range(19)])
        for answers, view in ((plain, photos), (mirrored, photos.flip(-1))):
            wanted = exact(network, view)
            assert answers.shape == wanted.shape
            assert float((answers - wanted).abs().max()) < 2e-5 * float(wanted.abs().max())
        assert counts == sorted(counts) and counts[-1] == 19

    def test_mirrored_ones_only_where_asked_for(self) -> None:
        assert Features(network_of(SMALL), RECIPE, ALONE.device).of(photos_of().train)[1] is None

    def test_an_engine_that_computes_something_else_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        call = openvino.OpenVINOEngine.__call__

        def wrong(engine: Any, batch: np.ndarray) -> np.ndarray:
            return call(engine, batch) * 1.01

        monkeypatch.setattr(openvino.OpenVINOEngine, "__call__", wrong)
        network = network_of(SMALL)
        found = Features(network, RECIPE, ALONE.device)
        assert found.engine == "torch"
        pixels = photos_of().train
        answers, _ = found.of(pixels)
        wanted = exact(network, torch.stack([pixels[number] for number in range(8)]))
        assert torch.allclose(answers, wanted, atol=1e-4)

    def test_a_precision_that_the_processor_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise UnavailableError("this processor does not compute in bfloat16")

        monkeypatch.setattr(openvino, "OpenVINOEngine", refuse)
        found = Features(network_of(SMALL), RECIPE, ALONE.device, dtype="bfloat16")
        assert found.engine == "torch"
        answers, _ = found.of(photos_of().train)
        assert bool(answers.isfinite().all())


class TestWhereverPhotosAre:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        return place(tmp_path / "photos", 5)

    def pixels(self, data: Path, *, streamed: bool) -> Pixels:
        dataset = open_data(str(data))
        stream = Streamed(dataset, [str(data)], dataset.photos, Judged(RECIPE))
        if streamed:
            return stream
        kept = InMemory(10**7)
        for number in range(len(stream)):
            kept.add(stream[number].permute(1, 2, 0).numpy(), len(stream) - number - 1)
        return kept

    @pytest.mark.parametrize("threads", [1, 3])
    def test_streamed_ones_are_the_same(self, data: Path, threads: int) -> None:
        found = Features(network_of(SMALL), RECIPE, ALONE.device, threads=threads)
        one, two = (found.of(self.pixels(data, streamed=streamed), mirrored=True) for streamed in (False, True))
        assert one[0].shape == (20, SMALL.hidden_sizes[-1])
        for kept, read in zip(one, two, strict=True):
            assert kept is not None and read is not None
            assert float((kept - read).abs().max()) < 1e-6 * float(kept.abs().max())

    def test_one_that_goes_away(self, data: Path) -> None:
        pixels = self.pixels(data, streamed=True)
        (data / "red" / "302.png").unlink()
        with pytest.raises(ModelError, match="a photo can no longer be read"):
            Features(network_of(SMALL), RECIPE, ALONE.device).of(pixels)

    def test_torch_has_no_part_in_the_figures(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
    ) -> None:
        pytest.importorskip("openvino")
        monkeypatch.setattr(finish, "logits", None)
        run = tmp_path / "run"
        done = convnext(*TRAIN, folders, "-o", run, "--from", model, "--freeze")
        assert done.status == 0, done.err
        results = facts(run)["results"]
        for name in ("val", "test"):
            judged = convnext("evaluate", "-m", run, folders, "--split", name, "--json", "--engine", "torch")
            assert json.loads(judged.out)["top1"]["value"] == pytest.approx(results[name]["top1"], abs=1e-9)

    def test_a_run_without_memory(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        for name, more in (("kept", ()), ("read", ("--memory", "0"))):
            done = convnext(*TRAIN, folders, "-o", tmp_path / name, "--from", model, "--freeze", *more)
            assert done.status == 0, done.err
        kept, read = (tensors_of(tmp_path / name)["head.weight"] for name in ("kept", "read"))
        assert torch.allclose(kept, read, atol=1e-3 * float(kept.abs().max()))
        assert facts(tmp_path / "kept")["results"]["val"]["top1"] == facts(tmp_path / "read")["results"]["val"]["top1"]
        checkpoints.load(tmp_path / "kept", verify=True)
