"""LiteRT: running and exporting .tflite files."""
