"""Diagnosis: the results of ``convnext doctor``, from this process and one process for each engine."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from convnext_cli import zoo
from convnext_cli.base import machine
from convnext_cli.base.text import JsonObject
from convnext_cli.base.threads import usable_threads
from convnext_cli.diagnosis import installed
from convnext_cli.diagnosis.probe import Check, answers
from convnext_cli.photos import pillow_check

_PATIENCE = 300  # seconds for all checks of one engine
# The process sees the same modules as this one.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
    "from convnext_cli.diagnosis.probe import main; main(sys.argv[2], int(sys.argv[3]))"
)


@dataclass
class EngineReport:
    """An engine, and the answers of its probe.

    Args:
        name: of the engine.
        version: of its library; None if it is not installed.
        install: the command that installs it.
        installed: whether its library is there; importing it may still fail.
        error: why it does not run; None if it does.
        facts, devices: the JSON of its probe (``probe.py``).
    """

    name: str
    version: str | None
    install: str
    installed: bool
    error: str | None = None
    facts: JsonObject = field(default_factory=dict)
    devices: list[JsonObject] = field(default_factory=list)


@dataclass(frozen=True)
class Problem:
    """A problem, and how to fix it.

    Args:
        what: the problem.
        hint: how to fix it.
        fails: whether something that should work does not; otherwise it is a note.
    """

    what: str
    hint: str
    fails: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """Everything that ``convnext doctor`` reports.

    Args:
        machine: as ``machine.describe`` has it, with the versions of this program and of Python.
        engines: those that can run a model, installed or not.
        libraries: the optional ones.
        folders: of this user.
        checks: the answer of each engine, device and precision.
        problems: what does not work, and what to do.
    """

    machine: installed.ThisMachine
    engines: list[EngineReport]
    libraries: list[installed.Library]
    folders: installed.Folders
    checks: list[Check]
    problems: list[Problem]

    @property
    def healthy(self) -> bool:
        return not any(problem.fails for problem in self.problems)

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        libraries = [library.to_dict() for library in self.libraries]
        return asdict(self) | {"libraries": libraries, "healthy": self.healthy}


def diagnose(say: Callable[[str], None] = lambda _: None) -> Diagnosis:
    """Check everything. Errors become problems in the result.

    Args:
        say: called with the name of each engine before it is tried.
    """
    engines, checks = [], list[Check]()
    for name, install in installed.ENGINES.items():
        engine = EngineReport(name, machine.version_of(name), install, installed.is_installed(name))
        if engine.installed:
            say(name)
            checks += _ask(engine)
        engines.append(engine)
    folders = installed.folders()
    problems = [*_of_engines(engines), *_of_checks(checks), *_of_pillow(), *_of_folders(folders)]
    return Diagnosis(installed.this_machine(), engines, installed.libraries(), folders, checks, problems)


def _ask(engine: EngineReport) -> list[Check]:
    """Add the results of an engine's probe to its entry, and return its checks."""
    checks, trying = list[Check](), None
    lines, end = _run(engine.name)
    for line in lines:
        if "facts" in line:
            engine.facts = line["facts"]
            engine.version = line["facts"]["version"]
        elif "device" in line:
            engine.devices.append(line["device"])
        elif "trying" in line:
            trying = line["trying"]
        elif "check" in line:
            checks.append(Check(**line["check"]))
            trying = None
        elif "broken" in line:
            engine.error = line["broken"]
    if end and trying is not None:
        checks.append(Check(**trying, verdict="failed", reason=end))
    elif end:
        engine.error = engine.error or end
    return checks


def _run(engine: str) -> tuple[list[JsonObject], str]:
    """The lines of an engine's probe, and how it ended; "" if it ended normally."""
    command = [sys.executable, "-c", _START, json.dumps(sys.path), engine, str(usable_threads())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        return list(answers((error.stdout or b"").decode("utf-8", "replace"))), f"no answer in {_PATIENCE} seconds"
    except OSError as error:
        return [], f"no process could be started: {error.strerror}"
    end = ""
    if done.returncode < 0:
        name = str(-done.returncode)
        with contextlib.suppress(ValueError):
            name = signal.Signals(-done.returncode).name
        end = f"the process was ended by {name}"
    elif done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        end = f"the process ended with status {done.returncode}: {words[-1] if words else 'no message'}"
    return list(answers(done.stdout.decode("utf-8", "replace"))), end


def _of_engines(engines: list[EngineReport]) -> Iterator[Problem]:
    if zoo.local_files.bundled() is None:
        yield Problem("the bundled model is missing", "pip install --force-reinstall convnext-cli")
    for engine in engines:
        name, facts = engine.name, engine.facts
        if not engine.installed and name == "torch":
            yield Problem("torch is not installed", engine.install)
        if engine.error:
            again = engine.install.replace("install", "install --force-reinstall", 1)
            yield Problem(f"{name} is installed, but does not run: {engine.error}", again)
        if facts.get("why_no_cuda") and facts.get("driver"):
            yield Problem(
                f"the GPU cannot be used, although there is a driver: {facts['why_no_cuda']}",
                "check nvidia-smi and CUDA_VISIBLE_DEVICES",
                fails=False,
            )
        for device in engine.devices:
            if device.get("has_kernels") is False:
                gpu = f"{device['name']} ({device['description']}, capability {device['capability']})"
                yield Problem(
                    f"this torch has no code for {gpu}, only for {', '.join(facts['architectures'])}",
                    "install a torch that is built for it, or use -d cpu",
                )


def _of_checks(checks: list[Check]) -> Iterator[Problem]:
    for check in checks:
        if check.verdict in ("wrong", "failed"):
            where = f"{check.engine} on {check.device} in {check.dtype}"
            other = "use another --dtype or -d cpu" if check.device != "cpu" else "use another --engine or --dtype"
            says = "gives wrong answers" if check.verdict == "wrong" else "fails"
            yield Problem(
                f"{where} {says}: {check.reason}", check.hint or f"pip install --upgrade {check.engine}, or {other}"
            )


def _of_pillow() -> Iterator[Problem]:
    if not pillow_check.resizes_exactly():
        yield Problem(
            f"{pillow_check.DIFFERS}: scores may differ slightly from those of other machines",
            "pip install --force-reinstall pillow    (if they must not)",
            fails=False,
        )


def _of_folders(folders: installed.Folders) -> Iterator[Problem]:
    if folders.default_model_problem:
        what, hint = folders.default_model_problem
        hint = f"{hint}, or" if hint else ""
        yield Problem(f"the default model cannot be used: {what}", f"{hint} convnext models use default".strip())
    for path in folders.unwritable:
        yield Problem(f"{path} cannot be written", "give yourself the right, or set CONVNEXT_HOME", fails=False)
    if folders.prepared_damaged:
        yield Problem(
            f"{folders.prepared_damaged} prepared engines are damaged",
            "nothing: they are made again when they are wanted",
            fails=False,
        )
