"""ConvNextImageProcessor, as on the model's documentation page of transformers; its pixels are a Recipe's."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convnext_cli.errors import ModelError, UsageError
from convnext_cli.photos.recipe import IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, Recipe

if TYPE_CHECKING:
    from PIL import Image

FILE = "preprocessor_config.json"


class BatchFeature(dict[str, Any]):
    """A dict whose keys are attributes too: ``batch["pixel_values"]`` is ``batch.pixel_values``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class ConvNextImageProcessor:
    """Photos to ``pixel_values``.

    do_resize: resize at all. size: {"shortest_edge": n} (or n): below 384 the short side becomes n / crop_pct and the
    middle n × n is kept; from 384 on the photo is squashed to n × n. crop_pct: see size; None means 224/256.
    resample: Pillow's filter, by number or name. do_rescale, rescale_factor: bytes times this factor. do_normalize,
    image_mean, image_std: per channel.

    The defaults are those of transformers 5 where it agrees with the published weights: size 384, crop_pct 224/256,
    bicubic (4.26 to 4.57 had bilinear). Mean and deviation are ImageNet's, with which the published weights were
    trained; transformers' class has 0.5 there, and every published file overrides it. ``from_pretrained`` takes a
    file's own values, and for fields that it lacks the defaults of the class that wrote it.
    """

    model_input_names = ("pixel_values",)

    def __init__(
        self,
        do_resize: bool = True,
        size: int | dict[str, int] | None = None,
        crop_pct: float | None = None,
        resample: int | str = 3,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: float | list[float] | None = None,
        image_std: float | list[float] | None = None,
    ) -> None:
        """Raises ModelError when a value makes no recipe."""
        self._recipe = Recipe.from_huggingface(
            {
                "image_processor_type": "ConvNextImageProcessor",
                "do_resize": do_resize,
                "size": size,
                "crop_pct": crop_pct,
                "resample": resample,
                "do_rescale": do_rescale,
                "rescale_factor": rescale_factor,
                "do_normalize": do_normalize,
                "image_mean": [image_mean] * 3 if isinstance(image_mean, float) else image_mean or IMAGENET_MEAN,
                "image_std": [image_std] * 3 if isinstance(image_std, float) else image_std or IMAGENET_STD,
            }
        )

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> ConvNextImageProcessor:
        """A processor that makes exactly this recipe's pixels."""
        processor = cls()
        processor._recipe = recipe
        return processor

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> ConvNextImageProcessor:
        """From a preprocessor_config.json, or a folder with one; else the recipe of the model of this name or path.

        Raises ModelError when there is none, or when it is damaged. Nothing is fetched.
        """
        path = Path(name)
        file = path / FILE if path.is_dir() else path
        if file.suffix == ".json" and file.is_file():
            try:
                values = json.loads(file.read_bytes())
            except (OSError, ValueError) as error:
                raise ModelError(f"{file} cannot be read: {error}", "fetch the model again") from error
            if not isinstance(values, dict):
                raise ModelError(f"{file} holds no JSON object", "fetch the model again")
            return cls.from_recipe(Recipe.from_huggingface(values))
        from convnext_cli import checkpoints, zoo

        return cls.from_recipe(checkpoints.load(zoo.resolve(path)).card.recipe)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write preprocessor_config.json into the folder, which is made when it is not there; returns its path.

        Raises ModelError for a recipe that transformers' processor cannot express (timm's "border", for one).
        """
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = Path(folder) / FILE
        file.write_text(text, encoding="utf-8")
        return file

    def to_dict(self) -> dict[str, Any]:
        """The fields of preprocessor_config.json. Raises ModelError as ``save_pretrained`` does."""
        recipe = self._recipe
        plain = recipe.mean == (0.0,) * 3 and recipe.std == (1.0,) * 3
        dino = recipe.float_resize
        square = recipe.size[0] == recipe.size[1]
        values: dict[str, Any] = {
            "image_processor_type": "DINOv3ViTImageProcessorFast" if dino else "ConvNextImageProcessor",
            "do_resize": recipe.resize != "none",
            "size": {"shortest_edge": recipe.size[0]},
            "crop_pct": recipe.crop_pct if recipe.resize == "shortest" else None,
            "resample": INTERPOLATIONS.index(recipe.interpolation),
            "do_rescale": recipe.rescale != 1.0,
            "rescale_factor": recipe.rescale,
            "do_normalize": not plain,
            "image_mean": list(recipe.mean),
            "image_std": list(recipe.std),
        }
        if dino or not square or (recipe.resize == "squash" and recipe.size[0] < 384):
            values["size"] = {"height": recipe.size[0], "width": recipe.size[1]}
        # What is read back must be the same recipe, but for the crop's rounding and the test size, which have no field.
        same = {"crop_offset": "floor", "test_size": None, "test_resize_to": None, "fill": "mean"}
        if Recipe.from_huggingface(values) != dataclasses.replace(recipe, **same):  # type: ignore[arg-type]
            raise ModelError(
                f"preprocessor_config.json has no words for this recipe: {recipe.describe()}",
                "save the model in the canonical layout, which keeps it",
            )
        return values

    @property
    def recipe(self) -> Recipe:
        return self._recipe

    @property
    def size(self) -> dict[str, int]:
        return {"shortest_edge": self._recipe.size[0]}

    @property
    def crop_pct(self) -> float:
        return self._recipe.crop_pct

    @property
    def image_mean(self) -> list[float]:
        return list(self._recipe.mean)

    @property
    def image_std(self) -> list[float]:
        return list(self._recipe.std)

    def __call__(self, images: Any, return_tensors: Literal["pt", "np"] | None = None) -> BatchFeature:
        return self.preprocess(images, return_tensors)

    def preprocess(self, images: Any, return_tensors: Literal["pt", "np"] | None = None) -> BatchFeature:
        """One photo, or a list of them: PIL images of any mode, or uint8 arrays or torch tensors (H, W, 3), (3, H, W),
        (H, W); a batch with four axes counts as a list.

        Returns ``pixel_values``: "np" an array, "pt" a tensor, (N, 3, height, width) float32; None a list of arrays
        (3, height, width). PIL images are turned as their EXIF asks.

        Raises UsageError for anything else, and for photos of unlike sizes that cannot be stacked.
        """
        if return_tensors not in (None, "pt", "np"):
            raise UsageError(f"return_tensors={return_tensors!r} is unknown", "use 'pt', 'np' or None")
        many = isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4
        arrays = [self._recipe.apply(_image(image)) for image in (images if many else [images])]
        if return_tensors is None:
            return BatchFeature(pixel_values=arrays)
        import numpy as np

        if len({array.shape for array in arrays}) != 1:
            raise UsageError(
                "photos of unlike sizes make no batch", "let do_resize be True, or leave return_tensors out"
            )
        stacked = np.stack(arrays)
        if return_tensors == "np":
            return BatchFeature(pixel_values=stacked)
        import torch

        return BatchFeature(pixel_values=torch.from_numpy(stacked))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._recipe.describe()})"


ConvNextFeatureExtractor = ConvNextImageProcessor


def _image(photo: Any) -> Image.Image:
    """Any kind of photo as an upright RGB image."""
    from PIL import Image

    from convnext_cli.photos.colour import to_srgb
    from convnext_cli.photos.decode import upright

    if isinstance(photo, Image.Image):
        return upright(photo, to_srgb(photo))
    import numpy as np

    if not hasattr(photo, "__array__"):
        raise UsageError(f"a photo cannot be a {type(photo).__name__}", "give PIL images, arrays or tensors")
    array = np.asarray(photo.cpu() if hasattr(photo, "cpu") else photo)
    if array.dtype != np.uint8:
        raise UsageError(f"an array of {array.dtype} may mean anything", "give uint8 values from 0 to 255")
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise UsageError(f"an array of shape {array.shape} is no photo", "give (H, W, 3), (3, H, W) or (H, W)")
    return to_srgb(Image.fromarray(np.ascontiguousarray(array)))
