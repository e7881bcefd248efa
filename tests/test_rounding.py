"""Rounding on arrays: what one weight loses the others make up for; an operator is the matrices that we take it for."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from c99_graphs import Graph

from edgeopt.rounding import softmaxed
from edgeopt.rounding.adaround import Activation, learn
from edgeopt.rounding.arrivals import arrivals
from edgeopt.rounding.evidence import Evidence, Rows
from edgeopt.rounding.fitting import Use, fit
from edgeopt.rounding.gptq import block_steps, round_rows, row_errors
from edgeopt.rounding.grid import Grid
from edgeopt.rounding.layout import Layout, layout
from edgeopt.rounding.moments import Moments, target
from edgeopt.tflite.reader import read


def _correlated(columns: int, seed: int = 0, groups: int = 1) -> np.ndarray:
    mixed = np.random.default_rng(seed).normal(size=(groups, columns, columns))
    return mixed @ mixed.transpose(0, 2, 1) / columns


def _weights(rows: int, columns: int, seed: int = 1, groups: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(groups, rows, columns))


# --- GPTQ ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "highest"), [(2, 1), (3, 3), (4, 7), (8, 127)])
def test_a_grid_is_symmetric(bits: int, highest: int) -> None:
    grid = Grid.of(bits)
    row = np.array([[[-highest - 5.0, 0.4, highest + 5.0]]])
    assert grid.nearest(row, np.ones((1, 1, 1))).tolist() == [[[-highest, 0, highest]]]
    assert grid.widest(row).item() == (highest + 5) / highest


def test_two_inputs_that_are_nearly_one_are_rounded_against_each_other() -> None:
    alike, w = 0.9, 0.4
    hessian = np.array([[[1.0, alike], [alike, 1.0]]])
    weights, one = np.array([[[w, w]]]), np.ones((1, 1, 1))
    nearest = Grid(1).nearest(weights, one)
    integers, _ = round_rows(weights, hessian, Grid(1), steps=one)
    assert nearest.tolist() == [[[0, 0]]]
    assert sorted(integers[0, 0]) == [0, 1]  # together 1, where 0.8 is wanted
    # (v - w) is (-w, -w) for the nearest, and (1 - w, -w) for what makes up for it.
    assert row_errors(weights, nearest, hessian).item() == pytest.approx(2 * w**2 + 2 * alike * w**2)
    assert row_errors(weights, integers, hessian).item() == pytest.approx((1 - w) ** 2 + w**2 - 2 * alike * (1 - w) * w)


def test_without_correlation_the_nearest_integers_are_the_best() -> None:
    weights, grid = _weights(4, 6), Grid.of(4)
    steps = grid.widest(weights)
    integers, _ = round_rows(weights, np.diag([1.0, 2, 3, 4, 5, 6])[None], grid, steps=steps)
    np.testing.assert_array_equal(integers, grid.nearest(weights, steps))


@pytest.mark.parametrize("seed", range(5))
def test_it_comes_near_to_the_best_of_all_integers(seed: int) -> None:
    weights, hessian, grid = _weights(8, 4, seed), _correlated(4, seed + 10), Grid.of(2)
    steps = grid.widest(weights)
    integers, _ = round_rows(weights, hessian, grid, steps=steps)
    every = np.array(list(itertools.product((-1, 0, 1), repeat=4)), float)
    off = every[None] * steps[0][:, None] - weights[0][:, None]
    best = np.einsum("rqk,kl,rql->rq", off, hessian[0], off).min(1).sum()
    found = row_errors(weights, integers * steps, hessian).sum()
    nearest = row_errors(weights, grid.nearest(weights, steps) * steps, hessian).sum()
    assert best <= found * (1 + 1e-9)
    assert found <= nearest
    # Of what is lost to the nearest integers at least three quarters come back.
    assert found - best <= 0.25 * (nearest - best) + 1e-12


@pytest.mark.parametrize("columns", [9, 150])  # 150: more than are corrected at once
def test_no_single_change_is_better(columns: int) -> None:
    weights, hessian, grid = _weights(3, columns), _correlated(columns), Grid.of(3)
    steps = grid.widest(weights)
    integers, _ = round_rows(weights, hessian, grid, steps=steps)
    errors = row_errors(weights, integers * steps, hessian)
    for column, change in itertools.product(range(columns), (-1, 1)):
        other = integers.copy()
        other[..., column] = np.clip(other[..., column] + change, -grid.highest, grid.highest)
        assert (row_errors(weights, other * steps, hessian) >= errors - 1e-9).all()


def test_steps_are_chosen_by_the_rounded_result() -> None:
    weights, hessian, grid = _weights(16, 36), _correlated(36), Grid.of(2)
    widest = grid.widest(weights)
    fixed, _ = round_rows(weights, hessian, grid, steps=widest)
    integers, steps = round_rows(weights, hessian, grid)
    assert steps.shape == (1, 16, 1)
    assert np.unique(integers).tolist() == [-1, 0, 1]
    errors = row_errors(weights, integers * steps, hessian)
    assert (errors <= row_errors(weights, fixed * widest, hessian) + 1e-9).all()
    together, one = round_rows(weights, hessian, grid, together=True)
    assert len(np.unique(one)) == 1
    assert errors.sum() < row_errors(weights, together * one, hessian).sum()


def test_zeros_stay_zeros_and_groups_are_each_for_themselves() -> None:
    weights, hessian, grid = _weights(4, 9, groups=3), _correlated(9, groups=3), Grid.of(4)
    zeros = np.random.default_rng(2).random(weights.shape) < 0.5
    weights = np.where(zeros, 0.0, weights)
    integers, steps = round_rows(weights, hessian, grid, zeros=zeros)
    assert not integers[zeros].any()
    alone, own = round_rows(weights[1:2], hessian[1:2], grid, zeros=zeros[1:2])
    np.testing.assert_array_equal(integers[1], alone[0])
    np.testing.assert_allclose(steps[1], own[0])


def test_inputs_that_never_vary_are_rounded_to_the_nearest() -> None:
    weights, grid = _weights(4, 5), Grid.of(4)
    steps = grid.widest(weights)
    integers, _ = round_rows(weights, np.zeros((1, 5, 5)), grid, steps=steps)
    np.testing.assert_array_equal(integers, grid.nearest(weights, steps))


# --- moments ---------------------------------------------------------------------------------------------------------


def test_inputs_far_from_zero_have_a_covariance_all_the_same() -> None:
    rows = (1000 + np.random.default_rng(0).normal(0, 0.02, (1, 4000, 12))).astype(np.float32)
    moments = Moments.none(1, 12)
    for some in np.split(rows, 4, axis=1):
        moments.add(some, some + np.float32(1))
    real = rows[0].astype(np.float64)
    assert moments.hessian()[0] == pytest.approx(np.cov(real.T, bias=True), abs=1e-6)
    assert moments.covariance()[0] == pytest.approx(np.cov(real.T, bias=True), abs=1e-6)
    assert np.linalg.eigvalsh(moments.hessian()).min() > 0
    kernel = np.ones((1, 2, 12))
    assert moments.offset(kernel, 2 * kernel) == pytest.approx(
        np.full((1, 2), real.mean(0).sum() - 2 * (real.mean(0) + 1).sum())
    )


def test_the_target_makes_up_for_what_arrives() -> None:
    random = np.random.default_rng(0)
    arrived = random.normal(size=(1, 500, 6)) + 3.0
    mixed = np.eye(6) + 0.2 * random.normal(size=(6, 6))
    floats = arrived @ mixed.T + 1.0  # x = A z + 1, so W x = (W A) z + W 1
    moments = Moments.none(1, 6)
    for start in range(0, 500, 100):  # in batches
        moments.add(floats[:, start : start + 100], arrived[:, start : start + 100])
    weights = random.normal(size=(1, 2, 6))
    np.testing.assert_allclose(moments.hessian()[0], np.cov(arrived[0].T, bias=True), atol=1e-9)
    found = target(weights, moments.hessian(), moments.covariance(), damping=1e-9)
    np.testing.assert_allclose(found, weights @ mixed, atol=1e-6)
    np.testing.assert_allclose(moments.offset(weights, found), weights.sum(-1), atol=1e-5)
    damped = target(weights, moments.hessian(), moments.covariance(), damping=1e9)
    np.testing.assert_allclose(damped, weights, atol=1e-6)


# --- AdaRound --------------------------------------------------------------------------------------------------------


def _learned(**more: Any) -> tuple[float, float, Any]:
    random = np.random.default_rng(0)
    mixed = np.eye(12) + 0.5 * random.normal(size=(12, 12))
    inputs = (random.normal(size=(1, 800, 12)) @ mixed).astype(np.float32)
    weights, grid = _weights(6, 12) * 0.3, Grid.of(3)
    steps, bias = grid.widest(weights), random.normal(size=(1, 6))
    relu = Activation.named("RELU")
    outputs = relu(inputs @ weights.transpose(0, 2, 1) + bias).astype(np.float32)
    found = learn(weights, grid.nearest(weights, steps), bias, steps, inputs, outputs, grid, activation=relu, **more)

    def error(integers: np.ndarray) -> float:
        made = relu(inputs @ (integers * steps).transpose(0, 2, 1) + bias)
        return float(np.mean(np.square(made - outputs)))

    return error(grid.nearest(weights, steps)), error(found.integers), found


def test_learned_rounding_is_better_than_the_nearest() -> None:
    nearest, learned, found = _learned(iterations=1500)
    assert learned < 0.6 * nearest
    assert found.errors[0] == pytest.approx(nearest, rel=1e-4)
    assert min(found.errors) == pytest.approx(learned, rel=1e-4)
    assert np.abs(found.integers).max() <= Grid.of(3).highest


def test_learned_rounding_keeps_zeros_and_stops_where_nothing_changes() -> None:
    zeros = np.random.default_rng(1).random((1, 6, 12)) < 0.5
    told: list[int] = []
    _, _, found = _learned(iterations=1000, zeros=zeros, told=told.append)
    assert not found.integers[zeros].any()
    assert told == list(range(50, told[-1] + 1, 50))
    assert len(found.errors) == 1 + len(told)
    assert 500 < told[-1] < 1000
    assert found.errors[-1] == found.errors[-2] == found.errors[-3]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [("NONE", [-9.0, 9.0], [-9, 9]), ("RELU", [-9.0, 9.0], [0, 9]), ("RELU6", [-9.0, 9.0], [0, 6])],
)
def test_what_follows_a_matrix(name: str, given: list[float], expected: list[float]) -> None:
    assert Activation.named(name)(np.array(given)).tolist() == expected


# --- operators as matrices -------------------------------------------------------------------------------------------

_CONV, _DEPTHWISE = "CONV_2D", "DEPTHWISE_CONV_2D"


def _file(name: str, size: tuple[int, int, int], kernel: tuple[int, ...], **options: Any) -> bytes:
    """Returns a float file of one operator that computes on pictures of `size`."""
    graph = Graph(seed=3)
    source = graph.tensor((1, *size), "float32")
    channels = kernel[3] if name == _DEPTHWISE else kernel[0]
    weights = graph.constant(graph.random.normal(size=kernel), "float32")
    bias = graph.constant(graph.random.normal(size=channels), "float32")
    same, strides = options.pop("same"), options.pop("strides", (1, 1))
    dilation = options.pop("dilation", (1, 1))
    area = [
        -(-n // s) if same else (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(size, kernel[1:3], strides, dilation)
    ]
    result = graph.tensor((1, *area, channels), "float32")
    kind = "DepthwiseConv2DOptions" if name == _DEPTHWISE else "Conv2DOptions"
    if name == _DEPTHWISE:
        options["depthMultiplier"] = channels // size[2]
    graph.operator(
        name,
        [source, weights, bias],
        [result],
        kind,
        padding=0 if same else 1,
        strideH=strides[0],
        strideW=strides[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        **options,
    )
    return graph.build([source], [result])


@pytest.mark.parametrize("same", [True, False], ids=["same", "valid"])
@pytest.mark.parametrize(
    ("name", "size", "kernel", "options"),
    [
        (_CONV, (7, 6, 3), (4, 3, 3, 3), {}),
        (_CONV, (7, 6, 3), (4, 3, 2, 3), {"strides": (2, 2)}),
        (_CONV, (8, 8, 3), (4, 3, 3, 3), {"strides": (2, 3)}),
        (_CONV, (9, 9, 2), (4, 3, 3, 2), {"dilation": (2, 3)}),
        (_CONV, (6, 6, 4), (6, 3, 3, 2), {}),  # two groups
        (_CONV, (5, 5, 4), (3, 1, 1, 4), {"strides": (2, 2)}),
        (_DEPTHWISE, (7, 6, 3), (1, 3, 3, 3), {}),
        (_DEPTHWISE, (7, 6, 3), (1, 3, 3, 6), {"strides": (2, 2)}),  # a multiplier of two
        (_DEPTHWISE, (9, 9, 2), (1, 3, 3, 2), {"dilation": (2, 2)}),
    ],
)
def test_matrices_compute_what_litert_computes(
    name: str, size: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, Any], same: bool
) -> None:
    content = _file(name, size, kernel, same=same, **options)  # type: ignore[arg-type]
    model = read(content)
    (operator,) = model.main.operators
    weights, bias = (model.values(model.main.tensors[i]) for i in operator.inputs[1:])
    lies = layout(model.main, operator, model.main.tensors[operator.inputs[1]])
    assert lies is not None
    images = np.random.default_rng(5).normal(size=(3, *size)).astype(np.float32)
    with arrivals(content, operator.outputs) as opened:
        (expected,) = opened.values({"t0": images})
    matrix = lies.matrix(weights)
    np.testing.assert_array_equal(lies.stored(matrix), weights)
    made = lies.patches(images) @ matrix.transpose(0, 2, 1) + bias.reshape(lies.groups, 1, lies.rows)
    np.testing.assert_allclose(made, lies.results(expected), atol=1e-5)
    places = np.array([0, lies.positions(images.shape) - 1])
    some = lies.patches(images, places) @ matrix.transpose(0, 2, 1) + bias.reshape(lies.groups, 1, lies.rows)
    np.testing.assert_allclose(some, lies.results(expected, places), atol=1e-5)


def test_dense_layers_are_matrices_too() -> None:
    lies = Layout(1, 2, 3, (2, 3))
    inputs = np.arange(24.0).reshape(2, 4, 3)  # as with keep_num_dims
    assert lies.positions(inputs.shape) == 4
    np.testing.assert_array_equal(lies.patches(inputs)[0], inputs.reshape(8, 3))
    np.testing.assert_array_equal(lies.patches(inputs, np.array([1]))[0], inputs[:, 1])


def test_a_file_is_cut_behind_what_is_asked_for() -> None:
    graph = Graph()
    source = graph.tensor((1, 4), "float32")
    doubled, tripled = graph.tensor((1, 4), "float32"), graph.tensor((1, 4), "float32")
    graph.operator("MUL", [source, graph.constant([2.0], "float32")], [doubled], "MulOptions")
    graph.operator("MUL", [doubled, graph.constant([3.0], "float32")], [tripled], "MulOptions")
    content = graph.build([source], [tripled])
    samples = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    with arrivals(content, [doubled, source]) as opened:
        found = opened.values({"t0": samples})
    np.testing.assert_allclose(found[0], 2 * samples)
    np.testing.assert_array_equal(found[1], samples)


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_of_a_row_have_steps_of_their_own_that_float16_holds() -> None:
    row = np.concatenate([np.full(4, 7.0), np.full(4, 0.7), np.zeros(4)])[None, None]
    steps = Grid.of(4).widest(row, 4)
    np.testing.assert_array_equal(steps, np.repeat(np.float16([1.0, 0.1, 1 / 7]), 4)[None, None])
    assert (Grid.of(4).nearest(row, steps)[0, 0, :8] == 7).all()


def test_steps_of_blocks_leave_no_more_error_than_the_widest() -> None:
    weights, hessian, grid = _weights(8, 64), _correlated(64), Grid.of(4)
    found, jointly, widest = (
        block_steps(weights, hessian, grid, 16),
        block_steps(weights, hessian, grid, 16, jointly=True),
        grid.widest(weights, 16),
    )
    off = [grid.nearest(weights, s) * s - weights for s in (found, jointly, widest)]
    alone = hessian * np.kron(np.eye(4), np.ones((16, 16)))
    of_blocks = [row_errors(weights, weights + each, alone) for each in off]
    assert (of_blocks[0] <= of_blocks[2]).all()
    of_rows = [row_errors(weights, weights + each, hessian) for each in off]
    assert (of_rows[1] <= of_rows[2]).all()
    assert of_rows[1].sum() < 0.8 * of_rows[0].sum()


def test_columns_may_be_rounded_in_the_order_in_which_they_are_stored() -> None:
    weights, grid = _weights(8, 32), Grid.of(3)
    hessian = _correlated(32) * np.geomspace(0.1, 10, 32)[:, None] * np.geomspace(0.1, 10, 32)
    steps = grid.widest(weights)
    by_activations, as_stored = (
        round_rows(weights, hessian, grid, steps=steps, by_activations=each)[0] for each in (True, False)
    )
    assert (by_activations != as_stored).any()
    nearest = row_errors(weights, grid.nearest(weights, steps) * steps, hessian).sum()
    for found in (by_activations, as_stored):
        assert row_errors(weights, found * steps, hessian).sum() < nearest


# --- in front of a softmax -------------------------------------------------------------------------------------------


def _kl(logits: np.ndarray, made: np.ndarray) -> float:
    """Returns the mean Kullback-Leibler divergence of what a softmax makes of two."""
    ours, theirs = (each - np.log(np.exp(each).sum(-1, keepdims=True)) for each in (logits, made))
    return float((np.exp(ours) * (ours - theirs)).sum(-1).mean())


def test_errors_of_logits_count_by_what_a_softmax_makes_of_them() -> None:
    logits = np.log([[0.5, 0.25, 0.25], [0.98, 0.01, 0.01]])
    expected = [[0.5 * 0.5, 0.25 * 0.75, 0.25 * 0.75], [0.98 * 0.02, 0.01 * 0.99, 0.01 * 0.99]]
    np.testing.assert_allclose(softmaxed.counts(logits + 1000), expected)
    tiny, off = np.float64(1e-4), np.array([0.3, -0.1, 0.7])
    # The diagonal of the Hessian: half of it, times the square of an error, is the divergence, to second order.
    for unit in range(3):
        moved = logits + tiny * off[unit] * np.eye(3)[unit]
        wanted = 0.5 * (tiny * off[unit]) ** 2 * softmaxed.counts(logits)[:, unit].mean()
        assert _kl(logits, moved) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_what_a_softmax_heeds_is_rounded_better(method: str) -> None:
    random = np.random.default_rng(0)
    columns, units, grid = 32, 96, Grid.of(3)
    kinds = random.normal(size=(6, columns))
    weights = 0.3 * random.normal(size=(1, units, columns))
    weights[0, :48] += 0.5 * kinds[np.arange(48) % 6]  # each kind of input has units of its own

    def rows(count: int) -> Rows:
        arrived = (kinds[random.integers(0, 6, count)] + 0.5 * random.normal(size=(count, columns)))[None]
        return Rows(arrived.astype(np.float32), (arrived @ weights.transpose(0, 2, 1)).astype(np.float32))

    fitted, held = rows(3000), rows(1000)
    moments = Moments.none(1, columns)
    moments.add(fitted.arrived, fitted.arrived)
    use = Use(np.zeros((1, units)), Activation.named("NONE"))
    plain = fit(weights, [use], [Evidence(moments)], grid, method=method, block=16, iterations=0, seed=0)
    heeded = softmaxed.fit(weights, fitted, grid, method=method, block=16)
    lost = [_kl(held.wanted[0], held.arrived[0] @ each.values[0].T + each.biases[0][0]) for each in (plain, heeded)]
    assert lost[1] < 0.9 * lost[0]
    assert np.abs(heeded.integers).max() <= grid.highest
    assert heeded.steps.shape == weights.shape
    zeros = random.random(weights.shape) < 0.3
    assert (
        not softmaxed.fit(np.where(zeros, 0, weights), fitted, grid, method=method, zeros=zeros).integers[zeros].any()
    )


def test_a_covariance_for_each_unit_is_made_where_it_takes_little() -> None:
    assert softmaxed.affordable(2048, 192)
    assert not softmaxed.affordable(50_000, 768)
