"""Settings that nobody asked for, by the size of the data and by what training begins with; each with its reason."""

from __future__ import annotations

from dataclasses import replace

from convnext_cli.model.card import Card
from convnext_cli.model.preprocessing import Fit
from convnext_cli.training.settings import SCRATCH, TrainingSettings
from convnext_cli.training.settings_changes import SettingsChanges

# Photos that a run sees in all, where no budget was given: enough to be done, no more than patience lasts.
_TUNED, _SCRATCH = 100_000, 5_000_000
_SCRATCH_ARCH = "convnext_atto"
_RARE = 3.0  # times as many photos of one class as of another from which classes are weighed


def choose(
    changes: SettingsChanges,
    *,
    photos: int,
    counts: list[int],
    card: Card | None,
    device: str,
    resize: Fit = "shortest",
) -> TrainingSettings:
    """All settings: those that were asked for, and for the rest the ones that suit the data.

    Args:
        changes: the settings that were asked for.
        photos: to train on.
        counts: photos of each class.
        card: of the weights that training begins with; None for scratch.
        device: its kind, such as "cpu".
        resize: the one that suits the photos' shapes.

    Raises:
        UsageError: settings contradict each other.
    """
    scratch = changes.start == SCRATCH
    gpu = device != "cpu"
    batch = _batch(photos, gpu=gpu, scratch=scratch) if changes.batch_size is None else changes.batch_size
    batch = min(batch, photos - photos % 2)
    suited = _scratch(changes, batch, photos) if scratch else _tuned(changes, batch, card)
    resize = changes.resize or resize
    if card is not None:
        suited = replace(
            suited, size=card.preprocessing.size[0], crop_pct=round(min(1.0, card.preprocessing.crop_pct), 4)
        )
    if resize != "shortest" and resize != (card and card.preprocessing.resize):
        suited = replace(suited, crop_pct=1.0)  # all of the photo is the point
    if changes.epochs is None and changes.minutes is None:
        seen = _SCRATCH if scratch else _TUNED
        least, most = (30, 300) if scratch else (5, 40)
        suited = replace(suited, epochs=float(min(most, max(least, round(seen / photos)))))
    if max(counts) >= _RARE * max(1, min(counts)):
        suited = replace(suited, class_weights="balanced")
    return replace(suited.updated(changes), resize=resize, batch_size=batch).complete()


def _batch(photos: int, *, gpu: bool, scratch: bool) -> int:
    """Small data wants many steps; GPUs want large batches."""
    if scratch and photos >= 50_000:
        return 1024 if gpu else 256
    if photos < 2_000:
        return 32
    return 128 if gpu and photos >= 20_000 else 64


def _scratch(changes: SettingsChanges, batch: int, photos: int) -> SettingsChanges:
    muon = (changes.optimiser or "muon") == "muon"
    long = (changes.epochs or 30) >= 30
    return SettingsChanges(
        arch=_SCRATCH_ARCH,
        optimiser="muon" if muon else "adamw",
        lr=round((2e-3 if muon else 1e-3) * (batch / 1024) ** 0.5, 6),
        weight_decay=0.05,
        beta2=0.98,
        warmup=0.05,
        drop_path=0.1 if long else 0.0,
        smoothing=0.1,
        # in a short run a network has enough to do with photos that are not mixed
        mixup=0.2 if long else 0.0,
        cutmix=1.0 if long else 0.0,
        mix_until=0.9,
        erasing=0.25 if long else 0.0,
        augment="trivial",
        scale=0.25,
        ema=0.9995 if photos >= 50_000 else 0.999,
        search_size=True,
    )


def _tuned(changes: SettingsChanges, batch: int, card: Card | None) -> SettingsChanges:
    # weights go on best with the optimiser that made them
    optimiser = changes.optimiser or ("adamw" if card is None else card.training.get("optimiser", "adamw"))
    muon = optimiser == "muon"
    return SettingsChanges(
        optimiser=optimiser,
        lr=round((1e-3 if muon else 5e-4) * (batch / 64) ** 0.5, 6),
        layer_decay=0.85,
        warmup=0.1,
        drop_path=0.1,
        smoothing=0.1,
        augment="trivial",
        scale=0.35,
        ema=0.99,
    )
