"""A reference input, the same on every machine, and how far an engine may be from ``model/network.py`` on it."""

from __future__ import annotations

import numpy as np

# Largest difference of a logit, as a share of the range of the logits of network.py in float32. OpenVINO and ONNX
# Runtime were seen at 5e-7, bfloat16 at 5e-3 (tests/runtimes/test_engines.py); int8 is judged by its answers on photos.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


def reference_input(height: int, width: int, photos: int = 1) -> np.ndarray:
    """Waves of several lengths, (photos, 3, height, width) float32 with about the mean and deviation of photos.

    From arithmetic alone: a generator of random numbers may give others with another release.
    """
    n, c, y, x = np.ogrid[1 : photos + 1, 1:4, 0:height, 0:width]
    phase = 0.7 * n + 1.9 * c
    waves = np.sin(2 * np.pi * (c + n) * y / height + phase) + np.cos(2 * np.pi * (2 * c + n) * x / width - phase)
    ripples = np.sin(0.9 * x + 0.6 * y * c + phase)
    return np.asarray(0.8 * waves + 0.6 * ripples, np.float32)


def difference(logits: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of a logit, as a share of the range of the reference's; infinite for NaN."""
    spread = float(np.ptp(reference)) or 1.0
    worst = float(np.abs(logits - reference).max()) / spread
    return worst if np.isfinite(worst) else float("inf")
