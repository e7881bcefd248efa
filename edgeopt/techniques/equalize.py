"""Cross-layer equalization: a model goes in; the same function with channels alike in range comes out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt import progress
from edgeopt.choices import option
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import Step
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.vocabulary import LayerChange, Promise, Property, Scheme, StepRecord, StoredWeight

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.equalizing import Absorbed, Clips, Pair, Scaling
    from edgeopt.formats.contract import FileFacts

# Samples that outputs are compared on.
COMPARED = 256
# How far the outputs of the same function may lie apart in float32, as a share of their range.
SAME = 1e-4
# A typical channel has so many bits fewer than its layer, or more, where one scale for all of it begins to hurt.
_UNEVEN_BITS = 1.0
# From here on the values between layers differ so much that no scheme holds them: they have one scale a layer in all.
_RUINOUS_BITS = 3.0
# A kernel whose channels moved by less is not worth a promise.
_BETTER = 0.99
# Rounding in float32, and to integers.
_FLOAT_SLACK, _INTEGER_SLACK = 0.02, 0.25

_OUTPUTS = "relative difference of the outputs"
_CLIPPED = "change of the outputs by ReLU in place of clipping"
_UNEVEN = "largest weight over a typical channel's"


@dataclass(frozen=True, kw_only=True)
class Equalize(Step):
    """What may be said about equalizing."""

    technique: ClassVar[str] = "equalize"

    clip_change: float = option(
        0.02,
        "Take ReLU6 for ReLU where the outputs of the calibration samples move by no more than this share of their "
        "spread; 0 keeps each that clips any of them.",
        low=0.0,
        high=1.0,
    )
    absorb: bool = option(True, "Move what channels never fall below on into the biases of the next layers.")


def apply(step: Equalize, model: Any, data: Dataset, carried: Carried) -> tuple[Any, StepRecord]:
    """Scales channels, layer by layer, until both of a pair have an even share of their ranges; see contract.Apply."""
    from edgeopt import graph, keras_bridge
    from edgeopt.equalizing import Scaling, absorb, answers, judged, prepared, solve, unevenness
    from edgeopt.techniques.samples import some_inputs

    start = time.perf_counter()
    inputs = some_inputs(model, data.calibration, COMPARED, seed=carried.seed)
    progress.tell("looking for activations that clip")
    clips = judged(graph.flatten(model), inputs, step.clip_change)
    ready = prepared(model, clips.harmless)
    before = answers(ready, inputs)
    scaling = Scaling(ready)
    progress.tell("equalizing channels")
    solution = solve(scaling.kernels, scaling.units)
    even = solution.scales * 0 + 1
    changes = [(k, unevenness(k, even), unevenness(k, solution.scales)) for k in scaling.kernels]
    scaling.apply(solution.scales)
    absorbed = absorb(scaling, inputs) if step.absorb else ()
    after = answers(ready, inputs)
    apart = max(keras_bridge.relative_difference(one, other) for one, other in zip(before, after))
    promises = [Promise(_OUTPUTS, limit=SAME).found(apart, note=f"{len(inputs[0])} calibration samples")]
    if clips.harmless:
        promises.append(Promise(_CLIPPED, limit=step.clip_change).found(clips.moved, note=_counted(clips)))
    promises += [
        Promise(_UNEVEN, f"{kernel.layer}/{kernel.attribute}", limit=now, of=was)
        for kernel, was, now in changes
        if now < _BETTER * was
    ]
    notes = [*_clip_notes(clips), *_absorbed_notes(absorbed)]
    if not scaling.units:
        notes.append("nothing was scaled: no two layers share channels that keep a scale")
    if not solution.settled:
        notes.append(f"ranges had not settled after {solution.sweeps} sweeps")
    record = StepRecord(
        step.technique,
        step.said(),
        layers=tuple(_layers(scaling, changes, scaling.left())),
        promises=tuple(promises),
        seconds=time.perf_counter() - start,
        notes=tuple(notes),
    )
    return ready, record


def check(step: Equalize, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the promises with the evenness of channels as stored; what outputs do was measured on the samples.

    A file with a scale for each channel does not show in its integers how large they are.
    """
    found = []
    for promise in record.promises:
        if promise.kind == _UNEVEN and (stored := _stored(file, promise.subject.split("/")[0])) is not None:
            found.append(_measured(promise, file, stored))
        else:
            found.append(promise)
    return tuple(found)


def predict(step: Equalize, facts: ModelFacts) -> Prospect:
    """Returns what the step will bring, before any data is seen."""
    known = [weight.unevenness for weight in facts.weights if weight.unevenness is not None]
    if len(known) < 2:
        return Prospect("none", "it takes two layers of which one reads what the other makes", possible=False)
    bits, worst = _bits(known), max(known)
    gain = f"up to {bits:.1f} bits a weight in int8-per-tensor; little where each channel has a scale of its own"
    if bits >= _RUINOUS_BITS:
        gain = f"up to {bits:.1f} bits a weight in int8-per-tensor, and of the values between layers in any int8"
    if bits < _UNEVEN_BITS:
        gain = "little: channels are alike in range"
    reason = f"a layer's largest weight is {worst:.3g} times a typical channel's where they differ most"
    if share := facts.macs_share("depthwise"):
        reason += f"; depthwise layers ({share:.0%} of the MACs) have the fewest weights a channel to make up for it"
    return Prospect(gain, f"{reason}; needs no training and no labels, and the float model stays the same function")


def suits(scheme: Scheme, facts: ModelFacts) -> str:
    """Returns why it cannot help in a scheme."""
    if not scheme.algorithm:
        return "nothing is quantized"
    known = [weight.unevenness for weight in facts.weights if weight.unevenness is not None]
    if scheme.granularity != "tensor" and (not known or _bits(known) < _RUINOUS_BITS):
        return "each channel's weights have a scale of their own already"
    return ""


def _bits(uneven: Sequence[float]) -> float:
    """Returns how many bits fewer a typical channel has than its layer, over all layers."""
    return sum(map(log2, uneven)) / len(uneven)


def remarks(step: Equalize, earlier: Sequence[Step], schemes: Sequence[Scheme]) -> Iterator[str]:
    """Yields why it is pointless in these schemes."""
    if all(not scheme.algorithm for scheme in schemes):
        yield "nothing is quantized: the model stays the same function"
    elif all(scheme.granularity != "tensor" for scheme in schemes if scheme.algorithm):
        yield (
            f"weights of {', '.join(s.name for s in schemes if s.algorithm)} have a scale for each channel: only "
            "activations and the next layer's weights gain; int8-per-tensor gains most"
        )


def _measured(promise: Promise, file: FileFacts, stored: StoredWeight) -> Promise:
    """Returns the promise with what a file's weight shows of it."""
    import numpy as np

    from edgeopt.equalizing import spread

    values = file.values(stored)
    if values is None or stored.scales > 1:
        return promise
    magnitudes = np.abs(np.asarray(values, np.float64))
    found = spread(magnitudes.reshape(len(magnitudes), -1).max(axis=1))
    return promise.found(found, slack=_INTEGER_SLACK if stored.scales else _FLOAT_SLACK)


def _stored(file: FileFacts, layer: str) -> StoredWeight | None:
    """Returns the only weight that an operator made of this layer computes with, None where it cannot be told."""
    found = [w for w in file.weights if w.kind == "weights" and layer in re.split(r"[/;]", w.name)]
    return found[0] if len(found) == 1 else None


def _layers(
    scaling: Scaling, changes: Sequence[tuple[Any, float, float]], left: Sequence[Pair]
) -> Iterator[LayerChange]:
    kinds: Mapping[str, str] = {call.name: type(call.layer).__name__ for call in scaling.calls}
    for kernel, was, now in changes:
        if (kernel.made >= 0).any() or (kernel.given >= 0).any():
            done = f"its largest weight was {was:.3g} times a typical channel's, is {now:.3g} times"
            yield LayerChange(kernel.layer, kinds[kernel.layer], done)
    for pair in left:
        both = f"{kinds[pair.maker]} and {kinds[pair.reader]}"
        yield LayerChange(f"{pair.maker} and {pair.reader}", both, reason=pair.reason)


def _counted(clips: Clips) -> str:
    return f"{len(clips.harmless)} of {len(clips.harmless) + len(clips.needed)} became ReLU"


def _clip_notes(clips: Clips) -> Iterator[str]:
    for name, moved in clips.needed.items():
        yield f"{name} clips what matters and stays: without it the outputs move by {moved:.1%} of their spread"


def _absorbed_notes(absorbed: Sequence[Absorbed]) -> Iterator[str]:
    for one in absorbed:
        yield f"{one.layer}: {one.channels} high biases moved on, of up to {one.share:.0%} of their channel's range"


TECHNIQUE = Technique(
    "equalize",
    "Scale channels until one scale suits all weights of a layer.",
    Equalize,
    apply,
    check,
    predict,
    typical=Equalize(),
    needs=frozenset({Need.CALIBRATION}),
    keeps=frozenset({Property.SPARSE}),
    speeds_up=False,
    repairs=True,
    remarks=remarks,
    suits=suits,
)
