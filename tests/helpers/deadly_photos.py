"""Photos that end the process which decodes them, for commands that tests start.

The decoder is wrapped in every process that has ``environment`` (the program and what it starts): where the bytes of a
photo end with one of ``KINDS``, what the kind says happens in the place of decoding. A photo of one colour ends the
process when the network is at it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# what a photo's bytes end with: what happens
KINDS = {
    "segfault": "import ctypes; ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "memory": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",  # as the system does when memory runs out
    "loop": "while True: pass",
    "stuck": "sum(iter(int, 1))",  # a loop that lets no other thread of Python run
    "hoard": "bytes(3 << 30)",  # zeros, which take no memory until they are read
    "exit": "import os; os._exit(7)",
    "leave": "import ctypes; ctypes.CDLL(None).exit(0)",
    "asleep": "import ctypes; ctypes.PyDLL(None).sleep(1000)",  # holds Python's lock, and takes no time of a processor
    # as where the system ends all processes of a container together
    "together": "import os, signal, sys\n"
    "if any('isolated_worker' in word for word in sys.orig_argv): os.kill(os.getppid(), signal.SIGKILL)\n"
    "os.kill(os.getpid(), signal.SIGKILL)",
}
_HOOK = """
import importlib.abc, importlib.util, sys
KINDS = {kinds!r}

def decoding(module):
    real = module._decode
    def _decode(form, data, *rest, **more):
        for kind, code in KINDS.items():
            if data.endswith(b"poison:" + kind.encode()):
                exec(code)
        return real(form, data, *rest, **more)
    module._decode = _decode

def network(module):
    real = module.Predictor._compute
    def _compute(self, tensors, **more):
        if any(tensor.std(axis=(1, 2)).max() < 1e-6 for tensor in tensors):
            exec(KINDS["segfault"])
        return real(self, tensors, **more)
    module.Predictor._compute = _compute

CHANGES = {{"convnext_cli.photos.decode": decoding, "convnext_cli.predict.predictor": network}}

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        change = CHANGES.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            change(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def environment(folder: Path) -> dict[str, str]:
    """The variables of a process in which poison works. folder: empty, for what Python loads when it starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_HOOK.format(kinds=KINDS))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def poisoned(data: bytes, kind: str) -> bytes:
    """A photo that looks the same, and does what the kind says."""
    assert kind in KINDS
    return data + b"poison:" + kind.encode()


def command(*arguments: object) -> list[str]:
    """The command line in a process of its own."""
    return [sys.executable, "-m", "convnext_cli", *map(str, arguments)]
