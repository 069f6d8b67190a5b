"""The process of one setting: ``python -m convnext_cli.benchmarking.worker``.

Requests are JSON objects, one a line on standard input; so are answers on standard output, which nothing else gets to
write on. It ends with its standard input, so that none is left behind when its parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from convnext_cli.base.errors import ConvNextError
from convnext_cli.base.text import JsonObject
from convnext_cli.benchmarking.setting import Setting
from convnext_cli.photos.pillow_warnings import quiet_pillow

if TYPE_CHECKING:
    from convnext_cli.benchmarking.inputs import Batch
    from convnext_cli.benchmarking.measure import Run, Subject

Answer: TypeAlias = JsonObject  # or a request: one line of JSON


class Session:
    """What one worker holds between requests. Each method is a request of the same name."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._engine: Subject

    def open(self, setting: Answer, prepare: bool = False) -> Answer:
        """Open what the setting names. prepare: make what takes seconds and is then kept, so that the next opening is
        the one that a person sees."""
        from convnext_cli.benchmarking import subject

        start = time.perf_counter()
        self._setting = Setting(**setting)
        self._engine = subject.open_subject(self._setting, prepare=prepare, say=self._say)
        loaded = time.perf_counter() - start
        return {"load_s": loaded, **subject.describe(self._engine, self._setting)}

    def answer(self) -> Answer:
        """Logits of the reference input in every place of a batch, as lists: nothing is compiled again for them."""
        import numpy as np

        from convnext_cli.runtimes.reference import reference_input

        photos = np.repeat(reference_input(*self._size()), self._setting.batch_size, axis=0)
        logits = self._engine(photos)
        # one line is enough where all are the same
        same = bool((logits == logits[:1]).all())
        return {"logits": (logits[:1] if same else logits).tolist()}

    def warm(self, seed: int) -> Answer:
        """The first call, then inputs, then calls until they take the same time."""
        from convnext_cli.base import memory
        from convnext_cli.benchmarking import inputs, measure

        height, width = self._size()
        own = inputs.Inputs(self._setting.batch_size, height, width, seed, cache=0)
        first = measure.first(self._checked, own.next())
        self._peak = memory.peak() - own.nbytes
        batch = self._setting.batch_size
        self._inputs = inputs.Inputs(batch, height, width, seed)
        took = measure.warm_up(self._engine, self._inputs.next)
        self._pool = own.nbytes + self._inputs.nbytes
        self._switches, self._graphs, self._images = _switches(), _graphs(), 0
        return {"first_call_s": first, "warmup_s": took, "inputs": self._inputs.count, "input_bytes": self._pool}

    def sample(self, seconds: float) -> Answer:
        """Samples for so many seconds."""
        from convnext_cli.benchmarking import measure

        return self._counted(measure.sample(self._engine, self._inputs.next, seconds))

    def turn(self, seconds: float) -> Answer:
        """One turn beside other workers."""
        from convnext_cli.benchmarking import measure

        return self._counted(measure.turn(self._engine, self._inputs.next, seconds))

    def checks(self, seconds: float) -> Answer:
        """Calls with one and the same input, zeros and denormal numbers beside usual ones: seconds of each."""
        import numpy as np

        from convnext_cli.benchmarking import measure

        same = self._inputs.next().copy()
        zeros, tiny = np.zeros_like(same), same * np.float32(1e-38)
        kinds = {"fresh": self._inputs.next, "same": lambda: same, "zeros": lambda: zeros, "tiny": lambda: tiny}
        return {"checks": measure.side_by_side(self._engine, kinds, seconds)}

    def end(self) -> Answer:
        """Memory, and recompilations and lost time slices since the warm-up."""
        from convnext_cli.base import memory

        most = memory.peak()
        return {
            "peak_memory_bytes": max(self._peak, most - self._pool),
            "memory": {"vm_hwm_bytes": most, "input_bytes": self._pool, **memory.of_gpu(self._engine.device)},
            "recompilations": _graphs() - self._graphs,
            "involuntary_switches_per_image": (_switches() - self._switches) / max(1, self._images),
        }

    def ceilings(self, device: str, dtype: str, threads: int) -> Answer:
        """The most that this device reaches: FLOP/s and bytes/s."""
        from convnext_cli.benchmarking import ceilings

        return ceilings.measure(device, dtype, threads)

    def random_weights(self, architecture: str, path: str) -> Answer:
        """A weights file drawn at random."""
        from convnext_cli.benchmarking.weights import write_random

        return {"path": str(write_random(architecture, Path(path)))}

    def whole_way(self, setting: Answer, folder: str, runs: int) -> Answer:
        """From files to labels."""
        from convnext_cli.benchmarking import whole_way

        return whole_way.measure(Setting(**setting), folder, runs, say=self._say)

    def _size(self) -> tuple[int, int]:
        from convnext_cli.benchmarking.subject import input_size

        return input_size(self._engine.card, self._setting)

    def _checked(self, batch: Batch) -> Batch:
        """The call, with a look at what comes back: an array in the host's memory, so nothing runs on behind it."""
        import numpy as np

        result = self._engine(batch)
        if not isinstance(result, np.ndarray):
            raise TypeError(f"{self._engine.name} gave {type(result).__name__}, so the end of its call cannot be known")
        return result

    def _counted(self, run: Run) -> Answer:
        self._images += len(run.seconds) * self._setting.batch_size
        return dict(vars(run))


def _switches() -> int:
    """Times that a thread of this process had to leave its processor."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _graphs() -> int:
    """Graphs that torch has compiled in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0


def _requests() -> SimpleQueue[Answer]:
    """Requests as they come. Their end ends this process, even in the middle of a call."""
    requests: SimpleQueue[Answer] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            requests.put(json.loads(line))
        _end()

    threading.Thread(target=read, name="requests", daemon=True).start()
    return requests


def _end() -> None:
    """End this process at once, and with it what libraries have started beside it."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when it is over
    quiet_pillow()
    with contextlib.suppress(OSError):  # should memory run out, it is this process that goes
        Path("/proc/self/oom_score_adj").write_text("1000")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print there, and must not answer

    def tell(what: Answer) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    session, requests = Session(lambda text: tell({"say": text})), _requests()
    while True:
        request = requests.get()
        try:
            done = {"done": getattr(session, request.pop("do"))(**request)}
        except MemoryError as error:
            done = {"out_of_memory": str(error) or "no memory"}
        except ConvNextError as error:
            done = {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}
        except Exception as error:
            where = traceback.format_exc()
            done = {"defect": {"kind": type(error).__name__, "message": str(error), "traceback": where}}
        tell(done)


if __name__ == "__main__":
    main()
