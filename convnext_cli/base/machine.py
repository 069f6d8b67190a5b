"""This machine: the processor and its instruction sets, the system, the installed libraries."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TypedDict

from convnext_cli.base.threads import quotas, usable_threads

# As Linux names them; the widest first. Only those that the engines' kernels ask for.
INSTRUCTION_SETS = (
    *("amx_int8", "amx_bf16", "amx_tile", "avx512_fp16", "avx512_bf16", "avx512_vnni", "avx512f"),
    *("avx_vnni", "avx2", "f16c", "fma", "i8mm", "bf16", "asimddp", "asimd", "sve"),
)

_USUAL_CACHE = 64 << 20  # bytes, where the system does not report it


@cache
def _linux() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def processor() -> str:
    """The processor's name as its maker writes it, or the architecture."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    return _linux().get("model name") or platform.processor() or platform.machine()


def instruction_sets() -> tuple[str, ...]:
    """Those of ``INSTRUCTION_SETS`` that the processor has; empty where the system does not report them."""
    cpuinfo = _linux()
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


class Machine(TypedDict):
    """The system and its processor, as plain JSON values."""

    platform: str
    processor: str
    instruction_sets: list[str]
    processors: int | None
    usable_threads: int
    quotas: list[int]


def describe() -> Machine:
    """Plain JSON values. ``usable_threads`` is limited by affinity and quota."""
    return {
        "platform": platform.platform(),
        "processor": processor(),
        "instruction_sets": list(instruction_sets()),
        "processors": os.cpu_count(),
        "usable_threads": usable_threads(),
        "quotas": quotas(),
    }


def version_of(distribution: str) -> str | None:
    """The version of an installed package; None when it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def last_level_cache(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the processor's largest cache."""
    sizes = [0]
    for file in root.glob("index*/size"):
        text = file.read_text().strip()
        units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
        sizes.append(int(text.rstrip("KMG")) * units.get(text[-1:], 1))
    return max(sizes) or _USUAL_CACHE
