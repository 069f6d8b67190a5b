"""The verb ``prepare`` from Python; ``convnext prepare`` is in test_engines.py, int8 in test_prepare_int8.py."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

import convnext_cli
from convnext_cli import PrepareRequest
from convnext_cli.base.errors import UsageError
from convnext_cli.runtimes import cache
from tests.helpers.command import Run
from tests.helpers.weights import write_model


def test_the_verb_from_python(convnext: Run, home: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "own.safetensors")
    request = PrepareRequest(model=model, threads=1)
    assert pickle.loads(pickle.dumps(request)) == request
    result = convnext_cli.prepare(request)
    assert result.kept
    assert {"latency", "throughput"} == result.chosen.keys() == result.measured.keys()
    assert result.differences.keys() >= {result.chosen["latency"]} - {"torch"}
    assert {entry.name for entry in cache.entries()} <= {"own"}
    command = json.loads(convnext("prepare", "-m", str(model), "-t", "1", "--json").out)
    ours = result.to_dict()
    assert command.keys() == ours.keys()
    assert [command[name] for name in ("model_sha256", "dtype", "threads", "difference")] == [
        ours[name] for name in ("model_sha256", "dtype", "threads", "difference")
    ]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"dtype": "float16"}, "dtype"),
        ({"threads": 0}, "threads"),
        ({"dtype": "int8"}, "--calibrate"),
        ({"calibrate": "photos"}, "--calibrate"),
        ({"dtype": "int8", "calibrate": "photos", "compiled": True}, "--compile"),
    ],
)
def test_a_request_checks_itself(wrong: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        PrepareRequest(**wrong)
