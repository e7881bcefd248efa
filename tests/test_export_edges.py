"""Models that no app can call are refused in words, by every exporter, before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_models import models

import edgeopt
from edgeopt.errors import ModelError
from edgeopt.exporters.edges import require_callable
from edgeopt.tflite import rewrite
from edgeopt.tflite.reader import read


def _output(model: Any, schema: Any, index: int, name: str = "more") -> None:
    graph, entry = model.subgraphs[0], schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    graph.outputs = [*graph.outputs, index]
    model.signatureDefs[0].outputs.append(entry)


def _constant(model: Any, schema: Any) -> None:
    _nowhere(model, schema)
    tensor, buffer = model.subgraphs[0].tensors[-1], schema.BufferT()
    tensor.buffer, buffer.data = len(model.buffers), np.ones(3, np.float32).view(np.uint8)
    model.buffers.append(buffer)


def _nowhere(model: Any, schema: Any) -> None:
    tensor = schema.TensorT()
    tensor.name, tensor.shape = "nowhere", [3]
    model.subgraphs[0].tensors.append(tensor)
    _output(model, schema, len(model.subgraphs[0].tensors) - 1)


def _echo(model: Any, schema: Any) -> None:
    _output(model, schema, int(model.subgraphs[0].inputs[0]))


def _twice(model: Any, schema: Any) -> None:
    _output(model, schema, int(model.subgraphs[0].outputs[0]))


def _one_name(model: Any, schema: Any) -> None:
    model.signatureDefs = None
    for index in model.subgraphs[0].outputs:
        model.subgraphs[0].tensors[index].name = "one"


def _input_twice(model: Any, schema: Any) -> None:
    graph = model.subgraphs[0]
    graph.inputs = [*graph.inputs, graph.inputs[0]]


def _strings(model: Any, schema: Any) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].type = schema.TensorType.STRING


def _words(model: Any, schema: Any) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].type = schema.TensorType.STRING


def _nothing(model: Any, schema: Any) -> None:
    tensor = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
    tensor.shape = tensor.shapeSignature = np.array([1, 0], np.int32)


def _no_inputs(model: Any, schema: Any) -> None:
    model.subgraphs[0].inputs, model.signatureDefs = [], None


def _no_outputs(model: Any, schema: Any) -> None:
    model.subgraphs[0].outputs, model.signatureDefs = [], None


def _flex(model: Any, schema: Any) -> None:
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = "FlexErf"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_constant, r"an output that an app can use, got 'more' of \S+: it is a constant, or nothing computes it"),
        (_nowhere, r"an output that an app can use, got 'more' of \S+: it is a constant, or nothing computes it"),
        (_echo, r"an output that an app can use, got 'more' of \S+: it is an input: nothing computes it"),
        (_twice, r"an output that an app can use, got '\S+' of \S+: it is the same tensor as another output"),
        (_one_name, r"an output that an app can use, got 'one' of \S+: another output has the same name"),
        (_input_twice, r"an input that an app can use, got '\S+' of \S+: it is the same tensor as another input"),
        (_strings, r"an input that an app can use, got '\S+' of \S+: it holds string: an app fills and reads numbers"),
        (_words, r"an output that an app can use, got '\S+' of \S+: it holds string: an app fills and reads numbers"),
        (_nothing, r"an input that an app can use, got '\S+' of \S+: it holds nothing: its shape is \[1, 0\]"),
        (_no_inputs, r"at least one input, got none"),
        (_no_outputs, r"at least one output, got none"),
        (_flex, r"operators of TensorFlow Lite, got FlexErf of TensorFlow itself in .* without SELECT_TF_OPS"),
    ],
)
def test_what_no_app_can_call(change: Callable[[Any, Any], None], why: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.tflite"
    file.write_bytes(rewrite.changed(models()["two"].read_bytes(), change))
    for kind, settings in (("micro", {}), ("micro", {"runtime": "c99"}), ("android", {})):
        with pytest.raises(ModelError, match=f"Expected {why}"):
            edgeopt.export(kind, file, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_what_apps_can_call() -> None:
    for name in ("two", "lstm", "ring", "int8"):
        require_callable(read(models()[name]), name)
