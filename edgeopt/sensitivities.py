"""A model and samples go in; what it loses when one layer alone is in int8, or has zeros, comes out.

One layer is changed at a time, and the whole model answers the same samples again: nothing is trained, so this says
which layers to spare and not what a recovery brings back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import data as datasets
from edgeopt import graph, metrics, progress
from edgeopt.errors import ConfigError, DataError, ModelError
from edgeopt.tasks.finding import metric_of
from edgeopt.vocabulary import MetricValue

if TYPE_CHECKING:
    from edgeopt.data import Dataset, Part

INT8 = "int8"
SPARSITIES = (0.5, 0.8, 0.9)
SAMPLES = 500
# Below this a layer is worth sparing: the noise is more than a tenth of the signal.
BAD_DB = 20.0
_BATCH = 64


@dataclass(frozen=True)
class Loss:
    """What one change costs.

    Attributes:
        sqnr_db: of the model's outputs, 10 log10(variance / squared difference): infinite where they are equal, 20
            where the noise is a tenth of the signal, 0 where nothing is left.
        drop: how much worse the metric is: points for shares, per cent otherwise; None without a metric.
    """

    sqnr_db: float
    drop: float | None = None


@dataclass(frozen=True)
class LayerLosses:
    """What the model loses by one of its layers.

    Attributes:
        layer, kind: its name and class.
        weights: how many numbers its kernels hold, 0 for a layer that only hands on.
        losses: "int8" (its weights and what it hands on, whichever an integer file rounds) and the share of its
            smallest weights that are zero, "50%", to the loss; what does not apply is not there.
    """

    layer: str
    kind: str
    weights: int
    losses: Mapping[str, Loss]


@dataclass(frozen=True)
class Sensitivity:
    """What a model loses by each of its layers.

    Attributes:
        samples: that were asked about.
        metric: of the float model on them; None without labels.
        changes: the keys of the losses, in order.
        layers: in the order they are called.
    """

    samples: int
    metric: MetricValue | None
    changes: tuple[str, ...]
    layers: tuple[LayerLosses, ...]

    def worst(self, change: str) -> LayerLosses | None:
        """Returns the layer that loses most by a change, None where none has it."""
        those = [layer for layer in self.layers if change in layer.losses]
        return min(those, key=lambda layer: layer.losses[change].sqnr_db, default=None)


def measure(
    path: Path,
    data: Dataset,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    samples: int = SAMPLES,
    metric: str | None = None,
    seed: int = 0,
    custom_objects: Path | None = None,
    trust: bool = False,
) -> Sensitivity:
    """Measures every layer of the model at `path`, in this process.

    Args:
        path: a Keras model.
        data: its calibration part sets int8's ranges, its validation part is asked about; labels only for the metric.
        sparsities: shares of a layer's weights that become zero.
        samples: how many of the validation part.
        metric: see `metrics.metric`; chosen from outputs and labels when None.
        seed: of the choice of samples.
        custom_objects, trust: see `loading.load_model`.

    Raises:
        ConfigError: a sparsity is not between 0 and 1.
        DataError: there are no samples.
        ModelError: the model cannot be brought to tf_keras.
    """
    from edgeopt.loading import load_model

    for sparsity in sparsities:
        if not 0 < sparsity < 1:
            raise ConfigError(f"Expected sparsities between 0 and 1, got {sparsity:g}. Try --sparsity 0.5.")
    loaded = load_model(path, custom_objects=custom_objects, trust=trust)
    if loaded.keras is None:
        raise ModelError(
            f"Expected a model whose layers can be changed one by one, got {path} ({loaded.why_closed}). Try its "
            ".keras file, or edgeopt compare of its float and its int8 file."
        )
    model = graph.flatten(loaded.keras)
    asked = _Asked(model, datasets.bind(data.validation, loaded.inputs).take(samples, seed=seed), metric)
    changes = {
        **_rounded(model, datasets.bind(data.calibration, loaded.inputs)),
        **_thinned(model, asked.run, sparsities),
    }
    layers = {call.layer.name: call.layer for call in graph.own_calls(model)}
    found: dict[str, dict[str, Loss]] = {name: {} for name in layers}
    for (name, change), (run, changed) in progress.track(changes.items(), "measuring sensitivity", len(changes)):
        with changed():
            found[name][change] = asked.loss(run)
    return Sensitivity(
        asked.samples,
        asked.value,
        tuple(dict.fromkeys(change for _, change in changes)),
        tuple(
            LayerLosses(name, type(layers[name]).__name__, _weights(layers[name]), losses)
            for name, losses in found.items()
            if losses
        ),
    )


# --- answers ----------------------------------------------------------------------------------------------------------

# What answers a batch: tensors, one for each input, to the outputs.
_Run = Callable[..., Sequence[Any]]
_Changes = dict[tuple[str, str], tuple[_Run, Callable[[], AbstractContextManager[None]]]]


class _Asked:
    """Samples and what the float model answers; compares what a changed one answers."""

    def __init__(self, model: Any, part: Part, metric: str | None) -> None:
        from edgeopt.frameworks import load

        if not len(part):
            raise DataError("Expected samples to ask the model about, got none. Try data with a test split.")
        tf = load("tensorflow")
        names = [spec.name for spec in graph.input_specs(model)]
        self._batches = [[tf.constant(b.inputs[name]) for name in names] for b in part.batches(_BATCH)]
        self._everything = part.arrays()
        self.run = _calling(model)
        self._reference = self._answers(self.run)
        self._metric = self._chosen(metric) if part.has_labels or metric else None
        self._rows = None if self._metric is None else self._scored(self._reference)
        self.samples = len(part)
        self.value = None if self._metric is None or self._rows is None else self._metric.value(self._rows)

    def loss(self, run: _Run) -> Loss:
        """Returns how the answers of `run` differ."""
        from edgeopt.techniques.prune_sensitivity import moved

        answers = self._answers(run)
        drop = None
        if self._metric is not None and self._rows is not None:
            drop = self._metric.difference(self._rows, self._scored(answers)).value
        noise = moved(self._reference, answers)
        return Loss(-10 * math.log10(noise) if noise else math.inf, drop)

    def _answers(self, run: _Run) -> list[np.ndarray]:
        parts = [[np.asarray(output) for output in run(*batch)] for batch in self._batches]
        return [np.concatenate(each) for each in zip(*parts)]

    def _chosen(self, metric: str | None) -> metrics.Metric | None:
        # Labels say nothing of which of several outputs they are for.
        if len(self._reference) > 1:
            return None
        return metrics.metric(metric or metric_of(self._reference[0], self._everything))

    def _scored(self, answers: Sequence[np.ndarray]) -> metrics.Rows:
        assert self._metric is not None
        return self._metric.settle(*self._metric.per_sample(answers[0], self._everything))


def _calling(model: Any) -> _Run:
    from edgeopt.frameworks import load

    def call(*inputs: Any) -> list[Any]:
        return graph.leaves(model(graph.structured_inputs(model, inputs), training=False))

    function: _Run = load("tensorflow").function(call, reduce_retracing=True)
    return function


# --- changes ----------------------------------------------------------------------------------------------------------


def _rounded(model: Any, calibration: Part) -> _Changes:
    """Returns for each layer that an integer file rounds: what computes the model, and what turns it on."""
    from edgeopt.fake_quantization import Switched, prepare
    from edgeopt.frameworks import load
    from edgeopt.techniques.samples import input_batches

    switched = Switched(prepare(model, input_batches(model, calibration)).model)
    run = load("tensorflow").function(switched, reduce_retracing=True)
    names = list(dict.fromkeys(call.layer.name for call in graph.own_calls(model)))
    inputs = {name for name, _ in graph.input_names(model)}
    found: dict[str, list[Any]] = {}
    for name, switch in switched.switches.items():
        owner = _owner(name, names)
        if owner is not None and owner not in inputs:
            found.setdefault(owner, []).append(switch)
    return {(name, INT8): (run, partial(_turned_on, found[name])) for name in names if name in found}


def _owner(name: str, names: Sequence[str]) -> str | None:
    """Returns the layer that a rounding belongs to: a second call, or a split activation, is numbered or named so."""
    if name in names:
        return name
    return max((one for one in names if name.startswith(f"{one}_")), key=len, default=None)


@contextmanager
def _turned_on(switches: Sequence[Any]) -> Iterator[None]:
    for switch in switches:
        switch.assign(1.0)
    try:
        yield
    finally:
        for switch in switches:
            switch.assign(0.0)


def _thinned(model: Any, run: _Run, sparsities: Sequence[float]) -> _Changes:
    """Returns for each layer with kernels and each sparsity: the model, and what sets the smallest weights to zero."""
    from edgeopt.techniques.prune_sensitivity import pruned
    from edgeopt.techniques.selection import kernels, select_layers

    return {
        (layer.name, f"{100 * sparsity:g}%"): (run, partial(pruned, kernels(layer), sparsity))
        for layer in select_layers(model)
        if kernels(layer)
        for sparsity in sparsities
    }


def _weights(layer: Any) -> int:
    from edgeopt.techniques.selection import kernels

    return sum(int(kernel.shape.num_elements()) for kernel in kernels(layer)) if hasattr(layer, "weights") else 0
