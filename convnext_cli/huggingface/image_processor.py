"""ConvNextImageProcessor, as on the model's documentation page of transformers; its pixels are a Preprocessing's."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.checkpoints.foreign_preprocessing import to_huggingface
from convnext_cli.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from convnext_cli.photos.resize import apply_preprocessing

if TYPE_CHECKING:
    import numpy as np

FILE = "preprocessor_config.json"


class BatchFeature(dict[str, Any]):
    """A dict whose keys are attributes too: ``batch["pixel_values"]`` is ``batch.pixel_values``."""

    def to(self, *arguments: Any, **options: Any) -> BatchFeature:
        """Move the tensors in place, as ``torch.Tensor.to`` does: to a device, a dtype, or both."""
        for name, value in self.items():
            if hasattr(value, "to"):
                self[name] = value.to(*arguments, **options)
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


_KIND = "ConvNextImageProcessor"


def _field(name: str) -> property:
    return property(lambda processor: processor._fields[name])


class ConvNextImageProcessor:
    """Photos to ``pixel_values``.

    do_resize: resize at all. size: {"shortest_edge": n} (or n): below 384 the short side becomes n / crop_pct and the
    middle n × n is kept; from 384 on the photo is squashed to n × n. crop_pct: see size; None means 224/256.
    resample: Pillow's filter, by number or name. do_rescale, rescale_factor: values times this factor, whatever they
    are. do_normalize, image_mean, image_std: per channel, or one number for all. All of them are attributes too.

    The defaults are those of transformers 5 where it agrees with the published weights: size 384, crop_pct 224/256,
    bicubic (4.26 to 4.57 had bilinear). Mean and deviation are ImageNet's, with which the published weights were
    trained; transformers' class has 0.5 there, and every published file overrides it. ``from_pretrained`` takes a
    file's own values, and for fields that it lacks the defaults of the class that wrote it.
    """

    model_input_names = ("pixel_values",)
    do_resize, size, crop_pct, resample = map(_field, ("do_resize", "size", "crop_pct", "resample"))
    do_rescale, rescale_factor = map(_field, ("do_rescale", "rescale_factor"))
    do_normalize, image_mean, image_std = map(_field, ("do_normalize", "image_mean", "image_std"))

    def __init__(
        self,
        do_resize: bool = True,
        size: int | dict[str, int] | None = None,
        crop_pct: float | None = None,
        resample: int | str = 3,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: float | Sequence[float] | None = None,
        image_std: float | Sequence[float] | None = None,
    ) -> None:
        """Raises ValueError, with the name of the argument, when a value makes no recipe."""
        values = {
            "do_resize": do_resize,
            "size": size,
            "crop_pct": crop_pct,
            "resample": resample,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": IMAGENET_MEAN if image_mean is None else image_mean,
            "image_std": IMAGENET_STD if image_std is None else image_std,
        }
        self._use(Preprocessing.from_huggingface({"image_processor_type": _KIND, **values}), values)

    def _use(self, recipe: Preprocessing, values: dict[str, Any]) -> None:
        """values: what the recipe was made of; it knows what a switch that is off leaves unused."""
        self._recipe = recipe
        self._fields = to_huggingface(recipe)
        for switch, names in (("do_rescale", ("rescale_factor",)), ("do_normalize", ("image_mean", "image_std"))):
            if not self._fields[switch]:
                self._fields |= {name: _plain(values[name]) for name in names if values.get(name) is not None}

    @classmethod
    def from_recipe(cls, recipe: Preprocessing) -> ConvNextImageProcessor:
        """A processor that makes exactly this recipe's pixels."""
        processor = cls()
        processor._use(recipe, {})
        return processor

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> ConvNextImageProcessor:
        """The recipe of the model of this name or path; or of a preprocessor_config.json, or a folder with one.

        In a folder whose weights have a card, the card says it. Raises ModelError when there is none, or when it is
        damaged. Nothing is fetched.
        """
        from convnext_cli import checkpoints, zoo
        from convnext_cli.checkpoints.descriptions import reading

        path = Path(name)
        file = path / FILE if path.is_dir() else path
        if file.suffix != ".json" or not file.is_file() or file.name.endswith(".index.json"):
            return cls.from_recipe(checkpoints.read_card(zoo.resolve(path)).recipe)
        if path.is_dir():
            with contextlib.suppress(ModelError):  # a folder may hold this file alone
                if card := checkpoints.own_card(path):
                    return cls.from_recipe(card.recipe)
        try:
            values = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{file} cannot be read: {error}", "fetch the model again") from error
        with reading(str(file)):
            if not isinstance(values, dict):
                raise TypeError("it holds no JSON object")
            processor = cls.from_recipe(Preprocessing.from_huggingface(values))
            processor._use(processor.recipe, values)
        return processor

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
        # What is read back must be the same recipe, but for the crop's rounding and the test size, which have no field.
        same = {"crop_offset": "floor", "test_size": None, "test_resize_to": None, "fill": "mean"}
        if Preprocessing.from_huggingface(self._fields) != dataclasses.replace(recipe, **same):  # type: ignore[arg-type]
            raise ModelError(
                f"preprocessor_config.json has no words for this recipe: {recipe.describe()}",
                "save the model in the canonical layout, which keeps it",
            )
        return dict(self._fields)

    @property
    def recipe(self) -> Preprocessing:
        return self._recipe

    def __call__(self, images: Any, return_tensors: Literal["pt", "np"] | None = None, **changes: Any) -> BatchFeature:
        return self.preprocess(images, return_tensors, **changes)

    def preprocess(
        self, images: Any, return_tensors: Literal["pt", "np"] | None = None, **changes: Any
    ) -> BatchFeature:
        """One photo, or a list of them: PIL images of any mode, or arrays or torch tensors (H, W, 3), (3, H, W),
        (H, W) of uint8 or floats; a batch with four axes counts as a list.

        changes: fields of the processor, for this call alone: ``size=224``, ``do_rescale=False``.

        Returns ``pixel_values``: "np" an array, "pt" a tensor, (N, 3, height, width) float32; None a list of arrays
        (3, height, width). PIL images are turned as their EXIF asks. Floats are resized as floats and rescaled as
        bytes are: those within 0 … 1 want ``do_rescale=False``, and a warning says so.

        Raises UsageError for anything else, for no photos, and for photos of unlike sizes that cannot be stacked;
        ValueError and TypeError for changes that make no recipe; ModelError for another size where transformers has no
        words for the present one.
        """
        if return_tensors not in (None, "pt", "np"):
            raise UsageError(f"return_tensors={return_tensors!r} is unknown", "use 'pt', 'np' or None")
        many = isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4
        recipe = self._changed(changes) if changes else self._recipe
        arrays = [_pixels(recipe, image) for image in (images if many else [images])]
        if not arrays:
            raise UsageError("there are no photos to process", "give at least one")
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

    def _changed(self, changes: dict[str, Any]) -> Preprocessing:
        """The recipe with other fields. What they do not touch stays, also what has no field."""
        if unknown := sorted(changes.keys() - self._fields.keys()):
            raise TypeError(f"{unknown[0]!r} is no field of a processor; known are {', '.join(self._fields)}")
        changes = {name: value for name, value in changes.items() if value is not None}
        kept, geometry = {"crop_offset", "fill", "float_resize"}, {"do_resize", "size", "crop_pct"}
        if changes.keys() & geometry:
            new = Preprocessing.from_huggingface(self.to_dict() | changes)
        else:
            new = Preprocessing.from_huggingface(self._fields | changes)
            kept |= {"resize", "size", "resize_to"}
        return dataclasses.replace(new, **{name: getattr(self._recipe, name) for name in kept})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._recipe.describe()})"


ConvNextFeatureExtractor = ConvNextImageProcessor


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _pixels(recipe: Preprocessing, photo: Any) -> Any:
    """(3, height, width) float32 of any kind of photo."""
    from PIL import Image

    from convnext_cli.photos.colour import to_srgb
    from convnext_cli.photos.decode import upright

    if isinstance(photo, Image.Image):
        return apply_preprocessing(recipe, upright(photo, to_srgb(photo)))
    import numpy as np

    array = _array(photo)
    if array.dtype == np.uint8:
        return apply_preprocessing(recipe, to_srgb(Image.fromarray(np.ascontiguousarray(array))))
    from convnext_cli.photos.resize import apply_floats

    if not np.isfinite(array).all():
        raise UsageError("an array of floats holds NaN or infinity", "give finite values")
    if array.ndim == 3 and array.shape[2] == 4:
        raise UsageError("an array of floats has alpha, and nothing says what is white", "give three channels")
    if recipe.rescale < 1 and array.min() >= 0 and array.max() <= 1:
        warnings.warn("floats within 0 … 1 are rescaled as bytes are; do_rescale=False leaves them", stacklevel=4)
    return apply_floats(recipe, array if array.ndim == 3 else np.stack([array] * 3, axis=2))


def _array(photo: Any) -> np.ndarray[Any, Any]:
    """An array or tensor as uint8 or float32 of shape (H, W), (H, W, 3) or (H, W, 4). Raises UsageError."""
    import numpy as np

    if not hasattr(photo, "__array__"):
        raise UsageError(f"a photo cannot be a {type(photo).__name__}", "give PIL images, arrays or tensors")
    if hasattr(photo, "detach"):  # a tensor; numpy has no bfloat16
        photo = photo.detach().cpu()
        photo = photo.float() if photo.is_floating_point() else photo
    array = np.asarray(photo)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise UsageError(f"an array of {array.dtype} may mean anything", "give uint8 values from 0 to 255, or floats")
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise UsageError(f"an array of shape {array.shape} is no photo", "give (H, W, 3), (3, H, W) or (H, W)")
    return array if array.dtype == np.uint8 else array.astype(np.float32)
