"""Where this program keeps its files, and the user's choices in ``config.toml``."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext_cli.errors import OutputError, UsageError


@dataclass(frozen=True)
class Folders:
    """weights: pulled and own models, one folder each. cache: prepared engines. config: holds config.toml."""

    weights: Path
    cache: Path
    config: Path


def folders() -> Folders:
    """The folders of this user; ``CONVNEXT_HOME`` puts all three under one. Nothing is created."""
    home = os.environ.get("CONVNEXT_HOME")
    if home:
        root = Path(home).expanduser()
        return Folders(root / "weights", root / "cache", root)
    import platformdirs

    return Folders(
        platformdirs.user_data_path("convnext", appauthor=False) / "weights",
        platformdirs.user_cache_path("convnext", appauthor=False),
        platformdirs.user_config_path("convnext", appauthor=False),
    )


def config_file() -> Path:
    return folders().config / "config.toml"


def read() -> dict[str, Any]:
    """The user's settings; none is as good as an empty file. Raises UsageError when the file is not TOML."""
    path = config_file()
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the settings in {path}: {error}", "mend or delete that file") from error


def default_model() -> str:
    """The name or path that answers when none is given: ``models use`` sets it; "default" is the bundled model.

    Raises UsageError when the settings cannot be read.
    """
    model = read().get("model", "default")
    if not isinstance(model, str):
        raise UsageError(f"`model` in {config_file()} is not a name", "set it anew: convnext models use default")
    return model


def use(model: str) -> None:
    """Make a name or path the default from now on; other settings stay. Raises OutputError, UsageError."""
    import tomli_w

    values = read()
    if model == "default":
        values.pop("model", None)
    else:
        values["model"] = model
    path = config_file()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(tomli_w.dumps(values), "utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}", "check free space and permissions") from error
