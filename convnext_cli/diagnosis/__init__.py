"""The checks of ``convnext doctor``: installed libraries, usable devices, and correct answers."""

from convnext_cli.diagnosis.report import Check, Diagnosis, Problem, diagnose

__all__ = ["Check", "Diagnosis", "Problem", "diagnose"]
