"""Core ML: running and exporting .mlpackage folders."""
