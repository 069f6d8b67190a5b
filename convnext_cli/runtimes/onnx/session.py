"""Sessions of ONNX Runtime: the providers that run a file, and errors in our words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from convnext_cli.base.errors import ModelError, UnavailableError
from convnext_cli.base.libraries import load_onnxruntime

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

try:
    ort = load_onnxruntime()
except ImportError as error:
    raise UnavailableError("ONNX Runtime is not installed", "pip install onnxruntime onnx") from error

Provider: TypeAlias = str | tuple[str, dict[str, str]]  # a name, or a name with settings
_CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_MOST_CONSTANT = 64 << 20  # bytes that one operation on constants of a small file may make
# "1 : FAIL : Load model from FILE failed:/a/file.cc:245 a::Function(const A&) " before the sentence
_CODES = re.compile(r"^(\d+ : [A-Z_]+ : )?(Load model from .*? failed: ?)?(/\S+:\d+ .*?\) (?=[A-Z]))?")
_SILENT = 4  # of its log, only what ends the process: errors come as exceptions too


def open_session(
    model: Path | bytes, file: str, device: str, threads: int, trial: int = 0, *, small: bool = False
) -> tuple[InferenceSession, str]:
    """Open a file on a device, and a note if another one runs it.

    Args:
        model: the file, or its bytes.
        file: its name, for messages.
        device: as for ``select.open_engine``.
        threads, trial, small: as for ``_session``.

    Raises:
        ModelError: it is missing, damaged or of a kind that this version does not run.
        UnavailableError: the device is missing.
    """
    if isinstance(model, Path) and not model.is_file():
        raise ModelError(f"{model} is not a file", "name an .onnx file")
    providers, why = _providers(device), ""
    try:
        session = _session(model, providers, threads, trial, small=small)
    except Exception as error:  # its exceptions have no common base
        if len(providers) == 1:
            raise refusal(file, error) from error
        session, _ = open_session(model, file, "cpu", threads, small=small)
        why = f": {reason(error)}"  # the CPU opened it, so the file is not to blame
    if len(providers) == 1 or session.get_providers()[0] == CUDA:
        return session, ""
    what = f"ONNX Runtime could not start the GPU{why}"
    hint = "its CUDA and cuDNN must fit: pip install 'onnxruntime-gpu[cuda,cudnn]'"
    if device != "auto":
        raise UnavailableError(what, f"{hint}; or take -d cpu")
    return session, f"{what}; the CPU runs it ({hint})"


def refusal(file: str, error: Exception) -> ModelError:
    """The error for a file that ONNX Runtime does not load."""
    why, kind = reason(error), type(error).__name__
    if "opset" in why.lower():
        return ModelError(
            f"{file} names no opset that ONNX Runtime {ort.__version__} knows: {why}",
            "pip install --upgrade onnxruntime, or export it again with opset_version 20",
        )
    if kind in ("InvalidProtobuf", "DecodeError") or "No graph was found" in why:
        return ModelError(f"{file} is damaged or no ONNX file: {why}", "fetch or export it again")
    if kind == "NotImplemented" or "No Op registered" in why or "not a registered function/op" in why:
        return ModelError(
            f"{file} has an operation that ONNX Runtime {ort.__version__} lacks: {why}",
            "pip install --upgrade onnxruntime, or export it without operations of its own",
        )
    return ModelError(
        f"ONNX Runtime cannot load {file}: {why}",
        "fetch or export it again, with the files of weights beside it, if any",
    )


def _providers(device: str) -> list[Provider]:
    """What to ask for, best first; always ends with the CPU. Raises UnavailableError for a device that is not there."""
    available = ort.get_available_providers()
    kind, _, index = device.partition(":")
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return [_CPU]
    if kind in ("cuda", "auto") and CUDA in available and index in ("", *map(str, range(64))):
        # as its wheels leave it to others to find the libraries; and float32 means float32
        ort.preload_dlls(msvc=False)
        return [(CUDA, {"device_id": index or "0", "use_tf32": "0"}), _CPU]
    raise UnavailableError(
        f"ONNX Runtime has no device {device!r} here; its providers are {', '.join(available)}",
        "leave -d out to take the best; for an NVIDIA GPU: pip install onnxruntime-gpu, in place of onnxruntime",
    )


def _limit_memory(most: int) -> None:
    """Bound what sessions of a trial may allocate. The first bound counts for the whole process."""
    kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    settings = {"max_mem": most, "arena_extend_strategy": 1, "initial_chunk_size_bytes": -1}
    with suppress(Exception):  # there is one already
        ort.create_and_register_allocator(kind, ort.OrtArenaCfg(settings | {"max_dead_bytes_per_chunk": -1}))


def _session(
    model: Path | bytes, providers: Sequence[Provider], threads: int, trial: int = 0, *, small: bool = False
) -> InferenceSession:
    """Open a file.

    Args:
        model: the file, or its bytes.
        providers: as ``_providers`` returns them.
        threads: processor threads of one operation.
        trial: bytes that it may take, where it is only tried: nothing is computed before it runs then.
        small: whether it is a small file, whose constants are small too.
    """
    options = ort.SessionOptions()
    if small:  # branches that the trial did not take may make large ones
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(_MOST_CONSTANT))
    if trial:
        _limit_memory(trial)
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = _SILENT
    # decoders share the cores: threads that wait must not keep them busy
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    ort.set_default_logger_severity(_SILENT)
    ort.disable_telemetry_events()  # of builds that do not read the variable which load_onnxruntime sets
    source = str(model) if isinstance(model, Path) else model
    # its own way of falling back prints to standard output, and does not say which provider runs
    return ort.InferenceSession(source, options, providers=list(providers), enable_fallback=0)


def reason(error: Exception) -> str:
    """What ONNX Runtime says, in one line, without its codes and the places in its sources."""
    words = " ".join(str(error).split()).rpartition("[ONNXRuntimeError] : ")[2]
    return _CODES.sub("", words)[:200] or type(error).__name__
