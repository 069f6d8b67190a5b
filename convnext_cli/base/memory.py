"""How much memory there is, and how much this process needed at most."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

_STATUS, _MEMINFO = Path("/proc/self/status"), Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def peak() -> int:
    """The most resident bytes that this process ever had (VmHWM).

    Not polled, so nothing brief is missed; not address space. ``ru_maxrss`` only where there is no VmHWM: on Linux it
    begins at what the parent had. 0 where neither is there.
    """
    if found := _kilobytes(_STATUS, "VmHWM"):
        return found
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)


def available() -> int | None:
    """Bytes that could still be taken without swapping, as far as the system and the container's limit say."""
    found = _kilobytes(_MEMINFO, "MemAvailable")
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())  # "max" is no number
        left = limit - int((_CGROUP / "memory.current").read_text())
        found = min(found, left) if found else left
    return found


def demand(nbytes: int, what: str) -> None:
    """Raise MemoryError before the system begins to end processes for something this large."""
    left = available()
    if left is not None and nbytes > left:
        raise MemoryError(f"{what}: {nbytes / 2**30:.1f} GiB wanted, {left / 2**30:.1f} GiB free")


def of_gpu(device: str) -> dict[str, int]:
    """The most that torch's allocator gave out and held on a CUDA device, in bytes; empty elsewhere."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return {}
    return {
        "gpu_allocated_bytes": int(torch.cuda.max_memory_allocated(device)),
        "gpu_reserved_bytes": int(torch.cuda.max_memory_reserved(device)),
    }


def kills() -> int:
    """Processes that the kernel has ended for want of memory since it started; 0 where it does not tell."""
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
