"""Exporting: a model in another program's format, proven before it takes its name. One file a format."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from pathlib import Path

    from convnext_cli.checkpoints.checkpoint import Checkpoint
    from convnext_cli.model.card import Card
    from convnext_cli.runtimes.exporting.plan import Plan


class Writer(Protocol):
    """What a module of a format has."""

    def refuse(self, card: Card, plan: Plan) -> None:
        """Raise UnavailableError when a library or program is not there, UsageError for what the format cannot do, with
        the reason. Nothing heavy is imported or done."""
        ...

    def made_with(self) -> dict[str, str]:
        """Versions of the libraries that write the format and run it, by their names on PyPI."""
        ...

    def write(self, checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
        """Write the file at ``path``, and what belongs beside it into the same folder, which is empty.

        checkpoint: float32. card: to be kept in the file: its recipe is at the size of the plan, its ``export`` says
        what the plan says, its temperature is None where the scores have it in them (then the one of checkpoint.card
        counts). Raises UsageError or ModelError when it turns out that it cannot be done.
        """
        ...


@dataclass(frozen=True)
class Format:
    """A format by the name that ``--to`` takes. module: of ``runtimes``. suffix: of its files. what: for people.

    always, sometimes: names of what it puts beside a file. folder: whether the result is one. system: the only one, as
    ``sys.platform`` names it, that runs it.
    """

    name: str
    module: str
    suffix: str
    what: str
    always: str = ""
    sometimes: str = ""
    folder: bool = False
    system: str = ""

    def beside(self, target: Path) -> list[Path]:
        """The files that are written beside the target."""
        return _named(self.always, target)

    def perhaps(self, target: Path) -> list[Path]:
        """Those that are written where they are needed."""
        return _named(self.sometimes, target)

    def writer(self) -> Writer:
        return cast(Writer, import_module(f"convnext_cli.runtimes.{self.module}"))


def _named(pattern: str, target: Path) -> list[Path]:
    return [target.with_name(pattern.format(name=target.name, stem=target.stem))] if pattern else []


FORMATS = {
    f.name: f
    for f in (
        Format("onnx", "onnx.export", ".onnx", "ONNX, for ONNX Runtime and many others", sometimes="{name}.data"),
        Format("torchscript", "torch.export_torchscript", ".ts", "TorchScript, for libtorch"),
        Format("torch-export", "torch.export_pt2", ".pt2", "a torch.export program"),
        Format("aoti", "torch.export_aoti", ".pt2", "torch's AOTInductor package: compiled for this kind of machine"),
        Format("openvino", "openvino.export", ".xml", "OpenVINO IR", always="{stem}.bin"),
        Format("coreml", "coreml.export", ".mlpackage", "Core ML, for Apple's systems", folder=True, system="darwin"),
        Format("tflite", "litert.export", ".tflite", "LiteRT (TensorFlow Lite)"),
        Format("executorch", "executorch.export", ".pte", "ExecuTorch, for phones and small devices"),
    )
}
