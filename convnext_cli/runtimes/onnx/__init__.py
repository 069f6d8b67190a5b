"""ONNX and ONNX Runtime: running our graphs and other programs' files, and exporting."""
