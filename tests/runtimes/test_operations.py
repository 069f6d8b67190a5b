"""Every graph runtime provides each operation of runtimes/operations.py, with the parameters that it is called with.

The sources are read rather than imported, so that no runtime needs to be installed.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

RUNTIMES = ROOT / "convnext_cli" / "runtimes"


def _methods(node: ast.ClassDef) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """By name, the parameters of each method: those by position, those by keyword, and the defaults."""
    return {
        method.name: (
            [argument.arg for argument in method.args.args],
            [argument.arg for argument in method.args.kwonlyargs],
            [ast.unparse(default) for default in method.args.kw_defaults if default is not None],
        )
        for method in node.body
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
    }


def _classes(path: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}


def _bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


OPERATIONS = _methods(_classes(RUNTIMES / "operations.py")["Ops"])
MODULES = {path: _classes(path) for path in sorted(RUNTIMES.glob("*/*.py"))}
OPS = {path: classes["Ops"] for path, classes in MODULES.items() if "Ops" in classes}


def test_the_operations_and_the_graph_runtimes() -> None:
    assert {*OPERATIONS} == {"conv", "norm", "affine", "act", "grn", "add", "pool", "flatten"}
    assert {path.parent.name for path in OPS} == {"coreml", "litert", "onnx", "openvino"}


@pytest.mark.parametrize("path", OPS, ids=lambda path: path.parent.name)
def test_a_graph_runtime_provides_every_operation(path: Path) -> None:
    methods = _methods(OPS[path])
    assert {name: methods.get(name) for name in OPERATIONS} == OPERATIONS


def test_operations_are_overridden_with_the_same_parameters() -> None:
    derived = ["Ops"]
    overridden = []
    for classes in MODULES.values():
        for node in classes.values():
            if any(base in derived for base in _bases(node)):
                derived.append(node.name)
                overridden += [(name, method) for name, method in _methods(node).items() if name in OPERATIONS]
    assert overridden
    assert all(method == OPERATIONS[name] for name, method in overridden)
