"""``convnext benchmark`` is ``convnext bench``."""

from convnext_cli.cli.bench import bench as benchmark

__all__ = ["benchmark"]
