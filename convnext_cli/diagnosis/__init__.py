"""The checks of ``convnext doctor``: installed libraries, usable devices, and correct answers."""

from convnext_cli.diagnosis.probe import Check
from convnext_cli.diagnosis.report import Diagnosis, EngineReport, Problem, diagnose

__all__ = ["Check", "Diagnosis", "EngineReport", "Problem", "diagnose"]
