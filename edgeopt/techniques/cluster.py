"""Weight clustering: a float model goes in, the same architecture with few distinct weights comes out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.choices import Range, option
from edgeopt.errors import ConfigError, setting
from edgeopt.prospects import PRUNABLE, ModelFacts, Prospect
from edgeopt.steps import Step, TrainedStep
from edgeopt.techniques.contract import Carried, Technique
from edgeopt.vocabulary import LayerChange, Promise, Property, Scheme, StepRecord, StoredWeight

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.formats.contract import FileFacts
    from edgeopt.techniques.cluster_values import Goal

# Kinds whose output channels are not the kernel's last axis: depthwise kernels have [..., inputs, multiplier],
# transposed ones [..., outputs, inputs].
_CHANNEL_AXES = {"depthwise_kernel": (-2, -1), "transposed": (-2,)}
# int8 weights are -127 to 127 in the file.
_INT8_VALUES = 255
# Binary and ternary weights: so few that the first and the last layer are spared.
_FEW = 3
_IN_THE_LAYER, _IN_A_CHANNEL = "distinct weights", "distinct weights in a channel"


@dataclass(frozen=True, kw_only=True)
class Cluster(TrainedStep):
    """What may be said about clustering."""

    technique: ClassVar[str] = "cluster"

    clusters: int = option(16, "Distinct weights in a layer.", low=2, high=256, hint="16", tried=Range(4, 64, log=True))
    initialization: str = option(
        "kmeans++", "Where the shared values start.", choices=("linear", "random", "density", "kmeans++")
    )
    per_channel: bool = option(False, "So many for each output channel, not for the layer.", tried=(False, True))
    symmetric: bool = option(
        False, "Each value with its negative: 2 are binary weights (XNOR-Net), 3 with zero ternary ones (TWN)."
    )
    layers: tuple[str, ...] = option((), "Only these: names, kinds (Conv2D) or globs.", metavar="NAME")
    spare: tuple[str, ...] = option((), "All but these: names, kinds or globs.", metavar="NAME")


def apply(step: Cluster, model: Any, data: Dataset, carried: Carried) -> tuple[Any, StepRecord]:
    """Returns a copy of `model` whose weights share a few values, trained with them, and what was done.

    Raises:
        ConfigError: a layer that was named is not there, none can be clustered, or a sparse model would be binary.
    """
    from edgeopt import graph
    from edgeopt.techniques.cluster_values import Clusterer
    from edgeopt.techniques.recovery import recover

    start = time.perf_counter()
    sparse = Property.SPARSE in carried.properties
    if sparse and step.clusters == 2:
        raise ConfigError(
            "Expected at least 3 clusters for a pruned model, whose zeros are one of them, got 2. "
            f"Try {setting('clusters', 3)}."
        )
    clustered = graph.flatten(model)
    goals, changes = _goals(step, clustered, sparse)
    done = recover(
        step,
        clustered,
        data,
        carried,
        before=model,
        what="clustering",
        callbacks=[Clusterer(goals, step.initialization, carried.seed)],
    )
    notes = done.notes
    if step.clusters <= _FEW:
        kind, bits = ("binary", "1 bit") if step.clusters == 2 else ("ternary", "2 bits")
        notes = (
            *notes,
            f"weights are {kind}: no runtime here computes with them faster; they take {bits} each once packed, and "
            "fewer once zipped",
        )
    record = StepRecord(
        technique=step.technique,
        settings=step.said(),
        layers=changes,
        promises=tuple(_measured_in_model(goal, clustered) for goal in goals),
        history=done.history,
        seconds=time.perf_counter() - start,
        notes=notes,
    )
    return clustered, record


def check(step: Cluster, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the record's promises with the distinct weights counted in the file.

    A BatchNormalization that was folded and the scales of int8 multiply each output channel by a number of its own:
    there a layer's values are counted channel by channel. Where the tensor of a kernel cannot be told, the promise
    rests on every weight of the file.
    """
    from edgeopt.techniques import in_file

    sought = [in_file.Sought(promise.subject, int(promise.of or 0)) for promise in record.promises]
    found, everything = in_file.find(file, sought)
    return tuple(
        _measured_in_file(promise, tensor, everything, file) for promise, tensor in zip(record.promises, found)
    )


def _measured_in_file(
    promise: Promise, tensor: StoredWeight | None, everything: Sequence[StoredWeight], file: FileFacts
) -> Promise:
    candidates = everything if tensor is None else (tensor,)
    stored = [values for t in candidates if (values := file.values(t)) is not None]
    counts = [_distinct(values.reshape(len(values), -1)) for values in stored]
    if not counts:
        return replace(promise, measured=None, kept=None, note="its tensor is encoded as sparse: not counted")
    in_layer, in_channel = (max(each) for each in zip(*counts))
    if tensor is None:
        promise = replace(promise, kind=_IN_A_CHANNEL)
        return promise.found(in_channel, note="its tensor cannot be told in the file: counted in all weights")
    if promise.kind == _IN_THE_LAYER and tensor.scales > 1:
        note = f"each channel has a scale of its own, which makes them {in_layer:,} in the layer"
        return replace(promise, kind=_IN_A_CHANNEL).found(in_channel, note=note)
    return promise.found(in_layer if promise.kind == _IN_THE_LAYER else in_channel)


def predict(step: Cluster, facts: ModelFacts) -> Prospect:
    """Returns what clustering will bring, and what it will not."""
    share = facts.share(*PRUNABLE)
    if not share and not step.layers:
        return Prospect(
            "none", "only depthwise kernels, which bear few clusters: name the layers to cluster them", possible=False
        )
    bits = math.log2(step.clusters)
    left = 1 - share * (1 - min(8.0, bits) / 8)
    where = " of the layers that it takes" if step.layers or step.spare else ""
    gain = f"{step.clusters} clusters: the gzipped int8 weights{where} shrink to about {left:.0%}"
    reasons = [
        "gains only when compressed, or on microcontrollers with TFLM's look-up tables: the file stays as large, and "
        "LiteRT multiplies with every weight",
        f"{bits:.3g} bit{'s' if bits > 1 else ''} a weight at best: int8 scales every channel by itself, which spreads "
        "a layer's values (a ResNet-8 of 16 clusters came to 74%)",
    ]
    if depthwise := facts.share("depthwise"):
        reasons.append(f"depthwise kernels ({depthwise:.1%} of the weights) are clustered where named alone")
    if step.clusters <= _FEW:
        reasons.append(
            f"{'binary' if step.clusters == 2 else 'ternary'} weights cost points of accuracy on small models, with "
            "the first and the last layer spared, too, and no runtime here computes with them faster: they are for "
            "flash and downloads alone"
        )
    return Prospect(gain, "; ".join(reasons))


def remarks(step: Cluster, earlier: Sequence[Step], schemes: Sequence[Scheme]) -> Iterator[str]:
    """Yields what of a step is pointless."""
    integer = [scheme.name for scheme in schemes if scheme.weights == "int8"]
    if step.clusters >= _INT8_VALUES and integer:
        yield f"{', '.join(integer)} knows {_INT8_VALUES} weights anyway; 16 or 32 clusters compress"
    if any(isinstance(other, Cluster) and other.clusters <= step.clusters for other in earlier):
        yield f"an earlier step asks for as few values as its {step.clusters}, or fewer"


def _measured_in_model(goal: Goal, model: Any) -> Promise:
    import numpy as np

    values = goal.kernel.numpy()
    axes = goal.channel_axes
    rows = np.moveaxis(values, axes, range(len(axes))) if axes else values[None]
    groups = int(np.prod(rows.shape[: len(axes) or 1]))
    _, distinct = _distinct(rows.reshape(groups, -1))
    folded = bool(axes) or _is_scaled(goal.kernel, model)
    kind = _IN_A_CHANNEL if folded else _IN_THE_LAYER
    promise = Promise(kind, goal.kernel.name.split(":")[0], limit=goal.clusters, of=values.size, unit="weights")
    return promise.found(distinct, note="in the Keras model")


def _distinct(rows: Any) -> tuple[int, int]:
    """Returns how many distinct values are in all rows, and the most in one."""
    import numpy as np

    return len(np.unique(rows)), max(len(np.unique(row)) for row in rows)


def _is_scaled(kernel: Any, model: Any) -> bool:
    """Whether something after the kernel's layer multiplies its channels, so that the converter may fold it."""
    from edgeopt import graph

    calls = graph.own_calls(model)
    outputs = {id(tensor) for call in calls if any(w is kernel for w in call.layer.weights) for tensor in call.outputs}
    followers = {
        type(call.layer).__name__
        for call in calls
        if any(id(leaf) in outputs for leaf in graph.leaves((call.args, dict(call.kwargs))))
    }
    return bool(followers & {"BatchNormalization", "SyncBatchNormalization", "Multiply", "TFOpLambda", "Rescaling"})


def _goals(step: Cluster, model: Any, sparse: bool) -> tuple[tuple[Goal, ...], tuple[LayerChange, ...]]:
    """Returns the goal of each kernel and what becomes of each layer.

    Raises:
        ConfigError: no layer can be clustered.
    """
    from edgeopt.techniques.cluster_values import Goal
    from edgeopt.techniques.selection import is_named, kernel_name, kernels, select_layers

    asked = {id(layer) for layer in select_layers(model, step.layers, step.spare)}
    ends = _ends(model) if step.clusters <= _FEW else frozenset()
    goals: list[Goal] = []
    changes = []
    for layer in select_layers(model):
        named = is_named(layer, step.layers)
        found = kernels(layer)
        if not found and not (named and id(layer) in asked):
            continue
        taken = [kernel for kernel in found if named or kernel_name(kernel) != "depthwise_kernel"]
        reason = _why_not(step, layer, found, taken, id(layer) in asked)
        if not reason and layer.name in ends and not named:
            reason = f"the first and the last layer bear no {step.clusters} values: name the layer to cluster it"
        if not reason:
            own = [
                Goal(kernel, step.clusters, _channel_axes(step, layer, kernel), sparse, step.symmetric)
                for kernel in taken
            ]
            own = [goal for goal in own if _group_size(goal) > step.clusters]
            goals += own
            if not own:
                sizes = ", ".join(str(int(kernel.shape.num_elements())) for kernel in taken)
                each = "a channel of it" if step.per_channel else "it"
                reason = f"{each} has no more weights than {step.clusters} clusters ({sizes} in all)"
        words = (
            "" if reason else f"{step.clusters} values {'in each channel' if own[0].channel_axes else 'in the layer'}"
        )
        changes.append(LayerChange(layer.name, type(layer).__name__, done=words, reason=reason))
    if not goals:
        reasons = sorted({change.reason for change in changes}) or ["it has no layers with kernels"]
        raise ConfigError(f"Expected a model with layers to cluster, got none: {'; '.join(reasons)}.")
    return tuple(goals), tuple(changes)


def _ends(model: Any) -> frozenset[str]:
    """Returns the names of the first and the last layer with kernels."""
    from edgeopt.techniques.selection import kernels, select_layers

    names = [layer.name for layer in select_layers(model) if kernels(layer)]
    return frozenset((*names[:1], *names[-1:]))


def _why_not(step: Cluster, layer: Any, found: list[Any], taken: list[Any], asked: bool) -> str:
    from edgeopt.techniques.selection import is_named

    if not asked:
        return "it was not asked for" if step.layers and not is_named(layer, step.spare) else "it is spared"
    if not found:
        return "it has no kernels"
    if not taken:
        return "depthwise kernels are few and fragile: tfmot leaves them out; name the layer or its kind to cluster it"
    return ""


def _channel_axes(step: Cluster, layer: Any, kernel: Any) -> tuple[int, ...]:
    from edgeopt.techniques.selection import kernel_name

    if not step.per_channel or kernel_name(kernel) == "embeddings":
        return ()
    kind = "transposed" if "Transpose" in type(layer).__name__ else kernel_name(kernel)
    return _CHANNEL_AXES.get(kind, (-1,))


def _group_size(goal: Goal) -> int:
    groups = math.prod(goal.kernel.shape[axis] for axis in goal.channel_axes)
    return int(goal.kernel.shape.num_elements()) // groups


TECHNIQUE = Technique(
    "cluster",
    "Let weights share a few values, so that files compress.",
    Cluster,
    apply,
    check,
    predict,
    typical=Cluster(),
    ensures=frozenset({Property.CLUSTERED}),
    keeps=frozenset({Property.SPARSE, Property.CLUSTERED}),
    variants={
        frozenset({Property.SPARSE}): "sparsity-preserving",
        frozenset({Property.SPARSE, Property.CLUSTERED}): "sparsity-preserving",
    },
    remarks=remarks,
)
