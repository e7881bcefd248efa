"""The float weights of a layer and what samples say of it go in; integers, steps and biases come out, and how good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.rounding.adaround import Activation, learn
from edgeopt.rounding.evidence import Evidence, Rows, joined
from edgeopt.rounding.gptq import DAMPING, block_steps, round_rows
from edgeopt.rounding.grid import Grid
from edgeopt.rounding.moments import target

METHODS = ("gptq", "adaround", "nearest")


@dataclass(frozen=True)
class Use:
    """One layer that computes with the weights: its bias [groups, rows] and what follows it."""

    bias: np.ndarray
    activation: Activation


@dataclass(frozen=True)
class Rounded:
    """Weights on their grid.

    Attributes:
        integers: as floats, [groups, rows, columns].
        steps: [groups, rows, 1 or columns].
        biases: of each use, [groups, rows].
        trace: errors while it was learned; empty where nothing was.
    """

    integers: np.ndarray
    steps: np.ndarray
    biases: tuple[np.ndarray, ...]
    trace: tuple[float, ...] = ()

    @property
    def values(self) -> np.ndarray:
        """What the integers stand for."""
        return self.integers * self.steps


def fit(
    weights: np.ndarray,
    uses: Sequence[Use],
    evidence: Sequence[Evidence],
    grid: Grid,
    *,
    method: str,
    together: bool = False,
    zeros: np.ndarray | None = None,
    block: int = 0,
    by_activations: bool = True,
    alike: bool = False,
    iterations: int,
    seed: int,
    told: Callable[[int], None] = lambda done: None,
) -> Rounded:
    """Returns a layer's weights as integers, chosen by what the layer computes.

    Args:
        weights: of the float layer, [groups, rows, columns].
        uses: the layers that compute with them.
        evidence: of each use.
        grid: the integers that there are.
        method: one of METHODS.
        together: all rows have to share one step.
        zeros: which weights have to stay exactly 0.
        block: columns that share a step; 0 where all of a row do.
        by_activations: see `gptq.round_rows`.
        alike: weights that are equal have to stay so: each becomes its nearest integer, and makes up for nothing.
        iterations, seed, told: see `adaround.learn`.
    """
    hessian = np.sum([one.moments.hessian() for one in evidence], 0)
    covariance = np.sum([one.moments.covariance() for one in evidence], 0)
    method = "nearest" if alike else method
    wanted = weights if alike else target(weights, hessian, covariance, damping=DAMPING)
    if zeros is not None:
        wanted = np.where(zeros, 0.0, wanted)
    integers, steps = choose(
        wanted,
        hessian,
        grid,
        method=method,
        together=together,
        zeros=zeros,
        block=block,
        by_activations=by_activations,
    )
    trace: tuple[float, ...] = ()
    if method == "adaround":
        use, rows = uses[0], joined([row for one in evidence for row in one.fitted])
        bias = use.bias + evidence[0].moments.offset(weights, integers * steps)
        learned = learn(
            wanted,
            integers,
            bias,
            steps,
            rows.arrived,
            rows.wanted,
            grid,
            activation=use.activation,
            zeros=zeros,
            iterations=iterations,
            seed=seed,
            told=told,
        )
        integers, trace = learned.integers, learned.errors
    offsets = [one.moments.offset(weights, integers * steps) for one in evidence]
    return Rounded(integers, steps, tuple(use.bias + offset for use, offset in zip(uses, offsets)), trace)


def choose(
    weights: np.ndarray,
    hessian: np.ndarray,
    grid: Grid,
    *,
    method: str,
    together: bool = False,
    zeros: np.ndarray | None = None,
    block: int = 0,
    by_activations: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns integers and steps of weights; see `fit`.

    Of "nearest" each weight is its nearest integer: the steps alone are chosen by what the layer computes.
    """
    if method != "nearest":
        fixed = block_steps(weights, hessian, grid, block) if block else None
        return round_rows(
            weights, hessian, grid, steps=fixed, zeros=zeros, together=together, by_activations=by_activations
        )
    if block:
        steps = block_steps(weights, hessian, grid, block, jointly=True)
        return grid.nearest(weights, steps), steps
    # A diagonal Hessian has nothing to make up for: what is left is the choice of steps.
    diagonal = np.einsum("gkk->gk", hessian)[:, None, :] * np.eye(hessian.shape[-1])
    return round_rows(weights, diagonal, grid, zeros=zeros, together=together)


def error(
    values: np.ndarray,
    biases: Sequence[np.ndarray],
    uses: Sequence[Use],
    held: Sequence[Sequence[Rows]],
    heed: Callable[[np.ndarray], np.ndarray] | None = None,
) -> float:
    """Returns the squared error of the outputs as a share of their variance, over all uses.

    Args:
        heed: gives how much each of some outputs counts; where None all do alike.
    """
    off = spread = 0.0
    turned = values.transpose(0, 2, 1).astype(np.float32)
    for bias, use, pieces in zip(biases, uses, held):
        for rows in pieces:
            made = use.activation(rows.arrived @ turned + bias[:, None])
            counted = 1.0 if heed is None else heed(rows.wanted)
            off += float(np.sum(counted * np.square(made - rows.wanted), dtype=np.float64))
            apart = np.square(rows.wanted - rows.wanted.mean(1, keepdims=True))
            spread += float(np.sum(counted * apart, dtype=np.float64))
    return off / spread if spread else off
