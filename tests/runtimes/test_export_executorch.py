"""ExecuTorch exports against network.py, with every option; and files that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.runtimes import inspection
from convnext_cli.runtimes.executorch import export as writer
from convnext_cli.runtimes.exported import ExportedEngine
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.reference import TOLERANCE
from convnext_cli.runtimes.select import open_engine
from tests.helpers import exports as made
from tests.helpers.command import Run
from tests.helpers.exports import CONFIGS, SMALL, TINY, V2, noise, off
from tests.helpers.paths import SAMPLES
from tests.helpers.tiers import slow_except
from tests.helpers.weights import write_model

pytest.importorskip("executorch", reason="needs executorch")

CLOSE = 1e-5  # of the range; seen: 1e-6
SIZE = (64, 64)


def opened(path: Path) -> ExportedEngine:
    found = open_engine(path, device="cpu")
    assert isinstance(found, ExportedEngine)
    return found


def shallow(config: ConvNextConfig) -> ConvNextConfig:
    """Two stages of one block, which compile in half the time."""
    stages = min(2, config.num_stages)
    return config.replace(
        depths=(1,) * stages, hidden_sizes=config.hidden_sizes[:stages], kernel_sizes=config.kernel_sizes[:stages]
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an open batch and both outputs."""
    folder = tmp_path_factory.mktemp("whole")
    made.written("executorch", made.checkpoint(folder, TINY), Plan(size=SIZE, features=True), folder / "m.pte")
    return folder / "m.pte"


# Every block costs a second to compile
ONE_BLOCK = TINY.replace(use_grn=True, layer_scale_init_value=0.0)
NETWORKS = {"one block": ONE_BLOCK} | {
    name: shallow(config) for name, config in CONFIGS.items() if name not in ("V1", "no classifier", "test_convnext3")
}


@pytest.mark.parametrize("name", slow_except(NETWORKS, "one block"))
def test_every_network_in_any_batch(name: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, NETWORKS[name])
    card = made.written("executorch", found, Plan(size=SIZE, features=True), tmp_path / "m.pte")
    engine = opened(tmp_path / "m.pte")
    assert (engine.name, engine.device, engine.dtype) == ("executorch", "cpu", "float32")
    assert engine.export == card.export
    for batch in (1, 2, 7):
        assert off(engine, found, noise(batch)) < CLOSE


@pytest.mark.slow
def test_a_batch_beyond_the_memory_of_the_file_is_split(whole: Path, tmp_path: Path) -> None:
    assert off(opened(whole), made.checkpoint(tmp_path, TINY), noise(64 + 3)) < CLOSE


def test_a_fixed_batch_and_another_size(tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, TINY)
    made.written("executorch", found, Plan(batch=3, size=(64, 96)), tmp_path / "m.pte")
    engine = opened(tmp_path / "m.pte")
    for n in (1, 2, 7):
        assert off(engine, found, noise(n, 64, 96)) < CLOSE
    with pytest.raises(ModelError, match="takes photos of 64×96 pixels, not 64×64"):
        engine(noise())


@pytest.mark.parametrize("problem", slow_except(["single_label", "multi_label"], "single_label"))
def test_scores(problem: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, TINY, problem=problem, temperature=0.6)  # type: ignore[arg-type]
    made.written("executorch", found, Plan(size=SIZE, scores=True), tmp_path / "m.pte")
    assert off(opened(tmp_path / "m.pte"), found, noise(3)) < CLOSE


def test_float16_is_half_the_file(tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, V2.replace(hidden_sizes=(256,), depths=(1,), kernel_sizes=(7,)))
    made.written("executorch", found, Plan("float16", size=SIZE, features=True), tmp_path / "m.pte")
    assert (
        tmp_path / "m.pte"
    ).stat().st_size < 2.5 * found.card.config.num_parameters  # some convolutions are in it twice
    engine = opened(tmp_path / "m.pte")
    assert engine.dtype == "float16"
    for batch in (1, 2, 7):
        assert 1e-5 < off(engine, found, noise(batch)) < TOLERANCE["float16"]


def test_what_float16_does_not_hold_is_refused(tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, changed=made.loud(SMALL, 60000))
    with pytest.raises(ModelError, match="float16 ends at 65,504"):
        made.written("executorch", found, Plan("float16", size=SIZE), tmp_path / "m.pte")


@pytest.mark.parametrize("name", slow_except(["one block", "V2", "hidden head"], "one block"))
def test_int8(name: str, tmp_path: Path) -> None:
    found = made.checkpoint(tmp_path, NETWORKS[name])
    made.written("executorch", found, Plan("int8", size=SIZE, features=True), tmp_path / "m.pte")
    engine = opened(tmp_path / "m.pte")
    assert engine.dtype == "int8"
    for batch in (1, 2, 7):
        assert 1e-4 < off(engine, found, noise(batch)) < 0.06


def test_the_program_gives_its_card_without_us(tmp_path: Path) -> None:
    from executorch.runtime import Runtime

    names = ['say "cheese"', "Käse\\", "奶酪", "<cheese>\t\n", *(f"class {i}" for i in range(996))]
    found = made.checkpoint(tmp_path, TINY.replace(num_labels=len(names)))
    found.card = found.card.replace(labels=LabelSet.from_names("x", names))
    card = made.written("executorch", found, Plan(size=SIZE), tmp_path / "m.pte")
    program = Runtime.get().load_program(tmp_path / "m.pte")
    assert program.load_method("convnext").execute(()) == [card.to_json(full=True)]
    assert list(opened(tmp_path / "m.pte").card.label_set().names) == names


def test_the_command_says_nothing_of_others(tmp_path: Path, convnext: Run) -> None:
    model, target = write_model(tmp_path / "model.safetensors", TINY), tmp_path / "m.pte"
    done = convnext("export", "-m", model, "-o", target, "-q")
    assert (done.status, done.err) == (0, "")
    ours = convnext("classify", "-m", model, "-f", "csv", "-k", "3", *SAMPLES)
    theirs = convnext("classify", "-m", target, "-f", "csv", "-k", "3", *SAMPLES)
    assert theirs.status == 0
    for a, b in zip(ours.out.splitlines()[1:], theirs.out.splitlines()[1:], strict=True):
        assert [field for field in a.split(",") if "." not in field] == [f for f in b.split(",") if "." not in f]


@pytest.mark.slow  # importing the runtime takes seconds
def test_a_process_of_its_own_says_nothing_either(whole: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from convnext_cli.runtimes.executorch import pte_file; "
        "found, card = pte_file.open_file(Path(sys.argv[1]), device='auto', threads=2); "
        "print(found.run(np.zeros((2, 3, 64, 64), np.float32))[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, whole], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(2, 7)\n", "")


def test_the_card_is_read_without_the_runtime(whole: Path) -> None:
    card, _ = inspection.inspect(whole)
    assert card is not None and card.export is not None and card.export.format == "executorch"


def test_a_full_disk_is_no_fault_of_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convnext_cli.runtimes.executorch import program

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program, "lowered", full)
    found = made.checkpoint(tmp_path, TINY)
    with pytest.raises(OSError, match="No space left"):
        writer.write(found, found.card, Plan(), tmp_path / "a.pte")


DAMAGE = {
    "empty": (lambda data: b"", "damaged or no ExecuTorch program"),
    "cut": (lambda data: data[: len(data) // 2], "damaged or no ExecuTorch program: File size is too small"),
    "zeros": (lambda data: data[: len(data) // 2] + bytes(500) + data[len(data) // 2 + 500 :], "m.pte is damaged$"),
    "something else": (lambda data: b"PK\3\4" * 100, "damaged or no ExecuTorch program"),
    "no card": (lambda data: data.replace(b"convnext\0", b"convnet\0\0"), "has no card of convnext"),
    "a damaged card": (lambda data: data.replace(b"schema_version", b"version_schema"), "card is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told(name: str, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage, words = DAMAGE[name]
    data = whole.read_bytes()
    (tmp_path / "m.pte").write_bytes(damage(data if name == "zeros" else data[:-26]))  # without its checksum
    with pytest.raises(ModelError, match=words) as told:
        opened(tmp_path / "m.pte")
    assert told.value.hint and capfd.readouterr() == ("", "")


def test_other_devices_are_not_there(whole: Path) -> None:
    with pytest.raises(UnavailableError, match="runs on the CPU, not on cuda"):
        open_engine(whole, device="cuda")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan("bfloat16"), "XNNPACK has no bfloat16"),
        (Plan(size=None), "there is none for any size"),
        (Plan(preprocessing=True), "there is none for photos of any size"),
    ],
)
def test_what_the_format_cannot_do_is_refused(plan: Plan, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        writer.refuse(Card(SMALL), plan)


def test_a_missing_library_is_told_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="ExecuTorch is not installed") as told:
        writer.refuse(Card(SMALL), Plan())
    assert told.value.hint == "pip install executorch"
