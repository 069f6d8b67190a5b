"""The devices that torch can use here, and words for those that it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from convnext_cli.base.errors import UnavailableError

_DRIVER = Path("/proc/driver/nvidia/version")  # written by the kernel module, where it is loaded
_NVIDIA = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")


def devices() -> list[str]:
    """What torch can use here, best first; always ends with "cpu"."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        names.append("xpu")
    return [*names, "cpu"]


def pick_device(wish: str) -> torch.device:
    """The device for "auto" or a name such as "cuda", "cuda:1", "mps", "cpu".

    An explicit wish is never replaced by another device: raises UnavailableError, which says what was found.
    """
    if wish == "cpu":  # asking for the accelerators costs time
        return torch.device("cpu")
    available = devices()
    if wish == "auto":
        return torch.device(available[0])
    if wish in available or f"{wish}:0" in available:
        return torch.device(wish)
    reason, hint = why_missing(wish)
    raise UnavailableError(f"the device {wish!r} is not there{reason}", f"here are: {', '.join(available)}; {hint}")


def pick_devices(wish: str) -> list[torch.device]:
    """As ``pick_device``, and all GPUs of this machine for "cuda:all"."""
    if wish != "cuda:all":
        return [pick_device(wish)]
    pick_device("cuda")
    return [torch.device(name) for name in devices() if name.startswith("cuda")]


def why_missing(wish: str) -> tuple[str, str]:
    """What was found where a device was looked for, and what to do, each to be put at the end of a sentence."""
    leave = "leave -d out to take the best"
    kind = wish.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        return _why_no_cuda()
    if kind == "mps" and not torch.backends.mps.is_built():
        return f": torch {torch.__version__} is built without it, which only Macs have", leave
    if kind == "xpu" and "xpu" not in torch.__version__:
        return f": torch {torch.__version__} is built without it", "install the XPU build of torch, or leave -d out"
    return "", leave


def _why_no_cuda() -> tuple[str, str]:
    seen = nvidia()
    if torch.version.cuda is None and torch.version.hip is None:
        built = f": torch {torch.__version__} is built for the CPU alone"
        if seen:
            return f"{built}, though {seen}", "install the CUDA build of torch, or leave -d out"
        return f"{built}, and no NVIDIA driver is loaded", "leave -d out to take the best"
    kit = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    built = f": torch {torch.__version__} is built for {kit}"
    if torch.version.cuda and not seen:
        return f"{built}, but no NVIDIA driver is loaded", "leave -d out, or install the driver and look at nvidia-smi"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().splitlines()[0]
        return f"{built}, {seen or 'the driver is not known'}, and says: {why}", "look at nvidia-smi, or leave -d out"
    return f"{built}, {seen or 'the driver is not known'}, but it shows no GPU", "look at CUDA_VISIBLE_DEVICES"


def nvidia() -> str:
    """What the system shows of an NVIDIA driver, as the middle of a sentence; "" for nothing."""
    if _DRIVER.exists():
        words = _DRIVER.read_text("utf-8", "replace").partition("\n")[0].split()
        version = next((word for word in words if word[0].isdigit()), "of some version")
        return f"the NVIDIA driver {version} is loaded"
    for device in _NVIDIA:
        if Path(device).exists():
            return f"{device} is there"
    if sys.platform == "win32" and (Path(r"C:\Windows\System32") / "nvcuda.dll").exists():
        return "nvcuda.dll is there"
    return ""


def has_kernels(capability: tuple[int, int], built_for: list[str]) -> bool:
    """Whether a torch that was built for some architectures ("sm_90", "compute_90") runs on a GPU.

    Machine code runs on the same major capability from its minor one up, and code for one chip ("sm_90a") on no other;
    PTX is translated for all later ones.
    """
    for name in built_for:
        kind, _, number = name.partition("_")
        if not number.isdigit():
            continue
        major, minor = divmod(int(number), 10)
        if (kind == "sm" and major == capability[0] and minor <= capability[1]) or (
            kind == "compute" and (major, minor) <= capability
        ):
            return True
    return False
