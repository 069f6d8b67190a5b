"""Exporting: a model in another program's format, proven before it takes its name."""
