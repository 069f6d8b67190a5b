"""ExecuTorch: running and exporting .pte files."""
