"""A layer in front of a softmax, and what it gets and should give, go in; integers by what the softmax heeds come out.

An error of a logit moves the cross-entropy by its square times p (1 - p) / 2, p what the softmax makes of it: the
diagonal of the Hessian. So a unit's weights have to be right where it is in question, and hardly matter elsewhere. Each
unit has a covariance of its own, of inputs that count so much; they are made a few at a time.
"""

from __future__ import annotations

import numpy as np

from edgeopt.data import Part
from edgeopt.errors import DataError
from edgeopt.rounding.evidence import Rows
from edgeopt.rounding.fitting import Rounded, choose
from edgeopt.rounding.gptq import DAMPING
from edgeopt.rounding.grid import Grid
from edgeopt.rounding.moments import shifted
from edgeopt.tasks import finding
from edgeopt.tflite.model import Operator, TFLiteModel

_TASK, _SOFTMAX = "language", "SOFTMAX"
# Of the mean count of a unit, added everywhere: most units of a vocabulary are in question too seldom to fit by alone.
_EVERYWHERE = 1.0
# Inputs that covariances are made of, and what all of them may take to make, in multiply-adds.
_ROWS, _LEAST_ROWS, _MOST_MACS = 8192, 512, 1e12
# Of the covariances that are held at once.
_HELD_BYTES = 64 << 20


def counts(logits: np.ndarray) -> np.ndarray:
    """Returns how much the squared error of each logit counts, p (1 - p), of [..., units]."""
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    odds /= odds.sum(-1, keepdims=True)
    found: np.ndarray = odds * (1 - odds)
    return found


def speaks(model: TFLiteModel, samples: Part, *, said: str | None = None) -> bool:
    """Whether the one output of a float file says at each step what follows.

    Of a classifier, which is in doubt of few samples, no unit's covariance can be told from those: it gets no better.

    Args:
        model: the file.
        samples: whose labels tell what it is for; without labels nobody knows.
        said: a key of TASKS, where a person told.
    """
    if said is not None or len(model.outputs) != 1:
        return said == _TASK
    batch = next(samples.batches(1))
    if batch.labels is None:
        return False
    shape = (1, *(size or 1 for size in model.outputs[0].shape[1:]))
    try:
        return finding.found(np.zeros(shape), batch, classes=samples.classes).name == _TASK
    except DataError:
        return False


def probabilities(model: TFLiteModel) -> bool:
    """Whether a softmax is in the file already."""
    return model.main.operators[-1].name == _SOFTMAX


def behind(model: TFLiteModel, operator: Operator) -> bool:
    """Whether what an operator of a float file's main graph writes is its output, but for a softmax at most."""
    graph, last = model.main, operator.outputs[0]
    while last not in graph.outputs:
        readers = [one for one in graph.operators if last in one.inputs]
        if len(readers) != 1 or readers[0].name not in ("RESHAPE", _SOFTMAX):
            return False
        last = readers[0].outputs[0]
    return operator.options.get("fused_activation_function", "NONE") == "NONE"


def affordable(units: int, columns: int) -> bool:
    """Whether so many units may have a covariance each."""
    return units * float(columns) ** 2 * _LEAST_ROWS <= _MOST_MACS


def fit(
    weights: np.ndarray,
    rows: Rows,
    grid: Grid,
    *,
    method: str,
    zeros: np.ndarray | None = None,
    block: int = 0,
    by_activations: bool = True,
) -> Rounded:
    """Returns a layer's weights as integers; see `fitting.fit`.

    Args:
        weights: of the float layer, [1, units, columns]; `affordable`.
        rows: what arrives, and the logits that should come of it.
        grid, zeros, block, by_activations: see `fitting.fit`.
        method: "gptq" or "nearest".
    """
    units, columns = weights.shape[1:]
    most = min(_ROWS, int(_MOST_MACS / (units * float(columns) ** 2)))
    every = max(1, -(-rows.arrived.shape[1] // most))
    arrived, wanted = rows.arrived[0, ::every], rows.wanted[0, ::every]
    heed = counts(wanted)
    heed += _EVERYWHERE * heed.mean(0) + np.finfo(np.float32).tiny
    heed /= heed.sum(0)
    at_once = max(1, _HELD_BYTES // (8 * columns**2))
    pieces = [slice(start, start + at_once) for start in range(0, units, at_once)]
    made = [
        _fitted(
            weights[0, piece],
            arrived,
            wanted[:, piece],
            heed[:, piece],
            grid,
            method=method,
            zeros=None if zeros is None else zeros[0, piece],
            block=block,
            by_activations=by_activations,
        )
        for piece in pieces
    ]
    integers, steps, biases = (np.concatenate(each)[None] for each in zip(*made))
    return Rounded(integers, steps, (biases,))


def _fitted(
    weights: np.ndarray,
    arrived: np.ndarray,
    wanted: np.ndarray,
    heed: np.ndarray,
    grid: Grid,
    *,
    method: str,
    zeros: np.ndarray | None,
    block: int,
    by_activations: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns integers, steps and biases of some units: each is a group of its own, with one row.

    Args:
        weights: [units, columns].
        arrived: [rows, columns].
        wanted, heed: [rows, units]; what a unit heeds adds up to 1.
        zeros: [units, columns].
    """
    mean = (heed.T @ arrived).astype(np.float64)
    hessian = np.stack([(arrived * each[:, None]).T @ arrived for each in heed.T]).astype(np.float64)
    hessian -= mean[:, :, None] * mean[:, None]
    middle = np.einsum("nu,nu->u", heed, wanted, dtype=np.float64)
    crossed = ((heed * wanted).T @ arrived).astype(np.float64) - middle[:, None] * mean
    real, none = weights[:, None], None if zeros is None else zeros[:, None]
    aimed = shifted(real, hessian, crossed[:, None] - real @ hessian, damping=DAMPING)
    integers, steps = choose(
        aimed if none is None else np.where(none, 0.0, aimed),
        hessian,
        grid,
        method=method,
        zeros=none,
        block=block,
        by_activations=by_activations,
    )
    values = (integers * steps)[:, 0]
    return integers[:, 0], steps[:, 0], middle - np.einsum("uk,uk->u", values, mean)
