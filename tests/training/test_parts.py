"""The parts of training, each by itself."""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
import torch.nn.functional as F

from convnext_cli.base.errors import ModelError
from convnext_cli.certainty.temperature import fit_temperature
from convnext_cli.datasets import Dataset, LabelledPhoto
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS
from convnext_cli.model.network import ConvNextForImageClassification, DropPath
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.training import augment, defaults, mixup, muon, schedule, seeds
from convnext_cli.training import optimiser as optimise
from convnext_cli.training.batches import Batches, Plan
from convnext_cli.training.data import TrainingData
from convnext_cli.training.initial_network import from_weights
from convnext_cli.training.loop import Trainer
from convnext_cli.training.settings import TrainingSettings
from convnext_cli.training.settings_changes import SettingsChanges
from convnext_cli.training.validation import judge
from tests.helpers.command import Run
from tests.helpers.photos import picture
from tests.helpers.training import (
    ALONE,
    TRAIN,
    photos_of,
    recipe_of,
    start_of,
    trainer_of,
)
from tests.helpers.weights import SMALL


class TestSchedule:
    def test_the_rate_rises_straight_and_falls_as_a_cosine(self) -> None:
        recipe = recipe_of(warmup=0.2, min_lr=0.1)
        at = {done: schedule.lr_factor(recipe, done) for done in (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 1.5)}
        cosine = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
        wanted = {0.0: 0.0, 0.05: 0.25, 0.1: 0.5, 0.2: 1.0, 0.4: cosine, 0.6: 0.55, 1.0: 0.1, 1.5: 0.1}
        assert at == pytest.approx(wanted)

    def test_without_a_rise_or_a_fall(self) -> None:
        assert schedule.lr_factor(recipe_of(warmup=0), 0.0) == 1.0
        assert schedule.lr_factor(recipe_of(warmup=1.0), 1.0) == pytest.approx(1.0)

    def test_sizes(self) -> None:
        recipe = recipe_of(size=96, sizes=[[0.3, 32], [0.6, 64]])
        assert [schedule.size_at(recipe, done) for done in (0, 0.29, 0.3, 0.59, 0.6, 1)] == [32, 32, 64, 64, 96, 96]
        assert recipe.largest == 96 and recipe_of(size=32, sizes=[[0.5, 64]]).largest == 64

    def test_the_average_forgets_the_first_weights_soon(self) -> None:
        recipe = recipe_of(ema=0.99)
        found = [schedule.ema_decay(recipe, step) for step in range(2000)]
        assert found[0] == 0.1 and found == sorted(found) and found[-1] == 0.99


class TestSeeds:
    def test_unlike_parts_have_unlike_seeds(self) -> None:
        parts = [
            (seed, what, *key) for seed in (0, 1, 11) for what in ("mix", "photo") for key in ((1, 11), (11, 1), (111,))
        ]
        found = [seeds.seed_of(*each) for each in parts]
        assert len(set(found)) == len(parts) and all(0 <= seed < 2**63 for seed in found)

    def test_equal_parts_draw_equally(self) -> None:
        draws = [torch.rand(4, generator=seeds.generator(3, "x", 5)) for _ in range(2)]
        assert torch.equal(*draws)
        assert seeds.numpy(3, "x").random() == seeds.numpy(3, "x").random() != seeds.numpy(3, "y").random()


class TestPlan:
    PLAN = Plan(23, 6, seed=4)

    def taken(self, count: int, first: int = 0, rank: int = 0, world: int = 1) -> list[tuple[int, list[int]]]:
        numbers = self.PLAN.numbers(first, rank, world)
        return [(epoch, some.tolist()) for epoch, some in (next(numbers) for _ in range(count))]

    def test_each_photo_at_most_once_an_epoch(self) -> None:
        steps = self.taken(9)
        assert [epoch for epoch, _ in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        for epoch in range(3):
            seen = [number for each, some in steps if each == epoch for number in some]
            assert len(set(seen)) == len(seen) == 18 and set(seen) <= set(range(23))
        assert steps[0][1] != steps[3][1]
        # those that were left over are not always the same
        assert len({number for _, some in self.taken(60) for number in some}) == 23

    @pytest.mark.parametrize("first", [1, 3, 4, 8])
    def test_the_same_from_any_step_on(self, first: int) -> None:
        assert self.taken(9 - first, first) == self.taken(9)[first:]

    def test_processes_part_each_batch(self) -> None:
        parts = [self.taken(5, 1, rank, 3) for rank in range(3)]
        for (epoch, some), *others in zip(self.taken(5, 1), *parts, strict=True):
            assert [number for _, part in others for number in part] == some
            assert {each for each, _ in others} == {epoch}


class TestBatches:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_photos_of_the_plan_at_the_size_of_their_step(self, workers: int) -> None:
        recipe, plan = recipe_of(augment="none"), Plan(8, 4, seed=1)
        found = iter(
            Batches(
                *(photos_of().train, recipe, plan, lambda step: 24 if step < 4 else 16),
                **{"first": 2, "rank": 1, "world": 2, "workers": workers, "device": ALONE.device},
            )
        )
        wanted = plan.numbers(2, 1, 2)
        change = augment.OnePhoto(recipe)
        for size in (24, 24, 16, 16):
            (epoch, numbers), (photos, some) = next(wanted), next(found)
            assert photos.shape == (2, 3, size, size) and photos.dtype == torch.uint8
            assert torch.equal(some, numbers)
            for photo, number in zip(photos, numbers.tolist(), strict=True):
                assert torch.equal(photo, change(photos_of().train[number], size, epoch, number))


class TestMix:
    RECIPE = recipe_of(mixup=0.3, cutmix=1.0, mix_share=0.8, mix_until=0.75, seed=1)

    def test_targets_are_what_the_pixels_are(self) -> None:
        kinds = Counter()
        labels = torch.eye(4)[torch.tensor([0, 1, 2, 3])]
        for step in range(60):
            found = mixup.draw(self.RECIPE, step, 0.5)
            if found is None:
                kinds["none"] += 1
                continue
            kinds["cutmix" if found.box else "mixup"] += 1
            edge = 33 + step % 3
            # each photo is filled with its class, so that pixels count what is there
            x = labels[:, :3].view(4, 3, 1, 1).expand(4, 3, edge, edge)
            target = found.blended(labels, edge)
            assert torch.allclose(target.sum(1), torch.ones(4))
            assert torch.allclose(mixup.apply(found, x).mean((2, 3)), target[:, :3], atol=1e-5)
            assert 0 <= found.share <= 1
        assert min(kinds[kind] for kind in ("none", "cutmix", "mixup")) > 4

    def test_partners_are_neighbours(self) -> None:
        assert mixup.neighbours(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]
        with pytest.raises(ValueError, match="no pairs"):
            mixup.neighbours(torch.arange(3))

    def test_parts_of_a_batch_are_mixed_as_the_whole(self) -> None:
        x = torch.rand(8, 3, 16, 16)
        for step in range(10):
            found = mixup.draw(replace(self.RECIPE, mix_share=1.0), step, 0.0)
            assert found is not None
            whole = mixup.apply(found, x)
            assert torch.equal(torch.cat([mixup.apply(found, part) for part in x.split(2)]), whole)

    def test_when_nothing_is_mixed(self) -> None:
        assert all(mixup.draw(self.RECIPE, step, 0.75) is None for step in range(20))
        assert mixup.draw(recipe_of(mixup=0, cutmix=0), 1, 0.0) is None
        only = [mixup.draw(recipe_of(cutmix=1.0), step, 0.0) for step in range(20)]
        assert all(found is not None and found.box is not None for found in only)

    def test_smoothing(self) -> None:
        found = mixup.one_hot(torch.tensor([2, 0]), 4, 0.1)
        assert torch.allclose(found, torch.tensor([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]))


class TestAugment:
    PHOTO = torch.from_numpy(np.array(picture(50, 40))).permute(2, 0, 1)

    @pytest.mark.parametrize("kind", ["none", "rand", "trivial"])
    def test_a_photo_depends_on_its_key_alone(self, kind: str) -> None:
        recipe = recipe_of(augment=kind, erasing=0.5)
        found = []
        for state in (1, 2):
            torch.manual_seed(state)
            before = torch.get_rng_state()
            found.append([augment.OnePhoto(recipe)(self.PHOTO, 24, 0, number) for number in range(12)])
            assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
        assert all(photo.shape == (3, 24, 24) and photo.dtype == torch.uint8 for photo in found[0])
        assert len({photo.numpy().tobytes() for photo in found[0]}) == 12
        assert not torch.equal(augment.OnePhoto(replace(recipe, seed=1))(self.PHOTO, 24, 0, 0), found[0][0])

    def neutral(self, photos: int) -> torch.Tensor:
        """Draws by which nothing is done."""
        drawn = torch.full((photos, augment.DRAWN), 0.5)
        drawn[:, 0] = 1.0  # the whole area
        drawn[:, [4, 5, 11, 16]] = 0.99  # no mirror, no rotation, no grey, no hole
        return drawn

    def test_a_batch_can_be_left_as_it_is(self) -> None:
        pixels = torch.stack([torch.from_numpy(np.array(picture(24, 24, seed=i))).permute(2, 0, 1) for i in range(3)])
        recipe = recipe_of(augment="affine", erasing=0.5, magnitude=10)
        drawn = self.neutral(3)
        found = augment.affine(pixels, drawn, 24, recipe)
        assert torch.allclose(found, pixels.float() / 255, atol=1e-5)
        drawn[:, 4] = 0.1
        assert torch.allclose(augment.affine(pixels, drawn, 24, recipe), pixels.flip(-1).float() / 255, atol=1e-5)
        unflipped = augment.affine(pixels, drawn, 24, replace(recipe, flip=False))
        assert torch.allclose(unflipped, pixels.float() / 255, atol=1e-5)

    @pytest.mark.parametrize("column", [0, 1, 6, 7, 8, 9, 10, 12])
    def test_every_draw_matters(self, column: int) -> None:
        pixels = torch.stack([torch.from_numpy(np.array(picture(24, 24))).permute(2, 0, 1)] * 2)
        drawn = self.neutral(2)
        drawn[:, 0], drawn[:, 5], drawn[:, 16] = 0.6, 0.0, 0.0
        drawn[1, column] = 0.2
        first, second = augment.affine(pixels, drawn, 24, recipe_of(augment="affine", erasing=0.5, magnitude=10))
        assert float((first - second).abs().max()) > 0.02

    def test_parts_of_a_batch_are_changed_as_the_whole(self) -> None:
        recipe = recipe_of(augment="affine", erasing=0.5)
        pixels = torch.stack([torch.from_numpy(np.array(picture(24, 24, seed=i))).permute(2, 0, 1) for i in range(8)])
        drawn = augment.draw(recipe, 8, 3)
        whole = augment.affine(pixels, drawn, 32, recipe)
        parts = [augment.affine(pixels[s], drawn[s], 32, recipe) for s in (slice(0, 2), slice(2, 8))]
        assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
        assert whole.shape == (8, 3, 32, 32) and 0 <= float(whole.min()) <= float(whole.max()) <= 1
        assert torch.equal(augment.draw(recipe, 8, 3), drawn) and not torch.equal(augment.draw(recipe, 8, 4), drawn)


class TestOptimise:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_every_parameter_has_a_depth_which_rises(self, name: str) -> None:
        config = VARIANTS[name].replace(num_labels=3)
        depths = {each: optimise.depth_of(each, config) for each in config.shapes()}
        found = list(depths.values())
        assert found == sorted(found) and found[0] == 0
        assert sorted(set(found)) == list(range(max(found) + 1))
        top = {each for each, depth in depths.items() if depth == max(found)}
        assert {"head.weight", "head.bias"} <= top and not any("blocks" in n or "stages" in n for n in top)

    def test_groups_of_three_blocks(self) -> None:
        config = VARIANTS["convnext_tiny"]
        named = {
            "downsample_layers.0.0.weight": 0,
            "stages.0.2.gamma": 1,
            "downsample_layers.1.1.weight": 2,
            "stages.2.0.dwconv.weight": 3,
            "stages.2.2.dwconv.weight": 3,
            "stages.2.3.dwconv.weight": 4,
            "stages.2.8.pwconv1.bias": 5,
            "stages.3.2.norm.weight": 6,
            "norm.weight": 7,
            "head.weight": 7,
        }
        assert {name: optimise.depth_of(name, config) for name in named} == named

    @pytest.mark.parametrize("name", ["test_convnext2", "convnextv2_atto"])
    def test_what_decays(self, name: str) -> None:
        network = ConvNextForImageClassification(VARIANTS[name].replace(num_labels=3))
        kept = {each for each, parameter in network.named_parameters() if not optimise.decays(parameter, each)}
        wanted = {each for each in VARIANTS[name].shapes() if each.endswith(("bias", "gamma", "beta"))}
        norms = {each for each in VARIANTS[name].shapes() if ".norm." in each or each == "norm.weight"}
        norms |= {f"downsample_layers.{stage}.{int(stage == 0)}.weight" for stage in range(4)}
        assert kept == wanted | norms

    @pytest.mark.parametrize("kind", ["adamw", "muon"])
    def test_every_parameter_is_in_one_group_whose_rate_rises(self, kind: str) -> None:
        network = start_of().network
        made = optimise.optimisers(network, recipe_of(optimiser=kind, layer_decay=0.5, weight_decay=0.3, lr=0.02))
        optimise.set_rate(made, 0.01)
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        rates, decays = {}, {}
        for optimiser in made:
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    name = names.pop(id(parameter))
                    rates[name], decays[name] = group["lr"], group["weight_decay"]
                    assert isinstance(optimiser, torch.optim.AdamW) == (
                        kind == "adamw" or ".pwconv" not in name or parameter.ndim < 2
                    )
        assert not names
        top = optimise.depth_of("head.weight", network.config)
        for name, rate in rates.items():
            assert rate == pytest.approx(0.01 * 0.5 ** (top - optimise.depth_of(name, network.config)))
            assert decays[name] == (0.3 if optimise.decays(network.get_parameter(name), name) else 0.0)

    @pytest.mark.parametrize("shape", [(12, 48), (48, 12), (20, 20)])
    def test_an_update_is_the_published_polynomial(self, shape: tuple[int, int]) -> None:
        """Five times a X + b (X Xᵀ) X + c (X Xᵀ)² X, here on the singular values, in double."""
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        values = values / matrix.norm()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        wanted = left @ values.diag() @ right
        amplified = 3.4445**5 * torch.finfo(torch.float32).eps  # what rounding of the smallest values becomes
        assert float((muon.orthogonal(matrix.float()) - wanted).abs().max()) < amplified
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3

    def test_a_step_without_rank_stays_finite(self) -> None:
        """Gradients of rank one, or of nothing, as dead channels give."""
        column, row = torch.randn(40, 1), torch.randn(1, 160)
        assert (muon.orthogonal(column @ row) / (column @ row)).std() < 1e-3
        assert not muon.orthogonal(torch.zeros(40, 160)).any()

    @pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
    def test_steps_are_those_of_torchs_muon(self) -> None:
        """Which rounds to bfloat16: a hundredth of a step's size is its noise."""
        generator = torch.Generator().manual_seed(2)
        begun = torch.randn(24, 96, generator=generator)
        ours, theirs = begun.clone().requires_grad_(), begun.clone().requires_grad_()
        settings = {"lr": 0.1, "weight_decay": 0.2}
        pair = (
            muon.Muon([{"params": [ours]}], **settings),
            torch.optim.Muon([theirs], **settings, adjust_lr_fn="match_rms_adamw"),
        )
        for _ in range(4):
            gradient = torch.randn(24, 96, generator=generator)
            for weight, optimiser in zip((ours, theirs), pair, strict=True):
                weight.grad = gradient.clone()
                optimiser.step()
        assert float((ours - theirs).detach().norm()) < 0.02 * float((theirs - begun).detach().norm())

    def test_without_decay_all_have_one_rate(self) -> None:
        made = optimise.optimisers(start_of().network, recipe_of(optimiser="adamw", layer_decay=1.0))
        optimise.set_rate(made, 0.01)
        assert {group["lr"] for group in made[0].param_groups} == {0.01}

    def test_the_average(self) -> None:
        network = start_of().network
        begun = [parameter.detach().clone() for parameter in network.parameters()]
        average = optimise.Average(network)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1.0)
        average.update(0.75)
        for value, before in zip(average.values, begun, strict=True):
            assert torch.allclose(value, before + 0.25, atol=1e-6)
        own = [parameter.detach().clone() for parameter in network.parameters()]
        kept = [value.clone() for value in average.values]
        average.swap()
        assert all(torch.equal(p, value) for p, value in zip(network.parameters(), kept, strict=True))
        average.swap()
        assert all(torch.equal(p, before) for p, before in zip(network.parameters(), own, strict=True))
        assert all(torch.equal(value, before) for value, before in zip(average.values, kept, strict=True))


class TestStep:
    def test_drop_path_is_drawn_for_all_and_parted(self, tmp_path: Path) -> None:
        recipe = recipe_of(drop_path=0.5, batch_size=8)
        start = start_of(drop_path_rate=0.5)
        trainer = trainer_of(recipe, tmp_path, start=start)
        kept = trainer.paths.draw(0, 3, 400)
        rates = [module.rate for module in start.network.modules() if isinstance(module, DropPath) and module.rate]
        assert kept.shape == (len(rates), 400) and set(kept.unique().tolist()) == {0.0, 1.0}
        assert kept.mean(1).tolist() == pytest.approx([1 - rate for rate in rates], abs=0.08)
        assert torch.equal(trainer.paths.draw(0, 3, 400), kept) and not torch.equal(trainer.paths.draw(0, 4, 400), kept)

    def test_a_step_with_class_weights(self, tmp_path: Path) -> None:
        weights = torch.tensor([0.5, 1.0, 2.0, 0.1])
        trainer = trainer_of(recipe_of(smoothing=0.2), tmp_path, weights=weights)
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
        rows = torch.tensor([0, 2, 2, 1])
        likelihood = trainer.network(x).logits.log_softmax(1)
        target = F.one_hot(rows, 4) * 0.8 + 0.05
        wanted = -(weights * target * likelihood).sum(1).mean()
        assert float(trainer._loss(x, rows, rows, None).detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)

    def test_a_loss_that_is_no_number_ends_it(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Trainer._loss
        monkeypatch.setattr(Trainer, "_loss", lambda *arguments: real(*arguments) * math.nan)
        given = ("--from", model, "--epochs", "2", "-b", "8")
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *given)
        assert done.status == 3 and "the loss is nan at step 1" in done.err and "use a lower --lr" in done.err


class TestJudge:
    def test_the_temperature_has_the_least_loss(self) -> None:
        rng = np.random.default_rng(5)
        rows = torch.from_numpy(rng.integers(0, 5, 200))
        for scale in (0.2, 1.0, 7.0):
            logits = torch.from_numpy(scale * (rng.normal(size=(200, 5)) + 2 * np.eye(5)[rows.numpy()]))
            found = fit_temperature(logits.float().numpy(), rows.numpy())
            grid = np.exp(np.linspace(math.log(found) - 0.5, math.log(found) + 0.5, 201))
            # one photo more, of any class
            losses = [float(F.cross_entropy(logits / each, rows, label_smoothing=1 / 201)) for each in grid]
            assert float(F.cross_entropy(logits / found, rows, label_smoothing=1 / 201)) <= min(losses) + 1e-9
            assert abs(math.log(grid[int(np.argmin(losses))] / found)) < 0.01

    def test_answers_that_are_all_right_have_a_finite_temperature(self) -> None:
        found = 10 * torch.eye(4) / fit_temperature(10 * np.eye(4), np.arange(4))
        # four photos, and a fifth that is each of the classes by a quarter
        assert float(found.softmax(1)[0, 0]) == pytest.approx((4 + 1 / 4) / 5)

    def test_figures(self) -> None:
        logits = torch.tensor([[3.0, 1, 0, -1, -2, -3], [0.0, 2, 1, -1, -2, -3], [5.0, 4, 3, 2, 1, 0]])
        found = judge(logits, torch.tensor([0, 2, 5]))
        assert (found["top1"], found["top5"], found["ece"]) == (1 / 3, 2 / 3, None)
        assert found["loss"] == pytest.approx(float(F.cross_entropy(logits, torch.tensor([0, 2, 5]))))
        assert judge(logits, torch.tensor([0, 2, 5]), 2.0)["loss"] == pytest.approx(
            float(F.cross_entropy(logits / 2, torch.tensor([0, 2, 5])))
        )


class TestChoose:
    def chosen(
        self, photos: int, *, device: str = "cpu", counts: list[int] | None = None, **given: Any
    ) -> TrainingSettings:
        counts = counts or [photos // 10] * 10
        start = given.setdefault("start", "scratch")
        card = None if start == "scratch" else Card(SMALL, Preprocessing(size=(64, 64), resize_to=(64, 64)))
        return defaults.choose(SettingsChanges(**given), photos=photos, counts=counts, card=card, device=device)

    def test_small_data_with_weights(self) -> None:
        found = self.chosen(400, start="default")
        assert (found.batch_size, found.size, found.start, found.arch) == (32, 64, "default", "")
        assert found.layer_decay < 1 and found.epochs == 40 and found.lr < 1e-3

    def test_large_data_from_scratch(self) -> None:
        found = self.chosen(100_000, device="cuda")
        assert (found.batch_size, found.epochs, found.arch) == (1024, 50, "convnext_atto")
        assert found.layer_decay == 1 and found.mixup > 0 and found.cutmix > 0 and found.drop_path > 0
        assert self.chosen(100_000).batch_size < 1024
        assert self.chosen(100_000, epochs=5.0).mixup == 0  # too short for that

    @pytest.mark.parametrize("start", ["scratch", "default"])
    @pytest.mark.parametrize("photos", [20, 33, 500, 5000, 50_000, 1_300_000])
    def test_of_any_size(self, photos: int, start: str) -> None:
        for device in ("cpu", "cuda"):
            found = self.chosen(photos, device=device, start=start)
            assert found.batch_size % 2 == 0 and 2 <= found.batch_size <= photos
            assert found.epochs is not None and 5 <= found.epochs <= 300 and found.minutes is None

    def test_more_photos_need_fewer_epochs(self) -> None:
        epochs = [self.chosen(photos).epochs or 0 for photos in (100, 20_000, 100_000, 1_000_000)]
        assert epochs == sorted(epochs, reverse=True) and epochs[0] > epochs[-1]

    def test_what_is_given_wins(self) -> None:
        found = self.chosen(1000, minutes=3.0, lr=0.5, batch_size=16, class_weights="none", counts=[10, 990])
        assert (found.minutes, found.epochs, found.lr, found.batch_size) == (3.0, None, 0.5, 16)
        assert found.class_weights == "none"
        assert self.chosen(1000, counts=[10, 990]).class_weights == "balanced"
        assert self.chosen(1000, counts=[400, 600]).class_weights == "none"

    def test_weights_of_classes_are_one_on_average(self) -> None:
        photos = tuple(LabelledPhoto(str(i), "a" if i < 3 else "b") for i in range(12))
        data = TrainingData(
            Dataset("x", "folders", ("a", "b"), photos), ("a", "b"), photos, photos, (), is_split_here=False
        )
        found = data.weights()
        assert found.tolist() == pytest.approx([2.0, 2 / 3])
        assert sum(float(found[data.rows[photo.label]]) for photo in photos) == pytest.approx(12)


class TestRecipe:
    def test_there_and_back(self) -> None:
        recipe = recipe_of(sizes=[[0.3, 32]], teacher="x.npy", minutes=3.5, patch_size=2)
        assert TrainingSettings(**tomllib.loads(tomli_w.dumps(recipe.to_dict()))) == recipe

    @pytest.mark.parametrize("name", ["warmup", "min_lr", "mix_share", "mix_until", "erasing", "distil", "smoothing"])
    def test_shares(self, name: str) -> None:
        for wrong in (-0.1, 1.1, math.nan, "x", None, True):
            with pytest.raises(ValueError, match=name):
                recipe_of(**{name: wrong})
        assert getattr(recipe_of(**{name: 0.5}), name) == 0.5


def test_a_model_that_cannot_be_trained_at_this_size(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match="too small for this network"):
        from_weights(recipe_of(start="x", arch="", size=24), model, ("a", "b"))
