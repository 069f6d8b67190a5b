"""The arrows of docs/architecture.md: every import points down, wherever in a file it stands."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import convnext_cli

PACKAGE = Path(convnext_cli.__file__).parent
# Rooms from the ground up. A module belongs to the longest name that begins its own; it may import from lower rooms
# and from its own room.
FLOORS = [
    ["base"],
    ["labels", "model.config", "model.preprocessing"],
    ["model"],
    ["storage"],
    ["zoo"],
    ["photos"],
    ["checkpoints"],
    ["runtimes"],
    ["huggingface"],
    ["predict"],
    ["datasets"],
    ["benchmarking", "diagnosis", "evaluation", "jobs"],
    ["training"],
    ["cli"],
    ["__main__"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
ONLY = {"model.network": {"model.config"}}  # the network is readable beside the paper alone
# No layout imports another, no engine another.
APART = {
    "checkpoints.layouts": [
        *("official", "timm", "torchvision", "huggingface", "mmpretrain", "openclip", "isotropic", "sparse"),
    ],
    "runtimes": ["torch.engine", "openvino.engine", "onnx.engine"],
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return max((r for r in FLOOR if module == r or module.startswith(r + ".")), key=len, default="")


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        else:
            continue
        for name in names:
            if name.startswith("convnext_cli."):
                inner = name.removeprefix("convnext_cli.")
                while inner and inner not in MODULES:
                    inner = inner.rpartition(".")[0]
                found.add(inner)
    return found - {""}


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m))
def test_arrows_point_down(module: str) -> None:
    room = room_of(module)
    assert room, f"{module} has no place in the house: add its room to FLOORS and to docs/architecture.md"
    for target in imports(MODULES[module]):
        below = room_of(target)
        assert below == room or FLOOR[below] < FLOOR[room], f"{module} imports {target}, which is not below it"
        if module in ONLY:
            assert target in ONLY[module], f"{module} may only import {ONLY[module]}"


def exact_imports(path: Path) -> set[str]:
    """The modules that a file imports: a name that is imported out of a room counts as the module that it is."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("convnext_cli.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            room = str(node.module).removeprefix("convnext_cli").lstrip(".")
            names = [f"{room}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {name if name in MODULES else room for name in names}
    return {name for name in found if name and name in MODULES}


def test_no_imports_go_round_in_a_circle() -> None:
    """Every import counts: those inside functions, those for types, and those within a room."""
    graph = {module: exact_imports(path) for module, path in MODULES.items() if module}
    reached = {module: {module} for module in graph}  # what a module leads to
    changed = True
    while changed:
        changed = False
        for module, targets in graph.items():
            more = set().union(*(reached[target] for target in targets)) - reached[module]
            reached[module] |= more
            changed = changed or bool(more)
    circles = {frozenset(other for other in reached[module] if module in reached[other]) for module in graph}
    assert {circle for circle in circles if len(circle) > 1} == set()


@pytest.mark.parametrize("folder", APART)
def test_siblings_stay_apart(folder: str) -> None:
    for name in APART[folder]:
        others = {f"{folder}.{other}" for other in APART[folder] if other != name}
        assert not imports(MODULES[f"{folder}.{name}"]) & others


def test_no_test_file_is_imported() -> None:
    """What several test files share is in tests/helpers."""
    for path in Path(__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [f"{getattr(node, 'module', '')}.{alias.name}" for alias in node.names]
                parts = {part for name in names for part in name.split(".")}
                assert not [part for part in parts if part.startswith("test_") or part == "conftest"], path


HEAVY = ["torch", "torchvision", "numpy", "PIL", "rich", "pyarrow", "huggingface_hub", "safetensors"]
HEAVY += ["openvino", "onnxruntime", "onnx", "matplotlib", "fsspec", "s3fs"]


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["classify", "--help"], set()),
        (["label", "--help"], set()),
        (["models", "--help"], set()),
        (["bench", "--help"], set()),
        (["doctor", "--help"], set()),
        (["evaluate", "--help"], set()),
        (["prepare", "--help"], set()),
        (["completion", "bash"], set()),
        (["models", "list"], {"rich"}),
        (["models", "list", "--json"], set()),
    ],
)
def test_quick_commands_import_nothing_heavy(arguments: list[str], allowed: set[str]) -> None:
    code = (
        "import sys; from convnext_cli.cli import run; status = run(sys.argv[1:]); "
        f"print([m for m in {HEAVY} if m in sys.modules], status, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    loaded, status = done.stderr.splitlines()[-1].rsplit(" ", 1)
    assert set(ast.literal_eval(loaded)) <= allowed
    assert status == "0"


def test_no_package_module_is_imported_with_the_package() -> None:
    code = "import sys, convnext_cli; print(sorted(m for m in sys.modules if m.startswith('convnext_cli')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == ["convnext_cli"]


@pytest.mark.parametrize("path", sorted(p for p in MODULES.values() if "def __getattr__" in p.read_text()), ids=name_of)
def test_no_lazy_name_is_a_modules(path: Path) -> None:
    """Else it would be the module instead, as soon as that is imported."""
    names = {
        key.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert not names & {other.stem for other in path.parent.iterdir()}


def test_public_names_exist() -> None:
    for name in convnext_cli.__all__:
        assert getattr(convnext_cli, name) is not None
    assert set(convnext_cli.__all__) <= set(dir(convnext_cli))
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        _ = convnext_cli.Missing
