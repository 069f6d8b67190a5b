"""The name and the format of an exported file."""

from __future__ import annotations

from pathlib import Path

from convnext_cli import zoo
from convnext_cli.base.errors import UnavailableError, UsageError
from convnext_cli.base.files import user_path
from convnext_cli.runtimes.registry import FORMATS, Format


def choose_format(target: Path, name: str | None) -> Format:
    """The format by its name, or by the suffix of the file. Raises UsageError when that means none."""
    if name is not None:
        form = FORMATS[name]
        if target.suffix.lower() != form.suffix:
            raise UsageError(
                f"a file of {name} is called …{form.suffix}, not {target.name!r}",
                f"-o {target.stem}{form.suffix}: by the suffix it is known again",
            )
        return form
    for form in FORMATS.values():
        if form.suffix == target.suffix.lower():
            return form
    known = ", ".join(f"{f.suffix} ({f.name})" for f in FORMATS.values())
    raise UsageError(f"the name {target.name!r} does not say which format", f"name it: --to, or -o with {known}")


def default_target(model: str | Path | None, form: str) -> Path:
    """The file of an export that nobody named, in the current folder.

    Args:
        model: as for ``zoo.resolve``; the file is called after it.
        form: the name of the format, which decides the suffix.

    Raises:
        UnavailableError: the format is ONNX, and the library of that name is missing.
    """
    from importlib.util import find_spec

    wish = str(model or zoo.default_model())
    entry, path = zoo.find(wish), user_path(wish).absolute()
    name = entry.name if entry else path.name if path.is_dir() else path.stem if path.is_file() else wish
    if form == "onnx" and find_spec("onnx") is None:
        raise UnavailableError(
            "ONNX files need onnx, which is not installed",
            f"pip install onnx onnxruntime (the extra onnx); or without them: convnext export -o {name}.xml",
        )
    return Path(f"{name}{FORMATS[form].suffix}")
