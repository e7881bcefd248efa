"""Bytes, parameters, zeros and distinct values, counted in real files and compared with what went into them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import tflite_models as models

from edgeopt.errors import ModelError
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.sparse import SparseDimension, SparseEncoding, expand
from edgeopt.tflite.weights import WeightTensor, weigh

KERNELS = 8 * 3 * 3 * 3 + 8 * 3 * 3 + 160 * 8 + 10 * 160
BIASES = 8 + 8 + 160 + 10


def _only_weight(model: TFLiteModel) -> WeightTensor:
    (weight,) = (t for t in weigh(model).tensors if t.kind == "weights")
    return weight


@pytest.mark.parametrize(
    ("scheme", "weight_bytes", "bias_bytes"),
    [
        ("float32", 4 * KERNELS, 4 * BIASES),
        ("float16", 2 * KERNELS, 2 * BIASES),
        # Tensors under 1,024 elements stay float: the first convolution and the depthwise kernel.
        ("dynamic", 160 * 8 + 10 * 160 + 4 * (8 * 3 * 3 * 3 + 8 * 3 * 3), 4 * BIASES),
        ("int8", KERNELS, 4 * BIASES),
        ("int16x8", KERNELS, 8 * BIASES),
    ],
)
def test_bytes_by_kind(scheme: str, weight_bytes: int, bias_bytes: int) -> None:
    content = models.convert(models.cnn, scheme)
    weights = weigh(read(content))
    assert weights.bytes_by_kind["weights"] == weight_bytes
    assert weights.bytes_by_kind["biases"] == bias_bytes
    assert sum(weights.bytes_by_kind.values()) == len(content)
    assert sum(t.elements for t in weights.tensors if t.is_parameter) == KERNELS + BIASES


def test_shared_model_counts(shared: Path) -> None:
    weights = weigh(read(shared / "models" / "ad01_int8.tflite"))
    widths = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    assert weights.bytes_by_kind["weights"] == sum(a * b for a, b in itertools.pairwise(widths))
    assert weights.bytes_by_kind["biases"] == 4 * sum(widths[1:])


def test_roles_in_a_recurrent_model() -> None:
    weights = weigh(read(models.convert(models.recurrent, "float32")))
    kernels, recurrent, head = 4 * 64 * 32, 4 * 32 * 32, 32 * 5
    assert weights.bytes_by_kind["weights"] == 4 * (kernels + recurrent + head)
    assert sum(t.kind == "weights" and "LSTM" in t.operator for t in weights.tensors) == 8
    # One bias for each gate.
    assert sum(t.elements for t in weights.tensors if t.kind == "biases" and "LSTM" in t.operator) >= 32


@pytest.mark.parametrize("scheme", ["float32", "int8", "dynamic"])
def test_zeros_are_those_of_the_pruned_kernel(scheme: str) -> None:
    (kernel,) = models.dense("pruned").get_weights()
    weight = _only_weight(read(models.convert(models.dense, scheme, "pruned")))
    assert weight.elements == 96 * 64
    # Rounding makes some more zeros, never fewer.
    assert weight.zeros is not None
    assert weight.zeros >= int((kernel == 0).sum())
    assert weight.sparsity == pytest.approx(float((kernel == 0).mean()), abs=0.02)


def test_distinct_values_are_the_clusters() -> None:
    float_weight = _only_weight(read(models.convert(models.dense, "float32", "clustered")))
    assert (float_weight.unique, float_weight.unique_per_channel) == (models.CLUSTERS, models.CLUSTERS)
    weight = _only_weight(read(models.convert(models.dense, "int8", "clustered")))
    # Each channel has its own scale, so that the same cluster may have other numbers elsewhere, but not inside.
    assert weight.unique_per_channel is not None
    assert weight.unique_per_channel <= models.CLUSTERS
    assert _only_weight(read(models.convert(models.dense, "int8"))).unique_per_channel > models.CLUSTERS


def test_a_sparse_encoded_weight_expands_to_the_dense_one() -> None:
    dense, sparse = (read(models.convert(models.dense, s, "pruned")) for s in ("float32", "sparse"))
    (encoded,) = (t for t in sparse.main.tensors if t.sparsity is not None)
    assert str(encoded.sparsity) == "sparse in blocks of 1x4"
    plain = next(t for t in dense.main.tensors if t.shape == encoded.shape and t.is_constant)
    np.testing.assert_array_equal(sparse.values(encoded), dense.values(plain))
    before, after = _only_weight(dense), _only_weight(sparse)
    assert (after.zeros, after.unique) == (before.zeros, before.unique)
    assert (after.encoding, after.elements) == ("sparse in blocks of 1x4", 96 * 64)
    assert after.size_bytes < before.size_bytes


def test_expansion_refuses_what_contradicts_itself() -> None:
    values = np.arange(1, 4)
    segments, indices = np.array([0, 2, 3]), np.array([0, 2, 1])
    rows, columns = SparseDimension(2), SparseDimension(0, segments, indices)
    good = SparseEncoding((0, 1), (), (rows, columns), 0)
    np.testing.assert_array_equal(expand(values, good, (2, 3), zero=-1, most=100), [[1, -1, 2], [-1, 3, -1]])
    for encoding, shape, message in [
        (good, (2, 2), "leaves its shape"),
        (good, (200, 300), "more elements"),
        (SparseEncoding((0, 0), (), (rows, columns), 0), (2, 3), "levels do not fit"),
        (SparseEncoding((0, 1), (), (SparseDimension(5), columns), 0), (5, 3), "broken segments"),
        (SparseEncoding((0, 1), (), (rows, SparseDimension(3)), 0), (2, 3), "3 values for 6 places"),
        (SparseEncoding((0, 1), (), (rows, SparseDimension(0, segments * 2, indices)), 0), (2, 3), "leave its indices"),
        (SparseEncoding((0, 1), (), (SparseDimension(2**31 - 1), columns), 0), (2, 3), "too large"),
    ]:
        with pytest.raises(ValueError, match=message):
            expand(values, encoding, shape, zero=0, most=100)


def test_four_bit_weights_unpack_to_what_was_quantized() -> None:
    pytest.importorskip("ai_edge_quantizer")
    model = read(models.requantized("weight_only_wi4_afp32"))
    original = read(models.convert(models.cnn, "float32"))
    found = [t for t in model.main.tensors if t.dtype == "int4"]
    assert {t.shape for t in found} == {(8, 3, 3, 3), (160, 1, 1, 8), (10, 160)}
    for tensor in found:
        assert tensor.size_bytes == tensor.elements // 2
        assert tensor.quantization is not None
        values = model.values(tensor)
        assert values.min() >= -8
        assert values.max() <= 7
        plain = next(t for t in original.main.tensors if t.shape == tensor.shape and t.is_constant)
        scales = np.reshape(tensor.quantization.scales, (-1, *[1] * (len(tensor.shape) - 1)))
        assert np.abs(values * scales - original.values(plain)).max() <= 0.5001 * scales.max()


def test_values_of_what_is_not_stored() -> None:
    model = read(models.convert(models.cnn, "float32"))
    computed = model.main.tensors[model.main.outputs[0]]
    with pytest.raises(ModelError, match="Try a constant tensor"):
        model.values(computed)
    with pytest.raises(ModelError, match="Expected a tensor of numbers, got 'classes' of string"):
        model.values(dataclasses.replace(computed, name="classes", dtype="string"))
