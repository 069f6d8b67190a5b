"""The network compiled by torch: one compilation for each size of batch that is needed, never one more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_cli.base.errors import UnavailableError

Outputs = tuple[Tensor, Tensor]  # logits (N, classes), and the pooled features (N, C)
Forward = Callable[[Tensor], Outputs]
_ONE = threading.Lock()


class Compiled:
    """A forward pass of photos (N, 3, H, W), compiled by torch's inductor with the weights frozen into it.

    The first call compiles for its batch, and a larger one compiles again, because code for a fixed size is faster. A
    smaller batch is filled up with blank photos to a size that is there; so the last photos of a folder cost a full
    batch, and no compiler run.

    compilations: how often the compiler ran.
    """

    def __init__(self, forward: Forward) -> None:
        self.compilations = 0
        self._sizes: dict[torch.Size, set[int]] = {}
        # Left alone, torch goes back to eager after eight shapes, of all engines of a process together.
        limit = torch._dynamo.config
        limit.recompile_limit = max(limit.recompile_limit, 1024)
        limit.accumulated_recompile_limit = max(limit.accumulated_recompile_limit, 4096)
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA on machines without
        self._run = torch.compile(forward, backend=self._compile, dynamic=False, fullgraph=True)

    def __call__(self, x: Tensor) -> Outputs:
        """x: not a tensor of inference mode, which frozen code does not take.

        Raises UnavailableError where torch finds no compiler.
        """
        photos, sizes = len(x), self._sizes.setdefault(x.shape[1:], set())
        size = min((size for size in sizes if size >= photos), default=photos)
        if size > photos:
            x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, size - photos))  # keeps the layout
        freezing = nullcontext() if size in sizes else _freezing()
        try:
            with torch.no_grad(), freezing:
                outputs: Outputs = self._run(x)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            if isinstance(error.inner_exception, torch.OutOfMemoryError):
                raise error.inner_exception from None
            why = str(error.inner_exception).strip().splitlines()[0]
            raise UnavailableError(
                f"torch cannot compile here: {why}", "install a C++ compiler (g++ or clang), or leave --compile out"
            ) from error
        except RuntimeError:
            sizes.discard(size)  # out of memory, it may be: what fits is smaller, and must not be filled up to this
            raise
        sizes.add(size)
        logits, features = outputs
        return logits[:photos], features[:photos]

    def _compile(
        self, graph: torch.fx.GraphModule, inputs: Sequence[Tensor | int | torch.SymInt | None]
    ) -> Callable[..., object]:
        self.compilations += 1
        code: Callable[..., object] = torch._inductor.compile(graph, list(inputs))
        return code


@contextmanager
def _freezing() -> Iterator[None]:
    """Have the weights made constants. torch decides that while it traces: saying it to the compiler is too late.

    The setting is of the process, so that one of several devices compiles at a time.
    """
    with _ONE, torch._inductor.config.patch(freezing=True):
        yield
