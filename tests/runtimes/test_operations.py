"""Every graph runtime provides each operation of runtimes/operations.py, with the parameters that it is called with."""

from __future__ import annotations

import ast
import importlib
import inspect

import pytest

from convnext_cli.runtimes import operations
from tests.helpers.paths import ROOT

OPERATIONS = {name: member for name, member in vars(operations.Ops).items() if inspect.isfunction(member)}
OPERATIONS = {name: member for name, member in OPERATIONS.items() if not name.startswith("_")}


def _is_ops(node: ast.stmt) -> bool:
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)] if isinstance(node, ast.ClassDef) else []
    return isinstance(node, ast.ClassDef) and (node.name == "Ops" or "Ops" in bases)


def _classes() -> list[tuple[str, str]]:
    """Module and name of every class called Ops, and of those made from one, in the folders of the runtimes."""
    return [
        (".".join(path.relative_to(ROOT).with_suffix("").parts), node.name)
        for path in sorted((ROOT / "convnext_cli" / "runtimes").glob("*/*.py"))
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and _is_ops(node)
    ]


def test_all_graph_runtimes_are_found() -> None:
    folders = {module.split(".")[2] for module, _ in _classes()}
    assert folders == {"coreml", "int8", "litert", "onnx", "openvino"}


def test_the_operations_are_those_of_the_protocol() -> None:
    assert {*OPERATIONS} == {"conv", "norm", "affine", "act", "grn", "add", "pool", "flatten"}


@pytest.mark.parametrize(("module", "name"), _classes())
def test_a_graph_runtime_provides_every_operation(module: str, name: str) -> None:
    try:
        ops = getattr(importlib.import_module(module), name)
    except Exception as error:  # a library that is not installed
        pytest.skip(f"{module}: {error}")
    for operation, member in OPERATIONS.items():
        asked = inspect.signature(member).parameters.values()
        provided = inspect.signature(getattr(ops, operation)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in provided] == [(p.name, p.kind, p.default) for p in asked]
