"""What is installed here, what it can use, and whether it computes what it should; what ``convnext doctor`` shows."""

from convnext_cli.diagnosis.report import Check, Diagnosis, Problem, diagnose

__all__ = ["Check", "Diagnosis", "Problem", "diagnose"]
