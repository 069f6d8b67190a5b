"""Errors for libraries that are missing or broken, with the command that installs them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from convnext_cli.base.errors import UnavailableError

_OURS = "convnext_cli"
_PACKAGES = {"PIL": "pillow"}  # modules whose package has another name

_MACHINERY = ("importlib", "_frozen_importlib", "_frozen_importlib_external", "contextlib")


def load_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, with its telemetry turned off.

    Its wheels report to Microsoft unless the environment forbids it before they are loaded, here or in a process that
    is started from here: the one variable that this package sets, and only when this runtime is used.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return import_module("onnxruntime")


def needs(module: str) -> None:
    """Check for an optional library before any work starts, without importing it.

    Raises:
        UnavailableError: it is not installed.
    """
    if find_spec(module) is None:
        raise UnavailableError(f"this needs {module}", f"pip install {module}")


@contextmanager
def libraries_said() -> Iterator[None]:
    """Turn a failed import into UnavailableError, even deep in a library, whose own libraries may be missing."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith(_OURS):
            raise
        raise _unavailable(error) from error
    except OSError as error:
        # an error of loading a shared library has no errno
        if error.errno is not None or error.args == () or _importing(error) is None:
            raise
        raise _unavailable(error) from error


def _unavailable(error: ImportError | OSError) -> UnavailableError:
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    library = _importing(error) or missing or "a library"
    package = _PACKAGES.get(library, library.replace("_", "-"))
    if library == missing:
        return UnavailableError(f"{library} is not installed", f"pip install {package}")
    why = " ".join(str(error).split())[:200]
    return UnavailableError(f"{library} cannot be loaded: {why}", f"pip install --force-reinstall {package}")


def _importing(error: BaseException) -> str | None:
    """The library that was being imported, from outside of it: the first that is neither ours nor Python's."""
    behind = False
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if name == _OURS:
            behind = True
        elif behind and name not in _MACHINERY and frame.f_code.co_name != "find_spec":
            return name
    return None
