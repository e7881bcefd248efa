"""Multiply-accumulates, written as the sums they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import tflite_models as models

from edgeopt.tflite.macs import count_macs, operator_macs
from edgeopt.tflite.reader import read


@pytest.mark.parametrize("scheme", models.SCHEMES)
def test_convolutions_and_dense(scheme: str) -> None:
    expected = 16 * 16 * 8 * (3 * 3 * 3) + 14 * 14 * 8 * (3 * 3) + 14 * 14 * 160 * 8 + 160 * 10
    assert count_macs(read(models.convert(models.cnn, scheme))).total == expected


def test_transposed_convolution() -> None:
    assert count_macs(read(models.convert(models.upsampling, "float32"))).total == 8 * 8 * 16 * (3 * 3 * 16)


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_lstm(scheme: str) -> None:
    counted = count_macs(read(models.convert(models.recurrent, scheme)))
    assert (counted.total, counted.loops) == (12 * 4 * (64 * 32 + 32 * 32) + 32 * 5, 0)


def test_matrix_product_and_loops() -> None:
    from edgeopt import frameworks

    tf = frameworks.load("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec((2, 5, 7)), tf.TensorSpec((2, 7, 3))])
    def product(a, b):  # type: ignore[no-untyped-def]
        result = tf.matmul(a, b)
        for _ in tf.range(4):
            result = result + tf.matmul(a, b)
        return result

    model = read(tf.lite.TFLiteConverter.from_concrete_functions([product.get_concrete_function()], product).convert())
    once = 2 * 5 * 3 * 7
    matmuls = [operator_macs(g, o) for g in model.subgraphs for o in g.operators if o.name == "BATCH_MATMUL"]
    assert set(matmuls) == {once}
    counted = count_macs(model)
    assert counted.loops == 1
    assert counted.total == once * len(matmuls)


def test_shared_model(shared: Path) -> None:
    # DS-CNN of MLPerf Tiny: a 10x4 convolution, four depthwise blocks at 25 x 5 x 64, a classifier of 12.
    block = 25 * 5 * 64 * (3 * 3) + 25 * 5 * 64 * 64
    expected = 25 * 5 * 64 * (10 * 4) + 4 * block + 64 * 12
    assert count_macs(read(shared / "models" / "kws_ref_model.tflite")).total == expected
