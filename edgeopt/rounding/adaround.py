"""Weights, inputs and wanted outputs of a layer go in; the integers that gradients chose, and how, come out.

Every weight goes up or down: v = s (floor(w / s) + h(a)), with a rectified sigmoid h that a penalty drives to 0 or 1
while the error of the outputs, behind the layer's activation function, is kept small (AdaRound: Nagel et al. 2020,
arXiv 2004.10568).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeopt.rounding.grid import Grid

# Of the paper: how far the sigmoid is stretched, the penalty's weight, its exponent from first to last, and for how
# much of the time there is none.
_LOW, _HIGH = -0.1, 1.1
_PENALTY = 0.01
_EXPONENTS = (20.0, 2.0)
_WARM_UP = 0.2
_RATE = 3e-2
# Rows of inputs a step.
_ROWS = 1024
# How often the integers are looked at; in the second half it stops where none has changed for so many looks.
_LOOKS = 20
_STILL = 2


@dataclass(frozen=True)
class Activation:
    """What follows the matrix: clipped between `low` and `high`."""

    low: float = -np.inf
    high: float = np.inf

    @classmethod
    def named(cls, name: str) -> Activation:
        """Returns that of a fused activation function; what is no clipping passes."""
        return _ACTIVATIONS.get(name, cls())

    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.clip(outputs, self.low, self.high)
        return found


_ACTIVATIONS = {
    "RELU": Activation(0.0),
    "RELU6": Activation(0.0, 6.0),
    "RELU_N1_TO_1": Activation(-1.0, 1.0),
}


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        integers: as floats, [groups, rows, columns].
        errors: mean squared error of the outputs of integers: of those to begin with, then at each look.
    """

    integers: np.ndarray
    errors: tuple[float, ...]


def learn(
    weights: np.ndarray,
    start: np.ndarray,
    bias: np.ndarray,
    steps: np.ndarray,
    inputs: np.ndarray,
    outputs: np.ndarray,
    grid: Grid,
    *,
    activation: Activation = Activation(),
    zeros: np.ndarray | None = None,
    iterations: int = 1000,
    seed: int = 0,
    told: Callable[[int], None] = lambda done: None,
) -> Learned:
    """Returns for each weight whether it goes up or down.

    Args:
        weights: real, [groups, rows, columns].
        start: integers to begin with, and to stay with where nothing better is found; each may go one towards its
            weight.
        bias: [groups, rows].
        steps: of the integers, [groups, rows, 1 or columns].
        inputs: those that really arrive, [groups, samples, columns].
        outputs: the float layer's, behind its activation, [groups, samples, rows].
        grid: the integers that there are.
        activation: what follows the matrix.
        zeros: which weights have to stay exactly 0.
        iterations: steps of Adam.
        seed: of the choice of rows.
        told: hears how many iterations are done.
    """
    below = start <= weights / steps
    floor = np.where(below, start, start - 1)
    fixed = np.zeros(weights.shape, bool) if zeros is None else zeros
    # Half way between where the weight lies and the integer that it begins with.
    share = np.clip(0.5 * (np.clip(weights / steps - floor, 0.0, 1.0) + ~below), 0.01, 0.99)
    state = np.log((share - _LOW) / (_HIGH - share)).astype(np.float32)
    moment, spread = np.zeros_like(state), np.zeros_like(state)
    random = np.random.default_rng(seed)
    wide = np.broadcast_to(steps, weights.shape).astype(np.float32)

    def hard(a: np.ndarray) -> np.ndarray:
        return np.where(fixed, 0.0, np.clip(floor + (a >= 0), -grid.highest, grid.highest))

    def error(integers: np.ndarray) -> float:
        made = activation(inputs @ (integers * steps).transpose(0, 2, 1) + bias[:, None])
        return float(np.mean(np.square(made - outputs, dtype=np.float64)))

    scale = float(np.mean(np.square(outputs - outputs.mean(1, keepdims=True)))) or 1.0
    best = np.where(fixed, 0.0, start)
    trace = [error(best)]
    lowest, every = trace[0], max(1, iterations // _LOOKS)
    last, still = best, 0
    samples = inputs.shape[1]
    for done in range(1, iterations + 1):
        rows = random.integers(0, samples, min(_ROWS, samples))
        x, y = inputs[:, rows], outputs[:, rows]
        sigmoid = 1 / (1 + np.exp(-state))
        stretched = sigmoid * (_HIGH - _LOW) + _LOW
        h = np.clip(stretched, 0.0, 1.0)
        soft = floor + h
        inside = (soft >= -grid.highest) & (soft <= grid.highest) & ~fixed
        values = np.where(fixed, 0.0, np.clip(soft, -grid.highest, grid.highest) * steps).astype(np.float32)
        raw = x @ values.transpose(0, 2, 1) + bias[:, None].astype(np.float32)
        made = activation(raw)
        passed = (raw >= activation.low) & (raw <= activation.high)
        pulled = (made - y) * passed * (2 / (scale * x.shape[1]))
        gradient = (pulled.transpose(0, 2, 1) @ x) * wide * inside
        warm = _WARM_UP * iterations
        if done > warm:
            past = (done - warm) / (iterations - warm)
            exponent = _EXPONENTS[1] + (_EXPONENTS[0] - _EXPONENTS[1]) * 0.5 * (1 + np.cos(past * np.pi))
            around = 2 * h - 1
            gradient -= _PENALTY * 2 * exponent * np.sign(around) * np.abs(around) ** (exponent - 1)
        gradient *= (sigmoid * (1 - sigmoid)) * (_HIGH - _LOW) * ((stretched > 0) & (stretched < 1))
        moment += 0.1 * (gradient - moment)
        spread += 0.001 * (np.square(gradient) - spread)
        state -= _RATE * (moment / (1 - 0.9**done)) / (np.sqrt(spread / (1 - 0.999**done)) + 1e-8)
        if done % every == 0:
            told(done)
            integers = hard(state)
            trace.append(error(integers))
            if trace[-1] < lowest:
                best, lowest = integers, trace[-1]
            last, still = integers, still + 1 if np.array_equal(integers, last) else 0
            if done > iterations / 2 and still >= _STILL:
                break
    return Learned(best, tuple(trace))
