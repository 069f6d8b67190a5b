"""Every runtime and export format: a new one is a folder beside this file, and a line in ``_ALL``.

Nothing is imported by this table: modules are named in it, and loaded when they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from convnext_cli.runtimes.protocol import CardReader, Reader, Writer

DTYPES = ("float32", "bfloat16", "float16", "int8")
# What runs weights; "auto" is the fastest that is prepared. The value is what pip installs.
ENGINES = {"auto": "", "openvino": "openvino", "onnxruntime": "onnxruntime onnx", "torch": "torch"}


@dataclass(frozen=True)
class Format:
    """A kind of file that ``convnext export`` writes.

    Args:
        name: as ``--to`` takes it.
        suffix: of its files; the first format of a suffix is the one that the suffix means.
        what: a description for people.
        runtime: the name of what runs its files.
        library: the package that the runtime needs, by its name on PyPI.
        also: another library that writes the format; "" for none.
        writer: the module in this folder that writes a file, see ``protocol.Writer``.
        card: the module in this folder that finds the card in a file, see ``protocol.CardReader``.
        reader: the module in this folder that opens a file, see ``protocol.Reader``; "" where an engine does.
        runs_when_opened: whether code of the file is run as soon as it is opened.
        always: the name of a file that is always written beside it, with {name} or {stem} of the file.
        sometimes: the name of a file that is written beside it where it is needed.
        folder: whether the result is a folder.
        int8: whether files can be in int8.
        system: the only system that runs it, as ``sys.platform`` names it; "" for all.
    """

    name: str
    suffix: str
    what: str
    runtime: str
    library: str
    writer: str
    card: str
    reader: str = ""
    also: str = ""
    runs_when_opened: bool = False
    always: str = ""
    sometimes: str = ""
    folder: bool = False
    int8: bool = True
    system: str = ""

    def beside(self, target: Path) -> list[Path]:
        """The files that are always written beside the target."""
        return _named(self.always, target)

    def perhaps(self, target: Path) -> list[Path]:
        """The files that are written beside the target where they are needed."""
        return _named(self.sometimes, target)

    def load_writer(self) -> Writer:
        """The module that writes such files."""
        return cast("Writer", import_module(f"convnext_cli.runtimes.{self.writer}"))

    def load_reader(self) -> Reader:
        """The module that opens such files. Raises UnavailableError when its library cannot be loaded."""
        return cast("Reader", import_module(f"convnext_cli.runtimes.{self.reader}"))

    def load_card_reader(self) -> CardReader:
        """The module that finds the card in such files. Raises UnavailableError when a library is missing for that."""
        return cast("CardReader", import_module(f"convnext_cli.runtimes.{self.card}"))


def _named(pattern: str, target: Path) -> list[Path]:
    return [target.with_name(pattern.format(name=target.name, stem=target.stem))] if pattern else []


_ALL = (
    Format(
        *("onnx", ".onnx", "ONNX, for ONNX Runtime and many others", "onnxruntime", "onnxruntime"),
        writer="onnx.export",
        card="onnx.card",
        also="onnx",
        sometimes="{name}.data",
    ),
    Format(
        *("torchscript", ".ts", "TorchScript, for libtorch", "torchscript", "torch"),
        writer="torch.export_torchscript",
        card="torch.card",
        reader="torch.torchscript_file",
        runs_when_opened=True,
        int8=False,
    ),
    Format(
        *("torch-export", ".pt2", "a torch.export program", "torch-export", "torch"),
        writer="torch.export_pt2",
        card="torch.card",
        reader="torch.pt2_file",
        runs_when_opened=True,
        int8=False,
    ),
    Format(
        *("aoti", ".pt2", "torch's AOTInductor package: compiled for this kind of machine", "aoti", "torch"),
        writer="torch.export_aoti",
        card="torch.card",
        reader="torch.pt2_file",
        runs_when_opened=True,
        int8=False,
    ),
    Format(
        *("openvino", ".xml", "OpenVINO IR", "openvino", "openvino"),
        writer="openvino.export",
        card="openvino.card",
        reader="openvino.ir_file",
        always="{stem}.bin",
    ),
    Format(
        *("coreml", ".mlpackage", "Core ML, for Apple's systems", "coreml", "coremltools"),
        writer="coreml.export",
        card="coreml.card",
        reader="coreml.package_file",
        folder=True,
        int8=False,
        system="darwin",
    ),
    Format(
        *("tflite", ".tflite", "LiteRT (TensorFlow Lite)", "litert", "ai-edge-litert"),
        writer="litert.export",
        card="litert.card",
        reader="litert.tflite_file",
    ),
    Format(
        *("executorch", ".pte", "ExecuTorch, for phones and small devices", "executorch", "executorch"),
        writer="executorch.export",
        card="executorch.card",
        reader="executorch.pte_file",
        also="torch",
    ),
)
FORMATS = {entry.name: entry for entry in _ALL}


def format_of(path: Path) -> Format | None:
    """The format that a file's suffix means; None for weights and other files."""
    return next((entry for entry in FORMATS.values() if entry.suffix == path.suffix.lower()), None)


def is_program(path: Path) -> bool:
    """Whether a file's name says that it is a network for a runtime, as ``convnext export`` writes, and not weights."""
    return format_of(path) is not None
