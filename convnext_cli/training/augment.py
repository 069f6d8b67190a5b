"""Random changes of training photos: one at a time by torchvision, or a whole batch at once on the device."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from convnext_cli.model.preprocessing import IMAGENET_MEAN
from convnext_cli.training.seeds import generator, seed_of
from convnext_cli.training.settings import TrainingSettings

_RATIO = (3 / 4, 4 / 3)  # sides of random crops
_FILL = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
DRAWN = 17  # numbers that "affine" needs for a photo
# What "affine" does at full strength: radians, a shear, and shares of brightness, contrast and saturation.
_ANGLE, _SHEAR, _COLOUR, _GREY, _ERASED = 0.35, 0.3, 0.4, 0.1, 0.5


class OnePhoto:
    """Random crop, flip, RandAugment or TrivialAugment, erasing; the same draws whichever process makes them."""

    def __init__(self, recipe: TrainingSettings) -> None:
        self._recipe = recipe

    def __call__(self, pixels: Tensor, size: int, *key: int) -> Tensor:
        """(3, height, width) uint8 of any size -> (3, size, size) uint8. key: epoch and photo."""
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the one generator of the process
            torch.manual_seed(seed_of(self._recipe.seed, "photo", *key))
            return _chain(self._recipe, size)(pixels)  # type: ignore[no-any-return]


@cache
def _chain(recipe: TrainingSettings, size: int) -> v2.Compose:
    steps: list[v2.Transform] = [v2.RandomResizedCrop(size, (recipe.scale, 1.0), _RATIO, v2.InterpolationMode.BICUBIC)]
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.augment == "rand":
        steps.append(v2.RandAugment(recipe.operations, round(recipe.magnitude), fill=_FILL))
    elif recipe.augment == "trivial":
        steps.append(v2.TrivialAugmentWide(fill=_FILL))
    if recipe.erasing:
        steps.append(v2.RandomErasing(recipe.erasing, value=_FILL))
    return v2.Compose(steps)


def draw(recipe: TrainingSettings, photos: int, step: int) -> Tensor:
    """What ``affine`` needs for a batch over all processes: (photos, DRAWN), uniform in 0 to 1."""
    return torch.rand((photos, DRAWN), generator=generator(recipe.seed, "batch", step))


def affine(pixels: Tensor, drawn: Tensor, size: int, recipe: TrainingSettings) -> Tensor:
    """Change a whole batch: crop, flip, rotation and shear in one sampling, then colours and erasing.

    pixels: (N, 3, edge, edge) uint8. drawn: (N, DRAWN), this part of ``draw``. Gives (N, 3, size, size), 0 to 1.
    """
    n, strength = len(pixels), min(1.0, recipe.magnitude / 10)
    u = drawn.to(pixels.device).unbind(1)

    def between(number: int, low: float, high: float) -> Tensor:
        return low + (high - low) * u[number]

    area = between(0, recipe.scale, 1.0)
    ratio = torch.exp(between(1, math.log(_RATIO[0]), math.log(_RATIO[1])))
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    across, down = between(2, -1, 1) * (1 - wide), between(3, -1, 1) * (1 - high)
    flip = torch.where(u[4] < 0.5, -1.0, 1.0) if recipe.flip else torch.ones_like(area)
    turned = (u[5] < 0.5 * strength).float()
    angle, shear = turned * between(6, -_ANGLE, _ANGLE), turned * between(7, -_SHEAR, _SHEAR)
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack(
        [wide * flip * cos, wide * (shear - sin), across, high * flip * sin, high * cos, down], 1
    ).view(n, 2, 3)
    grid = F.affine_grid(matrix, [n, 3, size, size], align_corners=False)
    x = F.grid_sample(pixels.float() / 255, grid, padding_mode="reflection", align_corners=False)
    light, contrast, colour = ((1 + strength * between(k, -_COLOUR, _COLOUR)).view(n, 1, 1, 1) for k in (8, 9, 10))
    x = x * light
    middle = x.mean((1, 2, 3), keepdim=True)
    x = (x - middle) * contrast + middle
    colour = torch.where((u[11] < _GREY * strength).view(n, 1, 1, 1), 0.0, colour)
    grey = x.mean(1, keepdim=True)
    x = ((x - grey) * colour + grey).clamp(0, 1)
    if recipe.erasing:
        places = torch.arange(size, device=x.device)
        top, left, tall, broad = (u[k].view(n, 1, 1) * size for k in (12, 13, 14, 15))
        rows, columns = places.view(1, size, 1), places.view(1, 1, size)
        hole = (rows >= top) & (rows < top + _ERASED * tall) & (columns >= left) & (columns < left + _ERASED * broad)
        hole &= u[16].view(n, 1, 1) < recipe.erasing
        x = torch.where(hole[:, None], x.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1), x)
    return x
