"""The names of classes: bundled sets, a checkpoint's own, and a user's files.

Importing this package reads no file and needs no heavy library; a set is read when it is used.
"""

from __future__ import annotations

from convnext_cli.labels.bundled import for_size, load, names
from convnext_cli.labels.label_set import Label, LabelSet
from convnext_cli.labels.selection import floors, select
from convnext_cli.labels.user_files import read

__all__ = ["Label", "LabelSet", "floors", "for_size", "load", "names", "read", "select"]
