"""Where this program keeps its files, and the user's choices in ``config.toml``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext_cli.base.errors import UsageError
from convnext_cli.base.files import replacing, unwritten, user_path
from convnext_cli.base.text import is_well_formed, toml_values


@dataclass(frozen=True)
class Folders:
    """weights: pulled and own models, one folder each. cache: prepared engines. config: holds config.toml."""

    weights: Path
    cache: Path
    config: Path


def folders() -> Folders:
    """The folders of this user; ``CONVNEXT_HOME`` puts all three under one. Nothing is created.

    Raises UsageError when they are those of a user who does not exist.
    """
    home = os.environ.get("CONVNEXT_HOME")
    if home:
        root = user_path(home)
        return _known(Folders(root / "weights", root / "cache", root))
    import platformdirs

    return _known(
        Folders(
            platformdirs.user_data_path("convnext", appauthor=False) / "weights",
            platformdirs.user_cache_path("convnext", appauthor=False),
            platformdirs.user_config_path("convnext", appauthor=False),
        )
    )


def _known(places: Folders) -> Folders:
    for path in (places.weights, places.cache, places.config):
        if path.parts[0].startswith("~"):
            raise UsageError(
                f"{path} is in the home of a user who does not exist",
                "set CONVNEXT_HOME to a folder that you may write to, and look at HOME and the XDG_ variables",
            )
        if "\0" in str(path):
            raise UsageError(f"{path} is not the name of a folder", "set CONVNEXT_HOME to a folder")
    return places


def config_file() -> Path:
    return folders().config / "config.toml"


def read() -> dict[str, Any]:
    """The user's settings; none is as good as an empty file. Raises UsageError when the file is not TOML."""
    path = config_file()
    try:
        return toml_values(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
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
    if not is_well_formed(model):
        raise UsageError("a path that is not UTF-8 cannot be kept as a setting", "rename the file or the folder")
    if model == "default":
        values.pop("model", None)
    else:
        values["model"] = model
    path = config_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(path, error) from error
    with replacing(path) as file:
        file.write(tomli_w.dumps(values).encode())
