"""Where this program keeps its files, and the user's choices in ``config.toml``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from convnext_cli.base.errors import UsageError
from convnext_cli.base.files import replacing, unwritten, user_path
from convnext_cli.base.text import JsonObject, is_well_formed, toml_values


@dataclass(frozen=True)
class Folders:
    """The folders of this program.

    Args:
        weights: holds pulled models and the user's own, one folder each.
        cache: holds prepared engines.
        config: holds config.toml.
    """

    weights: Path
    cache: Path
    config: Path


def folders() -> Folders:
    """The folders of this user; ``CONVNEXT_HOME`` puts all three under one. Nothing is created.

    Raises:
        UsageError: the home folder of the user does not exist.
    """
    home = os.environ.get("CONVNEXT_HOME")
    if home:
        root = user_path(home)
        return _checked(Folders(root / "weights", root / "cache", root))
    import platformdirs

    return _checked(
        Folders(
            platformdirs.user_data_path("convnext", appauthor=False) / "weights",
            platformdirs.user_cache_path("convnext", appauthor=False),
            platformdirs.user_config_path("convnext", appauthor=False),
        )
    )


def _checked(places: Folders) -> Folders:
    for path in (places.weights, places.cache, places.config):
        if path.parts[0].startswith("~"):
            raise UsageError(
                f"the folder {path} belongs to a user who does not exist",
                "set CONVNEXT_HOME to a folder that you may write to, and check HOME and the XDG_ variables",
            )
        if "\0" in str(path):
            raise UsageError(f"{path} is not a valid folder name", "set CONVNEXT_HOME to a folder")
    return places


def config_file() -> Path:
    """The path of the settings file."""
    return folders().config / "config.toml"


def read() -> JsonObject:
    """The user's settings; empty if the file is missing.

    Raises:
        UsageError: the file cannot be read, or is not TOML.
    """
    path = config_file()
    try:
        return toml_values(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the settings in {path}: {error}", "fix or delete that file") from error


def default_model() -> str:
    """The name or path of the model that is used when none is named. ``models use`` sets it; "default" is bundled.

    Raises:
        UsageError: the settings cannot be read.
    """
    model = read().get("model", "default")
    if not isinstance(model, str):
        raise UsageError(f"`model` in {config_file()} is not a name", "convnext models use default")
    return model


def use(model: str) -> None:
    """Make a name or path the default model; other settings stay.

    Raises:
        OutputError: the settings cannot be written.
        UsageError: the settings cannot be read, or the path is not UTF-8.
    """
    import tomli_w

    values = read()
    if not is_well_formed(model):
        raise UsageError("a path that is not UTF-8 cannot be saved as a setting", "rename the file or the folder")
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
