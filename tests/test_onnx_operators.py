"""Operators that tf2onnx lacks: a `.tflite` that has them goes in, an `.onnx` that computes the same comes out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_models as models

from edgeopt import formats, frameworks, parity
from edgeopt.compilers import COMPILERS, compile_content
from edgeopt.compilers.onnx_operators import OPERATORS, strange
from edgeopt.errors import ConversionError
from edgeopt.runtimes import parse
from edgeopt.tflite.model import Operator
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed, objects_of, without_sparsity

AS_IT_IS: Mapping[str, str] = dict.fromkeys(COMPILERS["tf2onnx"].settings, "")


@functools.cache
def _with_all() -> Any:
    """Operators of OPERATORS that TensorFlow writes, on 12 steps of 8 numbers."""
    keras, tf = frameworks.load("tf_keras"), frameworks.load("tensorflow")
    keras.utils.set_random_seed(5)
    steps = keras.layers.Input((12, 8), batch_size=1)
    x = tf.nn.gelu(keras.layers.Dense(16)(steps), approximate=False)
    x = tf.maximum(tf.minimum(x, 1.0), -1.0)
    x = tf.nn.gelu(keras.layers.Dense(16)(x), approximate=True)
    x = tf.maximum(tf.minimum(x, 1.0), -1.0)
    x = keras.layers.LSTM(8, return_sequences=True)(x)
    x = keras.layers.LSTM(5, return_sequences=True, bias_initializer="normal")(x)
    return keras.Model(steps, keras.layers.Dense(4)(keras.layers.Flatten()(x)))


@functools.cache
def _lookup() -> Any:
    """A row of a table for each of 12 steps."""
    keras, tf = frameworks.load("tf_keras"), frameworks.load("tensorflow")
    keras.utils.set_random_seed(6)
    steps = keras.layers.Input((12, 8), batch_size=1)
    table = tf.constant(np.random.default_rng(7).normal(size=(8, 6)).astype("float32"))
    rows = tf.reshape(tf.argmax(steps, axis=-1, output_type=tf.int32), [12])
    x = tf.reshape(tf.gather(table, rows), [1, 72])
    return keras.Model(steps, keras.layers.Dense(4)(tf.maximum(tf.minimum(x, 1.0), -1.0)))


def _with_others() -> bytes:
    """Operators of OPERATORS that other converters write, in place of their like."""
    own = models.convert(_lookup, "float32")

    def change(model: Any, schema: Any) -> None:
        kinds, graph = schema.BuiltinOperator, model.subgraphs[0]
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            if code.builtinCode == kinds.GATHER:
                operator.inputs, operator.builtinOptions = list(reversed(operator.inputs)), None
                operator.builtinOptionsType = 0
                code.builtinCode = code.deprecatedBuiltinCode = kinds.EMBEDDING_LOOKUP
            elif code.builtinCode == kinds.RELU_N1_TO_1:
                code.builtinCode, code.deprecatedBuiltinCode = kinds.RELU_0_TO_1, 127  # for greater ones

    return changed(own, change)


def _same(content: bytes, folder: Path) -> tuple[Path, float]:
    """Translates a file, and returns it with how far its outputs are off."""
    source, made = folder / "m.tflite", folder / "m.onnx"
    source.write_bytes(content)
    made.write_bytes(compile_content(content, COMPILERS["tf2onnx"], AS_IT_IS).content)
    (row,) = parity.check(made, [parse("onnxruntime")], source=source)
    assert (row.status, row.matches_reference) == ("ok", True), row.reason
    assert row.max_difference is not None
    return made, row.max_difference


def test_each_computes_the_same(tmp_path: Path) -> None:
    found = set()
    for content in (models.convert(_with_all, "float32"), _with_others()):
        found |= {operator.name for operator in read(content).main.operators}
        made, apart = _same(content, tmp_path)
        assert apart < 1e-5
        assert formats.facts(made).macs == formats.facts(tmp_path / "m.tflite").macs
    assert found >= set(OPERATORS)


def test_integers_of_an_lstm_stay_what_they_are(tmp_path: Path) -> None:
    made, apart = _same(models.convert(_with_all, "int8"), tmp_path)
    assert apart < 0.03  # of steps of int8 that the kernels of LiteRT round inside, and of a state in int16
    ours, theirs = formats.facts(made), formats.facts(tmp_path / "m.tflite")
    recurrent = [weight for weight in ours.weights if weight.operator == "LSTM" and weight.kind == "weights"]
    assert [weight.dtype for weight in recurrent] == ["int8"] * 4
    assert ours.macs == theirs.macs
    assert [o.name for o in ours.operators if o.float_arithmetic and o.weights] == ["LSTM", "LSTM"]


def test_zeros_that_a_file_leaves_out_are_written_out(tmp_path: Path) -> None:
    sparse = models.convert(models.dense, "sparse", "pruned")
    assert any(tensor.sparsity for tensor in read(sparse).main.tensors)
    _, apart = _same(sparse, tmp_path)
    assert apart < 1e-5
    plain = without_sparsity(sparse)
    assert "DENSIFY" not in {operator.name for operator in read(plain).main.operators}
    assert without_sparsity(plain) is plain
    # Nothing is left of them: no kernel that a runtime would ask for, no buffer that nobody reads.
    left = objects_of(plain)
    assert len(left.operatorCodes) == len({operator.opcodeIndex for operator in left.subgraphs[0].operators})
    read_or_written = {
        int(index) for one in left.subgraphs[0].operators for index in (*one.inputs, *one.outputs) if index >= 0
    }
    named = {tensor.buffer for index, tensor in enumerate(left.subgraphs[0].tensors) if index in read_or_written}
    assert set(range(1, len(left.buffers))) == (named | {entry.buffer for entry in left.metadata}) - {0}


def test_a_form_that_onnx_lacks_is_named_with_its_layer() -> None:
    lstm = Operator(0, "UNIDIRECTIONAL_SEQUENCE_LSTM", 1, 0, custom=False, inputs=(0, *range(1, 24)), outputs=(24,))
    assert strange(lstm) == "with peepholes, a projection, normalized or coupled gates"
    plain = tuple(-1 if i in (9, 10, 11, 16, 17, 20, 21, 22, 23) else i for i in range(24))
    relu = Operator(0, lstm.name, 1, 0, False, plain, (24,), options={"fused_activation_function": "RELU"})
    assert strange(relu) == "with another activation than tanh"
    added = Operator(0, "ADD", 1, 0, False, (0, 1), (2,), options={"fused_activation_function": "RELU_N1_TO_1"})
    assert strange(added) == "with RELU_N1_TO_1 in it"
    assert strange(replace(added, options={"fused_activation_function": "RELU"})) == ""


def test_operators_without_a_translation_are_named_with_their_layer() -> None:
    def custom(model: Any, schema: Any) -> None:
        code = model.operatorCodes[model.subgraphs[0].operators[-1].opcodeIndex]
        code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = b"Convolution2DTransposeBias"

    content = changed(models.convert(models.dense, "float32"), custom)
    with pytest.raises(
        ConversionError, match=r"ONNX has as well, got 1 Convolution2DTransposeBias \('.+'\), which has no translation"
    ):
        compile_content(content, COMPILERS["tf2onnx"], AS_IT_IS)
