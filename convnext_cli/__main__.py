"""``python -m convnext_cli``."""

from convnext_cli.cli import main

main()
