"""What the verb ``train`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from convnext_cli.base.errors import UsageError
from convnext_cli.training.settings_changes import SettingsChanges


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What ``train`` is asked for. The same request again continues a run that was interrupted.

    Args:
        data: photos whose classes are known: a folder, a zip, a table or parquet files; empty for the data of the run
            that is continued.
        output: the run's folder.
        settings: settings that are not left to the data and the weights.
        settings_file: a TOML file of further settings, such as another run's recipe.toml.
        val: the share of photos for val, where the data has no such split; None for 0.15.
        test: the share of photos for test, where the data has no splits; None for 0.15.
        skip_bad: leave out photos and classes that cannot be used.
        overwrite: start again where the folder holds a run.
        device: "auto", "cpu", "cuda", "cuda:N", "mps" or "xpu".
        threads: processor threads; None for all that this process may use.
        workers: processes that augment photos; None for half of the threads.
        memory: gigabytes that photos may take; None for half of the free memory.
        timeout: seconds for reading one photo, and of processor time for decoding it; None for an hour and two minutes.
        offline: refuse data that a connection is needed for.
        command: the command line that run.json quotes.

    Raises:
        UsageError: a value is out of range, or settings contradict each other.
    """

    data: tuple[str | Path, ...] = ()
    output: str | Path = "run"
    settings: SettingsChanges = field(default_factory=SettingsChanges)
    settings_file: str | Path | None = None
    val: float | None = None
    test: float | None = None
    skip_bad: bool = False
    overwrite: bool = False
    device: str = "auto"
    threads: int | None = None
    workers: int | None = None
    memory: float | None = None
    timeout: float | None = None
    offline: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.data, str | Path):
            raise UsageError(f"data must be a tuple of paths, not {self.data!r}", 'such as data=("photos/",)')
        for name, share in (("val", self.val), ("test", self.test)):
            if share is not None and not 0 <= share < 1:
                raise UsageError(f"{name} must be a share from 0 to below 1, not {share!r}")
        for name, count, least in (("threads", self.threads, 1), ("workers", self.workers, 0)):
            if count is not None and count < least:
                raise UsageError(f"{name} must be a whole number from {least}, not {count!r}")
        if self.memory is not None and self.memory < 0:
            raise UsageError(f"memory must be a number of gigabytes from 0, not {self.memory!r}")
        if self.timeout is not None and self.timeout <= 0:
            raise UsageError(f"timeout must be a number of seconds above 0, not {self.timeout!r}")
        self.settings.provisional()
