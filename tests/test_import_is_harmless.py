"""Importing the package, and using it from Python, changes nothing for the rest of the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.tiers import slow_except

# What a process shares. Libraries that the host itself would load come first: their own traces are not ours.
SNAPSHOT = """
import gc, hashlib, logging, os, random, signal, sys, threading, warnings
import numpy, PIL.Image, PIL.ImageFile, PIL.PngImagePlugin
PIL.Image.init()

def snapshot():
    state = {
        "warnings": repr(warnings.filters) + repr(warnings.showwarning),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "search path": [p for p in sys.path],
        "hooks": repr((sys.excepthook, sys.unraisablehook, threading.excepthook)),
        "signals": {n: repr(signal.getsignal(n)) for n in sorted(signal.valid_signals())},
        "streams": repr((sys.stdin, sys.stdout, sys.stderr)),
        "recursion": sys.getrecursionlimit(),
        "random": (hash(random.getstate()), numpy.random.get_state()[1].tobytes(), repr(numpy.geterr())),
        "logging": repr((logging.root.level, logging.root.handlers, logging.root.manager.disable)),
        "loggers": {
            name: repr((logger.level, logger.handlers, logger.propagate))
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and (logger.level or logger.handlers or not logger.propagate)
            and LOGGERS(name)
        },
        "pillow": (
            PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES, PIL.ImageFile.MAXBLOCK,
            PIL.PngImagePlugin.MAX_TEXT_CHUNK, sorted(PIL.Image.OPEN), sorted(PIL.Image.EXTENSION),
        ),
        "collector": (gc.isenabled(), gc.get_threshold()),
        # the processor's own switch, in this thread
        "subnormals": float((numpy.array([1e-39], numpy.float32) * numpy.float32(0.5))[0]),
    }
    if torch := HOST.get("torch"):
        state["torch"] = repr((
            torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_float32_matmul_precision(),
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic, torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(),
            torch.get_default_dtype(), torch.backends.mkldnn.enabled,
            hashlib.sha256(torch.get_rng_state().numpy()).hexdigest(),
        ))
    return state

before = snapshot()
USE()
after = snapshot()
changed = {k: (before[k], after[k]) for k in before if before[k] != after[k]}
if "environment" in changed:
    a, b = changed["environment"]
    changed["environment"] = {k: (a.get(k), b.get(k)) for k in a.keys() | b.keys() if a.get(k) != b.get(k)}
print(changed or "nothing")
"""
IMPORTS = "import convnext_cli\nfor name in convnext_cli.__all__: getattr(convnext_cli, name)"
CLASSIFY = "import convnext_cli\n[row] = convnext_cli.classify('samples/cat.jpg', threads=1)\nassert row.status == 'ok'"
ENGINE = """
import convnext_cli
rows = list(convnext_cli.classify(['samples/cat.jpg'] * 3, engine='{}', batch_size=2, threads=2))
assert [row.status for row in rows] == ['ok'] * 3
"""
# Its wheels send telemetry but where this variable is set before they are loaded
ORT = "os.environ['ORT_DISABLE_TELEMETRY'] = '1'\nimport onnxruntime, torch"
CLASSES = """
import convnext_cli
model = convnext_cli.ConvNextForImageClassification.from_pretrained('default')
processor = convnext_cli.ConvNextImageProcessor.from_pretrained('default')
model(**processor(PIL.Image.open('samples/cat.jpg'), return_tensors='pt'))
[row] = convnext_cli.classify('samples/cat.jpg', engine='torch', threads=1)
assert row.status == 'ok'
"""


def changes(use: str, host: str) -> str:
    lines = "\n    ".join(use.strip().splitlines())
    code = (
        f"import os\nHOST = {{}}\n{host}\n"
        "LOGGERS = lambda name: not name.startswith(('torch', 'strobelight', 'c10d'))\n"
        f"def USE():\n    {lines}\n{SNAPSHOT}"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


USES = {
    "import": ("import convnext_cli", ""),
    "classify": (CLASSIFY, ""),
    "every name": (IMPORTS, "import torch, torchvision\nHOST['torch'] = torch"),
    "torch": (CLASSES, "import torch, torchvision\nHOST['torch'] = torch"),
    "openvino": (ENGINE.format("openvino"), ""),
    "onnxruntime": (ENGINE.format("onnxruntime"), ORT),
}


@pytest.mark.parametrize("use", slow_except(USES, "import", "classify", "every name"))
def test_the_host_keeps_its_process(use: str, home: object) -> None:
    assert changes(*USES[use]) == "nothing"


def test_a_change_would_be_seen() -> None:
    uses = {
        "warnings": "import warnings; warnings.simplefilter('ignore')",
        "X_NEW": "import os; os.environ['X_NEW'] = '1'",
        "loggers": "logging.getLogger('PIL').addHandler(logging.NullHandler())",
        "signals": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "pillow": "PIL.Image.MAX_IMAGE_PIXELS = None",
        "subnormals": "import torch; torch.set_flush_denormal(True)",
    }
    seen = changes("\n".join(uses.values()), "")
    assert all(word in seen for word in uses)
