"""ConvNextImageProcessor, as on the model's documentation page of transformers; its pixels are a Preprocessing's."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.base.text import JsonObject, JsonValue
from convnext_cli.checkpoints.foreign_preprocessing import to_huggingface
from convnext_cli.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from convnext_cli.photos.resize import apply_preprocessing

if TYPE_CHECKING:
    import numpy as np

FILE = "preprocessor_config.json"
Photos: TypeAlias = Any  # one photo or several, of any library: PIL images, arrays, tensors


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
    """Turns photos into ``pixel_values``. Its arguments are attributes, too.

    The defaults are those of transformers 5 where it agrees with the published weights: size 384, crop_pct 224/256,
    bicubic (4.26 to 4.57 had bilinear). Mean and deviation are ImageNet's, with which the published weights were
    trained; transformers' class has 0.5, which every published file overrides. ``from_pretrained`` uses a file's own
    values, and for missing fields the defaults of the class that wrote it.

    Args:
        do_resize: whether to resize.
        size: {"shortest_edge": n}, or n. Below 384, the short side becomes n / crop_pct and the middle n × n is kept;
            from 384 on, the photo is squashed to n × n.
        crop_pct: see ``size``; None for 224/256.
        resample: Pillow's filter, by number or name.
        do_rescale: whether to multiply the values by ``rescale_factor``.
        rescale_factor: the factor.
        do_normalize: whether to subtract ``image_mean`` and divide by ``image_std``.
        image_mean, image_std: for each channel, or one number for all.
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
        """Raise ValueError, with the name of the argument, for a value that is not valid."""
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

    def _use(self, preprocessing: Preprocessing, values: JsonObject) -> None:
        """Take over preprocessing.

        Args:
            preprocessing: the new preprocessing.
            values: the fields that it was made from. They keep values that a switch turns off.
        """
        self._preprocessing = preprocessing
        self._fields = to_huggingface(preprocessing)
        for switch, names in (("do_rescale", ("rescale_factor",)), ("do_normalize", ("image_mean", "image_std"))):
            if not self._fields[switch]:
                self._fields |= {name: _plain(values[name]) for name in names if values.get(name) is not None}

    @classmethod
    def from_preprocessing(cls, preprocessing: Preprocessing) -> ConvNextImageProcessor:
        """A processor with exactly this preprocessing."""
        processor = cls()
        processor._use(preprocessing, {})
        return processor

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> ConvNextImageProcessor:
        """The processor of a model by name or path, of a preprocessor_config.json, or of a folder with one.

        If the weights in a folder have a card, the card counts.

        Raises:
            ModelError: there is none, or when it is damaged. Nothing is fetched.
        """
        from convnext_cli import checkpoints, zoo
        from convnext_cli.checkpoints.descriptions import reading

        path = Path(name)
        file = path / FILE if path.is_dir() else path
        if file.suffix != ".json" or not file.is_file() or file.name.endswith(".index.json"):
            return cls.from_preprocessing(checkpoints.read_card(zoo.resolve(path)).preprocessing)
        if path.is_dir():
            with contextlib.suppress(ModelError):  # a folder may hold this file alone
                if card := checkpoints.own_card(path):
                    return cls.from_preprocessing(card.preprocessing)
        try:
            values = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{file} cannot be read: {error}", "download the model again") from error
        with reading(str(file)):
            if not isinstance(values, dict):
                raise TypeError("it is not a JSON object")
            processor = cls.from_preprocessing(Preprocessing.from_huggingface(values))
            processor._use(processor.preprocessing, values)
        return processor

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write preprocessor_config.json into a folder, which is created if it is missing; return the file's path.

        Raises:
            ModelError: transformers' processor cannot express the preprocessing (such as timm's "border").
        """
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = Path(folder) / FILE
        file.write_text(text, encoding="utf-8")
        return file

    def to_dict(self) -> JsonObject:
        """The fields of preprocessor_config.json.

        Raises:
            ModelError: as for ``save_pretrained``.
        """
        preprocessing = self._preprocessing
        # Reading it back must give the same preprocessing, except for the crop's rounding and the test size.
        same = {"crop_offset": "floor", "test_size": None, "test_resize_to": None, "fill": "mean"}
        if Preprocessing.from_huggingface(self._fields) != dataclasses.replace(preprocessing, **same):  # type: ignore[arg-type]
            raise ModelError(
                f"preprocessor_config.json cannot express this preprocessing: {preprocessing.describe()}",
                "save the model in the canonical layout, which keeps it",
            )
        return dict(self._fields)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of this processor."""
        return self._preprocessing

    def __call__(
        self, images: Photos, return_tensors: Literal["pt", "np"] | None = None, **changes: Any
    ) -> BatchFeature:
        return self.preprocess(images, return_tensors, **changes)

    def preprocess(
        self, images: Photos, return_tensors: Literal["pt", "np"] | None = None, **changes: Any
    ) -> BatchFeature:
        """Turn photos into ``pixel_values``.

        PIL images are turned upright by their EXIF. Floats are resized as floats, and rescaled like bytes: floats from
        0 to 1 need ``do_rescale=False``, and a warning says so.

        Args:
            images: one photo or a list of them: PIL images of any mode, or arrays or torch tensors (H, W, 3), (3, H, W)
                or (H, W) of uint8 or floats. A batch with four axes counts as a list.
            return_tensors: "np" for an array, "pt" for a tensor, None for a list of arrays.
            changes: fields of the processor for this call only, such as ``size=224`` or ``do_rescale=False``.

        Returns:
            ``pixel_values``, float32 (N, 3, height, width), or a list of (3, height, width).

        Raises:
            UsageError: the images are something else, there are none, or their sizes differ and they are to be stacked.
            ValueError, TypeError: a change is not valid.
            ModelError: the size is changed, and transformers cannot express the present preprocessing.
        """
        if return_tensors not in (None, "pt", "np"):
            raise UsageError(f"return_tensors cannot be {return_tensors!r}", "use 'pt', 'np' or None")
        many = isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4
        preprocessing = self._changed(changes) if changes else self._preprocessing
        arrays = [_pixels(preprocessing, image) for image in (images if many else [images])]
        if not arrays:
            raise UsageError("there are no photos to process", "pass at least one")
        if return_tensors is None:
            return BatchFeature(pixel_values=arrays)
        import numpy as np

        if len({array.shape for array in arrays}) != 1:
            raise UsageError(
                "photos of different sizes cannot be stacked to a batch",
                "use do_resize=True, or leave return_tensors out",
            )
        stacked = np.stack(arrays)
        if return_tensors == "np":
            return BatchFeature(pixel_values=stacked)
        import torch

        return BatchFeature(pixel_values=torch.from_numpy(stacked))

    def _changed(self, changes: JsonObject) -> Preprocessing:
        """The preprocessing with other fields. Everything else stays, even what has no field."""
        if unknown := sorted(changes.keys() - self._fields.keys()):
            raise TypeError(f"{unknown[0]!r} is not a field of a processor; the fields are {', '.join(self._fields)}")
        changes = {name: value for name, value in changes.items() if value is not None}
        kept, geometry = {"crop_offset", "fill", "float_resize"}, {"do_resize", "size", "crop_pct"}
        if changes.keys() & geometry:
            new = Preprocessing.from_huggingface(self.to_dict() | changes)
        else:
            new = Preprocessing.from_huggingface(self._fields | changes)
            kept |= {"resize", "size", "resize_to"}
        return dataclasses.replace(new, **{name: getattr(self._preprocessing, name) for name in kept})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._preprocessing.describe()})"


ConvNextFeatureExtractor = ConvNextImageProcessor


def _plain(value: object) -> JsonValue:
    return value.tolist() if hasattr(value, "tolist") else value


def _pixels(preprocessing: Preprocessing, photo: object) -> np.ndarray:
    """The tensor of any kind of photo, float32 (3, height, width)."""
    from PIL import Image

    from convnext_cli.photos.decode import as_decoded

    if isinstance(photo, Image.Image):
        return apply_preprocessing(preprocessing, as_decoded(photo))
    import numpy as np

    array = _array(photo)
    if array.dtype == np.uint8:
        return apply_preprocessing(preprocessing, as_decoded(Image.fromarray(np.ascontiguousarray(array))))
    from convnext_cli.photos.resize import apply_floats

    if not np.isfinite(array).all():
        raise UsageError("an array of floats contains NaN or infinity", "pass finite values")
    if array.ndim == 3 and array.shape[2] == 4:
        raise UsageError(
            "an array of floats has an alpha channel, and the value of white is not known", "pass three channels"
        )
    if preprocessing.rescale < 1 and array.min() >= 0 and array.max() <= 1:
        warnings.warn(
            "floats from 0 to 1 are rescaled as if they were bytes; do_rescale=False prevents that", stacklevel=4
        )
    return apply_floats(preprocessing, array if array.ndim == 3 else np.stack([array] * 3, axis=2))


def _array(photo: object) -> np.ndarray:
    """An array or tensor as uint8 or float32 of shape (H, W), (H, W, 3) or (H, W, 4).

    Raises:
        UsageError: it is not a photo.
    """
    import numpy as np

    if not hasattr(photo, "__array__"):
        raise UsageError(f"a photo cannot be a {type(photo).__name__}", "pass PIL images, arrays or tensors")
    if hasattr(photo, "detach"):  # a tensor; numpy has no bfloat16
        tensor = photo.detach().cpu()
        photo = tensor.float() if tensor.is_floating_point() else tensor
    array = np.asarray(photo)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise UsageError(
            f"the meaning of an array of {array.dtype} is not known", "pass uint8 values from 0 to 255, or floats"
        )
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise UsageError(f"an array of shape {array.shape} is not a photo", "pass (H, W, 3), (3, H, W) or (H, W)")
    return array if array.dtype == np.uint8 else array.astype(np.float32)
