"""How much memory is available, and the peak of this process."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

_STATUS, _MEMINFO = Path("/proc/self/status"), Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def peak() -> int:
    """The most resident bytes that this process ever had (VmHWM).

    The system keeps the peak, so nothing brief is missed. ``ru_maxrss`` is used only where VmHWM is missing: on Linux
    it starts at the parent's value. 0 where both are missing.
    """
    if high_water_mark := _kilobytes(_STATUS, "VmHWM"):
        return high_water_mark
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)


def available() -> int | None:
    """Bytes that can still be used without swapping, by the system and the container's limit; None where unknown."""
    free = _kilobytes(_MEMINFO, "MemAvailable")
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())  # "max" is not a number
        left = limit - int((_CGROUP / "memory.current").read_text())
        free = min(free, left) if free else left
    return free


def demand(nbytes: int, what: str) -> None:
    """Raise MemoryError when less memory is free, before the system begins to kill processes.

    Args:
        nbytes: the bytes that are needed.
        what: the purpose, for the message.
    """
    left = available()
    if left is not None and nbytes > left:
        raise MemoryError(f"{what}: {nbytes / 2**30:.1f} GiB needed, {left / 2**30:.1f} GiB free")


def of_gpu(device: str) -> dict[str, int]:
    """The peak bytes that torch's allocator gave out and held on a CUDA device; empty elsewhere."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return {}
    return {
        "gpu_allocated_bytes": int(torch.cuda.max_memory_allocated(device)),
        "gpu_reserved_bytes": int(torch.cuda.max_memory_reserved(device)),
    }


def kills() -> int:
    """Processes that the kernel has killed for lack of memory since it started; 0 where it does not report them."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _kilobytes(file: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
