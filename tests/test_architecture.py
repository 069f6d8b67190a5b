"""docs/architecture.md is true: every file has its line in the map, and imports only files above that line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import convnext_cli
from tests.helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import make_map
from make_map import PACKAGE, imported

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ROOMS = make_map.rooms(PAGE)
MODULES = make_map.modules()
GRAPH = {module: imported(path, MODULES) for module, path in MODULES.items()}
FLOORS = {room.name: room.floor for room in ROOMS} | {"__main__": max(room.floor for room in ROOMS) + 1}
ONLY = {"model.network": {"model.config"}}  # the network can be read beside the paper alone
# No layout imports another, no engine another.
APART = {
    "checkpoints.layouts": [
        *("official", "timm", "torchvision", "huggingface", "mmpretrain", "openclip", "isotropic", "sparse"),
    ],
    "runtimes": ["torch.engine", "openvino.engine", "onnx.engine"],
}
COMMAND = "python tools/make_map.py"


def room_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_room_has_a_section_in_the_map() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    counts = Counter(room.name for room in ROOMS)
    assert counts == Counter(folders)
    assert [room.floor for room in ROOMS] == sorted(room.floor for room in ROOMS)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_file_has_one_line_in_the_map(room: make_map.Room) -> None:
    assert room.files.keys() == make_map.files_of(room.name, MODULES).keys(), f"{COMMAND} adds and removes lines"
    assert PAGE.count("\n- `") >= len(room.files)


def test_no_file_is_listed_twice() -> None:
    section = PAGE.partition("\n## The map\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("- ")]
    assert len(lines) == sum(len(room.files) for room in ROOMS), "a file is listed twice, or a line is no file's"


def test_files_that_the_page_mentions_exist() -> None:
    text = PAGE.partition("\n## The map\n")[0] + PAGE.partition("\n## How to add something\n")[2]
    names = {name for name in re.findall(r"`([\w./]+\.py)`", text) if not re.search("NAME|VERB|ROOM", name)}
    assert len(names) > 40
    assert [name for name in sorted(names) if not ((PACKAGE / name).is_file() or (ROOT / name).is_file())] == []


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_lines_of_the_map_are_short(room: make_map.Room) -> None:
    assert {file: text for file, text in room.files.items() if len(text.split()) > 25} == {}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_files_import_only_from_files_above_them_in_the_map(room: make_map.Room) -> None:
    modules = make_map.files_of(room.name, MODULES)
    order = {modules[file]: place for place, file in enumerate(room.files)}
    for module, place in order.items():
        below = {target for target in GRAPH[module] & order.keys() if order[target] > place}
        assert not below, f"the map lists {module} above {below}, which it imports: {COMMAND} moves it"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m))
def test_imports_point_down(module: str) -> None:
    room = room_of(module)
    for target in GRAPH[module]:
        below = room_of(target)
        assert below == room or FLOORS[below] < FLOORS[room], f"{module} imports {target}, which is not below it"
        if module in ONLY:
            assert target in ONLY[module], f"{module} may only import {ONLY[module]}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m))
def test_public_names_are_for_others(module: str) -> None:
    """A room imports from the module that defines a name, so that the import can be seen to point down."""
    names = {
        alias.name
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "convnext_cli"
        for alias in node.names
    }
    assert names <= {"__version__", *MODULES}


def test_no_imports_go_round_in_a_circle() -> None:
    """Every import counts: those inside functions, those for types, and those within a room."""
    graph = {module: targets for module, targets in GRAPH.items() if module}
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
        assert not GRAPH[f"{folder}.{name}"] & others


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
        (["explain", "--help"], set()),
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


LAZY = sorted(path for path in MODULES.values() if "def __getattr__" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_no_module_has_the_name_of_a_lazy_export(path: Path) -> None:
    """Importing such a module would replace the exported object on its package."""
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
