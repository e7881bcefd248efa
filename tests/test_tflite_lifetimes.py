"""When activations are alive, on graphs small enough to count by hand and on a converted net."""

from __future__ import annotations

import numpy as np
import pytest
from runtime_models import models

from edgeopt.tflite.lifetimes import lifetimes, peak
from edgeopt.tflite.model import Operator, Subgraph, Tensor, TFLiteModel
from edgeopt.tflite.reader import read


def tensor(index: int, elements: int, *, dtype: str = "int8", constant: bool = False, variable: bool = False) -> Tensor:
    """A tensor called after its index."""
    size = elements if constant else 0
    return Tensor(index, f"t{index};fused", (elements,), (elements,), dtype, None, 0, index, size, variable, None)


def model(
    tensors: tuple[Tensor, ...], inputs: tuple[int, ...], outputs: tuple[int, ...], *steps: tuple[str, tuple, tuple]
) -> TFLiteModel:
    """A graph of operators (name, inputs, outputs)."""
    operators = tuple(Operator(i, name, 1, i, False, read, written) for i, (name, read, written) in enumerate(steps))
    graph = Subgraph(0, "main", tensors, inputs, outputs, operators)
    return TFLiteModel((), (graph,), (), (), {}, "", 0, np.zeros(0, np.uint8))


def residual(*, variable: bool = False) -> TFLiteModel:
    """t0 → CONV t1 → CONV t2, ADD t0 + t2 → t3; t4 are weights."""
    return model(
        (
            tensor(0, 100),
            tensor(1, 50),
            tensor(2, 100),
            tensor(3, 100),
            tensor(4, 1000, constant=True),
            *((tensor(5, 7, variable=True),) if variable else ()),
        ),
        (0,),
        (3,),
        ("CONV_2D", (0, 4, -1), (1,)),
        ("CONV_2D", (1, 4), (2,)),
        ("ADD", (0, 2), (3,)),
    )


def test_a_skip_connection_keeps_its_tensor_alive() -> None:
    spans = {life.tensor.index: (life.first, life.last) for life in lifetimes(residual())}
    assert spans == {0: (0, 2), 1: (0, 1), 2: (1, 2), 3: (2, 2)}
    found = peak(residual())
    assert (found.size_bytes, found.operator, found.index, found.tensor) == (100 + 100 + 100, "ADD", 2, "t3")
    assert set(found.alive) == {"t0;fused", "t2;fused", "t3;fused"}
    assert found.describe() == "operator 2, ADD, which writes 't3'"


def test_variables_live_always_and_constants_never() -> None:
    found = {life.tensor.index: life for life in lifetimes(residual(variable=True))}
    assert (found[5].first, found[5].last, found[5].size_bytes) == (0, 2, 7)
    assert 4 not in found
    assert peak(residual(variable=True)).size_bytes == 3 * 100 + 7


def test_an_output_that_nobody_reads_lives_to_the_end() -> None:
    early = model(
        (tensor(0, 10), tensor(1, 20), tensor(2, 30)), (0,), (1, 2), ("RELU", (0,), (1,)), ("RELU", (0,), (2,))
    )
    assert {life.tensor.index: life.last for life in lifetimes(early)} == {0: 1, 1: 1, 2: 1}


def test_scratch_memory_that_nobody_writes() -> None:
    compiled = model((tensor(0, 10), tensor(1, 500), tensor(2, 5)), (0,), (2,), ("ethos-u", (1, 0), (2,)))
    assert peak(compiled).size_bytes == 10 + 500 + 5


@pytest.mark.parametrize(("dtype", "size"), [("int4", 5), ("int16", 18), ("float32", 36), ("string", 0)])
def test_sizes(dtype: str, size: int) -> None:
    graph = model((tensor(0, 9, dtype=dtype),), (0,), (0,))
    assert peak(graph).size_bytes == size
    assert peak(graph).describe() == "the inputs"


@pytest.mark.parametrize(("name", "bytes_each"), [("int8", 1), ("float32", 4)])
def test_a_converted_net(name: str, bytes_each: int) -> None:
    found = peak(read(models()[name]))
    # 8 x 8 x 8 from the convolution and 3 x 3 x 8 to be written; the convolution has 8 x 8 x 1 beside the former.
    assert found.size_bytes == bytes_each * (8 * 8 * 8 + 3 * 3 * 8)
    assert found.operator == "DEPTHWISE_CONV_2D"
