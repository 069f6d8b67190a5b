"""What the device reaches at best, measured in the same run: a large matrix product, and a copy.

A ceiling below the truth flatters whatever is held against it. So several shapes are tried in every library that is
here, and the best counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from convnext_cli.base import machine
from convnext_cli.base.text import JsonObject

SECONDS = 0.6  # for each product
# Rows, inner extent and columns: squares, and one like a pointwise layer of a batch.
_CPU = ((1024, 1024, 1024), (2048, 2048, 2048), (6272, 384, 1536))
_GPU = ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 2048, 2048))
_TOO_SLOW = 4.0  # seconds; a product that takes longer is not the best one

Product = Callable[[], None]


def measure(device: str, dtype: str, threads: int) -> JsonObject:
    """``flops``: FLOP/s of the best product; ``by``: which one; ``all``; ``copy``: bytes/s read and written.

    device: as an engine names it. dtype: "int8" has none, and null is said. Numbers are drawn from a normal
    distribution, since zeros need less power.
    """
    rates: dict[str, float] = {}
    if dtype != "int8":
        for library in (_torch, _openvino) if device == "cpu" else (_torch,):
            for shape in _CPU if device == "cpu" else _GPU:
                product = library(device, dtype, threads, *shape)
                if product is None:
                    continue
                seconds = quickest(product, SECONDS)
                m, k, n = shape
                rates[f"{library.__name__.strip('_')} {m}×{k}×{n}"] = 2 * m * k * n / seconds
                if seconds > _TOO_SLOW:
                    break
    best = max(rates, key=lambda name: rates[name], default=None)
    return {
        "device": device,
        "dtype": dtype,
        "threads": threads,
        "flops": rates[best] if best else None,
        "by": best,
        "all": rates,
        "copy": copy_bandwidth(device, threads),
    }


def quickest(call: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the quickest of several calls; the first does not count unless it takes all the time."""
    start = clock()
    call()
    best = clock() - start
    if best > seconds:
        return best
    best, end = float("inf"), clock() + seconds
    while True:
        start = clock()
        call()
        now = clock()
        best = min(best, now - start)
        if now > end:
            return best


def copy_bandwidth(device: str, threads: int) -> float:
    """Bytes a second, read and written together, of copying an array far larger than the caches."""
    import torch

    torch.set_num_threads(threads)
    numbers = max(64 << 20, 4 * machine.last_level_cache()) // 4 * (1 if device == "cpu" else 4)
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        _wait(device)

    return 2 * source.nbytes / quickest(copy, SECONDS)


def _torch(device: str, dtype: str, threads: int, m: int, k: int, n: int) -> Product | None:
    import torch

    torch.set_num_threads(threads)
    kind = getattr(torch, dtype)
    a = torch.randn(m, k, device=device).to(kind)
    b = torch.randn(k, n, device=device).to(kind)
    out = torch.empty(m, n, device=device, dtype=kind)

    def product() -> None:
        torch.mm(a, b, out=out)
        _wait(device)

    return product


def _openvino(_device: str, dtype: str, threads: int, m: int, k: int, n: int) -> Product | None:
    """The second matrix is a constant, which the runtime lays out for its kernels beforehand, as it does weights."""
    import numpy as np

    try:
        from convnext_cli.runtimes.openvino.runtime import op, ov
    except ImportError:
        return None
    precision = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[dtype]
    generator = np.random.default_rng(0)
    a = op.parameter([m, k], np.float32)
    b = op.constant(generator.standard_normal((k, n), np.float32))
    model = ov.Model([op.result(op.matmul(a, b, False, False))], [a], "product")
    properties = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(model, "CPU", properties)
    if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != precision:
        return None
    request, values = compiled.create_infer_request(), generator.standard_normal((m, k), np.float32)

    def product() -> None:
        request.infer([values], share_inputs=True, share_outputs=True)

    return product


def _wait(device: str) -> None:
    if device != "cpu":
        import torch

        getattr(torch, device.partition(":")[0]).synchronize()
