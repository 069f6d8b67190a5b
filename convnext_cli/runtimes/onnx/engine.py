"""The ONNX Runtime engine: our graph, an exported file, or anybody's ONNX file that turns photos into logits.

What a file computes in and which provider runs it are read back, not taken for granted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from convnext_cli.base.errors import ModelError, TooSlowError, UnavailableError, lacks_memory
from convnext_cli.base.threads import abandoned, call_in_time
from convnext_cli.model.card import METADATA_KEY, Card
from convnext_cli.model.preprocessing import MOST
from convnext_cli.runtimes.checksum import is_whole
from convnext_cli.runtimes.exported import ExportedEngine, check_classes
from convnext_cli.runtimes.fixed_shapes import Fixed
from convnext_cli.runtimes.floating_point import Borrowed
from convnext_cli.runtimes.onnx.session import CUDA, open_session, ort, reason, refusal

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
    from onnxruntime import InferenceSession, RunOptions

    from convnext_cli.runtimes.onnx.foreign import Foreign
    from convnext_cli.runtimes.onnx.foreign_meaning import Kind, Steps

T = TypeVar("T")
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_BYTES = ("tensor(uint8)", "tensor(int8)")  # outputs that were quantised
_MOST_INPUT = 1 << 30  # bytes of one call of a fixed batch
FEATURES = "features"  # the output of pooled features in our own graphs
_MOST_ABANDONED = 4  # calls that took too long and may go on
_NO_LOOPS = "export it again without loops and without operations on large values"
_EXPORT = "export it with one input (N, 3, height, width) of floats, and logits (N, classes) as output"


class OnnxRuntimeEngine:
    """An ONNX file on the CPU or an NVIDIA GPU.

    model: the file, or its bytes. card: None for what the file says of itself, and guesses where it says nothing.
    dtype: what the graph computes in, of our own graphs; None reads it from the graph, which takes time and onnx.
    provider: ONNX Runtime's own name of what runs the network.
    export, photos: of a file that ``convnext export`` made, what goes in and comes out; None and False for others.
    Batch and size may be open or fixed in the file; a fixed batch is filled up with zeros.
    Raises ModelError for a file that cannot be used, UnavailableError when the device is not there.
    """

    name = "onnxruntime"

    def __init__(
        self,
        model: Path | bytes,
        card: Card | None,
        *,
        device: str = "auto",
        threads: int = 1,
        dtype: str | None = None,
    ) -> None:
        self._file = model.name if isinstance(model, Path) else "the ONNX model"
        self.notes: list[str] = []
        trial = self._memory_of_trial(model) if card is None and dtype is None else 0
        self._is_bounded = bool(trial)
        self._environment = Borrowed()
        self._session = self._open_in_time(model, "cpu" if trial else device, threads, trial)
        if card is None and (text := self._metadata().get(METADATA_KEY)):
            card = Card.from_json(text)
        if isinstance(model, Path) and not is_whole(model):
            self.notes.append(f"{self._file} is damaged, or another program changed it after it was exported")
        self.export = card.export if card is not None else None
        self.photos = self.export is not None and self.export.photos
        foreign = self._read_graph(model) if self.export is None and dtype is None else None
        self._channels_last = False
        self._input, self._dtype, self._batch, self._size = self._input_of(foreign)
        self._steps: Steps | None = None
        output, classes = self._output_of(foreign)
        self._outputs = [output]
        self._ending: Kind = "logits"
        if trial:
            self._try_once(trial)
            self._session = self._open_in_time(model, device, threads, trial, tried=True)
        self.provider: str = self._session.get_providers()[0]
        self.device = "cpu"
        if self.provider == CUDA:
            self.device = f"cuda:{self._session.get_provider_options()[CUDA].get('device_id', 0)}"
        # A few photos at a time stay in the caches: 8 at once take longer than 2 by 2.
        self._step = self._batch or (max(2, threads) if self.device == "cpu" else None)
        if self.export is not None:
            dtype = self.export.dtype
            self._outputs += [FEATURES] * self.export.features
            if dtype == "bfloat16":
                self.notes.append(f"{self._file} keeps its weights in bfloat16 and computes in float32")
        elif foreign is not None:
            dtype = foreign.dtype
            if card is None:  # otherwise the graph is our own, and nothing about it was guessed
                card = self._guess(foreign, model, classes)
                self.notes += foreign.notes
        assert card is not None and dtype is not None
        self.dtype = dtype
        self.card = self._fit(card, classes)
        self._exported = ExportedEngine(self._file, self, self.card) if self.export is not None else None
        height, width = self._size
        self.fixed = Fixed((height, width), self._batch, "" if self._ending == "logits" else self._ending)
        self.has_features = foreign is None and self.export is None and self.card.config.num_labels > 0
        if self._exported is not None:
            self.fixed, self.has_features = self._exported.fixed, self._exported.has_features

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32; where it takes photos, uint8 (N, H, W, 3) of any one size.

        Raises MemoryError when memory does not hold the batch, ModelError for a size that the file does not take.
        """
        if self._exported is not None:
            return self._exported(batch)
        if any(fixed not in (None, edge) for fixed, edge in zip(self._size, batch.shape[2:], strict=True)):
            raise ModelError(
                f"{self._file} takes photos of {_pixels(self._size)} pixels, not {_pixels(batch.shape[2:])}",
                "leave --size out, or export the network with an open height and width",
            )
        (scores,) = self.run(batch)
        if self._ending == "logits":
            return scores
        from convnext_cli.runtimes.onnx.foreign import logits_of

        return logits_of(scores, self._ending)

    def with_features(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same logits, and the pooled features (N, C) float32. Raises as a call does."""
        if self._exported is not None:
            return self._exported.with_features(batch)
        logits, features = self._run_in_parts(batch, [*self._outputs, FEATURES])
        return logits, features

    def outputs(self, batch: np.ndarray) -> list[np.ndarray]:
        """What an exported file gives: logits or scores, then the features where it has them."""
        assert self._exported is not None, f"{self._file} is not an export"
        return self._exported.outputs(batch)

    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        """What the file gives, as ``protocol.Runtime`` has it, for any number of photos of a size that it takes."""
        return self._run_in_parts(batch, self._outputs)

    def close(self) -> None:
        """Let go of the session and its memory."""
        del self._session

    def _run_in_parts(self, batch: np.ndarray, names: list[str]) -> list[np.ndarray]:
        """The outputs of these names for any number of photos."""
        step = self._step or max(1, len(batch))
        run = self._run_in_time if self._is_bounded else self._run
        parts = [run(batch[i : i + step], names) for i in range(0, max(1, len(batch)), step)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _run_in_time(self, photos: np.ndarray, names: list[str]) -> list[np.ndarray]:
        """The same as ``_run``, in bounded time: a loop may end for the trial's photo, and not for another.

        Raises:
            TooSlowError: it takes longer; one of these photos is at fault.
            ModelError: several calls that took too long have not ended yet.
        """
        from convnext_cli.runtimes.onnx.foreign_cost import SECONDS

        options = ort.RunOptions()
        try:
            return call_in_time(lambda: self._run(photos, names, options), SECONDS * len(photos))
        except TimeoutError:
            options.terminate = True  # ends a loop, though not an operation
            words = f"{self._file} takes more than {SECONDS:g} seconds of processor time for this photo"
            if len(abandoned) > _MOST_ABANDONED:
                raise ModelError(words, _NO_LOOPS) from None
            raise TooSlowError(words, _NO_LOOPS) from None

    def _run(
        self, photos: np.ndarray, names: list[str] | None = None, options: RunOptions | None = None
    ) -> list[np.ndarray]:
        n = len(photos)
        if self._batch and n < self._batch:
            photos = np.concatenate([photos, np.zeros((self._batch - n, *photos.shape[1:]), photos.dtype)])
        if self._dtype == np.uint8 and not self.photos:
            photos = np.clip(np.rint(photos), 0, 255)
        if self._channels_last:
            photos = photos.transpose(0, 2, 3, 1)
        try:
            # contiguous by itself where it is not
            photos = photos.astype(self._dtype, copy=False)
            with self._environment.computing():
                outputs = self._session.run(names or self._outputs, {self._input: photos}, options)
        except Exception as error:
            if lacks_memory(error):
                raise MemoryError(str(error)) from None
            raise ModelError(f"{self._file} does not run on {len(photos)} photos: {reason(error)}", _EXPORT) from error
        outputs = [_rows(output) for output in outputs]
        for output in outputs:
            if output.ndim != 2 or len(output) != len(photos):
                raise ModelError(
                    f"{self._file} gives an output of shape {output.shape} for {len(photos)} photos, not (N, classes)",
                    _EXPORT,
                )
        if self._steps is not None:
            outputs = [self._steps.numbers(output) for output in outputs]
        return [np.asarray(output[:n], np.float32) for output in outputs]

    def _input_of(self, foreign: Foreign | None) -> tuple[str, DTypeLike, int | None, tuple[int | None, ...]]:
        """Name, dtype, and the fixed batch, height and width; None for those that are open."""
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(repr(one.name) for one in inputs)
            raise ModelError(
                f"{self._file} has {len(inputs)} inputs{f' ({names})' if names else ''}, not one of photos", _EXPORT
            )
        source = inputs[0]
        shape = [extent if isinstance(extent, int) and extent > 0 else None for extent in source.shape]
        is_bytes = source.type == "tensor(uint8)"
        if self.photos and is_bytes and len(shape) == 4:
            return source.name, np.uint8, shape[0], (None, None)
        if source.type not in _FLOATS and not (is_bytes and foreign is not None):
            raise ModelError(
                f"{self._file} takes {source.type}, not photos as one of {', '.join(_FLOATS)} and tensor(uint8)",
                _EXPORT,
            )
        if len(shape) != 4:
            raise ModelError(f"{self._file} takes an input of {len(shape)} dimensions {source.shape}, not 4", _EXPORT)
        self._channels_last = foreign is not None and foreign.channels_last(source.name, shape)
        channels, edges = (shape[3], shape[1:3]) if self._channels_last else (shape[1], shape[2:])
        if channels not in (None, 3):
            raise ModelError(
                f"{self._file} takes {channels}-channel photos; this program makes RGB photos",
                "use a network for RGB photos",
            )
        if any(edge is not None and edge > MOST for edge in edges):
            raise ModelError(
                f"{self._file} takes photos of {_pixels(edges)} pixels; {MOST} an edge is the most here",
                "export it with a smaller or an open height and width",
            )
        if 12 * (shape[0] or 1) * math.prod(edge or 1 for edge in edges) > _MOST_INPUT:
            raise ModelError(
                f"{self._file} takes {shape[0]:,} photos in each call, which is more than memory holds",
                "export it with a smaller or an open batch",
            )
        return source.name, np.uint8 if is_bytes else _FLOATS[source.type], shape[0], tuple(edges)

    def _output_of(self, foreign: Foreign | None) -> tuple[str, int | None]:
        """Name of the output of scores, and its number of classes if said: one value a class, for each photo.

        Outputs of one number a photo count only where there is no other, and those whose rank is not said after all.
        """
        steps = {} if foreign is None else {o.name: foreign.steps(o.name) for o in self._session.get_outputs()}
        outputs = [
            one
            for one in self._session.get_outputs()
            if one.type in _FLOATS or (one.type in _BYTES and steps.get(one.name) is not None)
        ]
        flat = [one for one in outputs if _classes(one.shape) is not None]
        candidates = [one for one in flat if _classes(one.shape) != 1] or flat
        candidates = candidates or [one for one in outputs if not one.shape]
        if not candidates:
            described = ", ".join(f"{o.name} {o.type} {o.shape}" for o in self._session.get_outputs())
            raise ModelError(f"{self._file} has no output of scores (N, classes), only {described}", _EXPORT)
        for one in candidates:
            if isinstance(extent := _classes(one.shape), int):
                check_classes(extent, self._file)
        name = candidates[0].name
        if foreign is not None:
            name = foreign.output([one.name for one in candidates])
            if next(one.type for one in candidates if one.name == name) in _BYTES:
                self._steps = steps[name]
        classes = next(_classes(one.shape) for one in candidates if one.name == name)
        return name, classes if isinstance(classes, int) else None

    def _metadata(self) -> dict[str, str]:
        try:
            return dict(self._session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise ModelError(
                f"{self._file} is damaged: its metadata is not text", "fetch or export it again"
            ) from error

    def _memory_of_trial(self, model: Path | bytes) -> int:
        """Bytes in which a file has to be tried first, or 0. Raises ModelError for one that would cost too much."""
        with suppress(UnavailableError, OSError):  # an export of ours needs no second library
            from convnext_cli.runtimes.onnx import foreign_cost

            return foreign_cost.check(model, self._file, METADATA_KEY)
        return 0

    def _open_in_time(
        self, model: Path | bytes, device: str, threads: int, trial: int, *, tried: bool = False
    ) -> InferenceSession:
        """Open a file; one that has to be tried, in bounded time.

        Args:
            trial: bytes of memory for the trial; 0 for a file that need not be tried.
            tried: whether the trial is over.
        """

        def open_file() -> tuple[InferenceSession, str]:
            with self._environment.opening():
                return open_session(model, self._file, device, threads, 0 if tried else trial, small=bool(trial))

        session, note = self._in_time(open_file, "it takes more than {:g} seconds to open") if trial else open_file()
        if note:
            self.notes.append(note)
        return session

    def _try_once(self, most: int) -> None:
        """Run one photo in bounded time and memory: one call may have no end, and a file may ask for any memory.

        Args:
            most: bytes, for the message: the session has the bound.

        Raises:
            ModelError: it takes more.
        """
        height, width = (edge or 224 for edge in self._size)
        count, options = self._batch or 1, ort.RunOptions()
        shape = (count, height, width, 3) if self.photos else (count, 3, height, width)
        photos = np.random.default_rng(0).random(shape, np.float32)
        photos = (255 * photos).astype(np.uint8) if self.photos else photos

        def run_once() -> list[np.ndarray]:
            return self._run(photos, options=options)

        try:
            self._in_time(run_once, "one photo takes more than {:g} seconds")
        except MemoryError:
            raise ModelError(
                f"{self._file} is refused: one call of it takes more than {most / 1e9:.1f} GB of memory",
                "export it again without operations that make large values",
            ) from None
        except ModelError:
            options.terminate = True  # ends a loop, though not an operation
            raise

    def _in_time(self, call: Callable[[], T], words: str) -> T:
        """Raise ModelError if a call of the runtime takes too long; the words have a place for the seconds."""
        from convnext_cli.runtimes.onnx.foreign_cost import SECONDS

        try:
            return call_in_time(call, SECONDS)
        except TimeoutError:
            raise ModelError(f"{self._file} is refused: {words.format(SECONDS)}", _NO_LOOPS) from None

    def _read_graph(self, model: Path | bytes) -> Foreign:
        from convnext_cli.runtimes.onnx.foreign import Foreign

        try:
            return Foreign(model, self._file)
        except Exception as error:  # a file of ONNX Runtime's own format
            raise refusal(self._file, error) from error

    def _guess(self, foreign: Foreign, model: Path | bytes, classes: int | None) -> Card:
        """A card from the graph, its answers, and the usual values."""
        size = (self._size[0] or 224, self._size[1] or 224)
        preprocessing = foreign.preprocessing(self._input, size, bytes_wanted=self._dtype == np.uint8)
        if classes is None:
            classes = self._run(np.zeros((self._batch or 1, 3, *size), np.float32))[0].shape[1]
            check_classes(classes, self._file)
        self._ending = foreign.kind(self._outputs[0], size, lambda photos: self.run(photos)[0])
        return foreign.card(preprocessing, model.stem if isinstance(model, Path) else "", classes, self._ending)

    def _fit(self, card: Card, classes: int | None) -> Card:
        """The card with the size that the file takes. Raises ModelError when it is another network's."""
        if classes and card.config.num_labels not in (0, classes):
            raise ModelError(
                f"{self._file} gives {classes} scores, but its card says {card.config.num_labels} classes",
                "export it again, card and network together",
            )
        edges = (self._size[0] or card.preprocessing.size[0], self._size[1] or card.preprocessing.size[1])
        return (
            card if edges == card.preprocessing.size else card.replace(preprocessing=card.preprocessing.at_size(edges))
        )


def _classes(shape: Sequence[int | str | None]) -> int | str | None:
    """The one extent of an output that may be other than 1, but for the batch: a number, or a name where it is open.

    None for an output of another form.
    """
    rest = [extent for extent in shape[1:] if extent != 1]
    if len(shape) < 2 or len(rest) > 1:
        return None
    return rest[0] if rest else 1


def _rows(output: np.ndarray) -> np.ndarray:
    """(N, classes) of an output that has axes of size 1 besides."""
    if output.ndim > 2 and sum(extent != 1 for extent in output.shape[1:]) <= 1:
        return output.reshape(len(output), -1)
    return output


def _pixels(size: Sequence[int | None]) -> str:
    return "×".join(str(edge) if edge else "any" for edge in size)
