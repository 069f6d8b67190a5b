"""OpenVINO: running a network, and exporting it as OpenVINO IR."""
