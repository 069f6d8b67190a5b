"""Where a run took place: the machine, its limits and sensors, the versions of everything that could matter."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

from convnext_cli import __version__
from convnext_cli.base import machine, memory

LIBRARIES = (
    *("torch", "torchvision", "openvino", "onnxruntime", "onnx", "timm", "transformers"),
    *("numpy", "pillow", "safetensors", "triton"),
)
_CPUS, _THERMAL = Path("/sys/devices/system/cpu"), Path("/sys/class/thermal")
_GPU = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")
_THROTTLED = "clocks_throttle_reasons.active"


class Environment(machine.Machine):
    """The machine, and everything on it that may change a measurement, as plain JSON values."""

    time: str
    versions: dict[str, str]
    last_level_cache_bytes: int
    available_memory_bytes: int | None
    governor: str | None
    boost: str | None
    variables: dict[str, str]
    gpus: list[dict[str, str]]


class Sensors(TypedDict):
    """The state of the processor; None where the system does not report it."""

    clock_mhz: float | None
    celsius: float | None
    throttled: int | None
    gpus: list[dict[str, str]]


def describe() -> Environment:
    """Plain JSON values, ``machine.describe`` among them."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        **machine.describe(),
        "last_level_cache_bytes": machine.last_level_cache(),
        "available_memory_bytes": memory.available(),
        "governor": _text(_CPUS / "cpu0/cpufreq/scaling_governor"),
        "boost": _text(_CPUS / "cpufreq/boost"),
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_TELLING)},
        "gpus": gpus(),
    }


_TELLING = ("OMP_", "MKL_", "KMP_", "GOMP_", "ONEDNN_", "DNNL_", "OV_", "TORCH", "PYTORCH_", "CUDA_", "NVIDIA_TF32")


def versions() -> dict[str, str]:
    """The versions of this program, Python and the installed libraries."""
    ours = {"convnext": __version__, "python": platform.python_version()}
    libraries = {name: machine.version_of(name) for name in LIBRARIES}
    return ours | {name: version for name, version in libraries.items() if version is not None}


def sensors() -> Sensors:
    """Clock in MHz, temperature in °C, and how often the processor was throttled."""
    clocks = [int(text) / 1000 for text in map(_text, _CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")) if text]
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/cpuinfo").read_text().splitlines() if not clocks else []
        clocks += [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    heats = [int(text) / 1000 for text in map(_text, _THERMAL.glob("thermal_zone*/temp")) if text and text.isdigit()]
    counts = [int(t) for t in map(_text, _CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")) if t]
    return {
        "clock_mhz": max(clocks, default=None),
        "celsius": max(heats, default=None),
        "throttled": sum(counts) if counts else None,
        "gpus": gpus(),
    }


def gpus() -> list[dict[str, str]]:
    """The clocks, temperature, power and throttling of each GPU, by nvidia-smi; empty without a GPU."""
    if sys.platform == "darwin" or not (Path("/dev/nvidiactl").exists() or sys.platform == "win32"):
        return []
    names = (*_GPU, _THROTTLED)
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split(", ") for line in done.stdout.splitlines())
    return [dict(zip(names, row, strict=False)) for row in rows]


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
