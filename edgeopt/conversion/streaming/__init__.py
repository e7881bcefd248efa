"""A loaded model that reads whole samples goes in; the model of one step, proven to compute the same, comes out.

As in Rybakov et al. (2020), "Streaming keyword spotting on mobile devices" (arXiv 2005.06720), a layer along time keeps
the frames that its next window reaches back to. States are inputs and outputs, which every runtime has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import frameworks, graph, keras_bridge
from edgeopt.conversion.streaming.building import Builder
from edgeopt.conversion.streaming.tracks import Plan, planned
from edgeopt.data.dataset import Part
from edgeopt.data.table import table_of
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.loading import proof
from edgeopt.tflite.stream import Stream, stepped
from edgeopt.vocabulary import Batch, TensorSpec

if TYPE_CHECKING:
    from edgeopt.loading import LoadedModel

# So many steps set the ranges of activations; each is one with the states that came before it in its sample.
CALIBRATION_STEPS = 4000
# Frames that are assumed where the model takes any number of them.
_NOMINAL_STEPS = 32
_PROBES = 2
_SEED = 5


@dataclass(frozen=True)
class Streamed:
    """A model that reads step by step.

    Attributes:
        model: of one step.
        stream: how it is to be called.
        whole: the model that it was made of.
        notes: what was done, in words.
    """

    model: LoadedModel
    stream: Stream
    whole: LoadedModel
    notes: tuple[str, ...]

    def calibration(self, part: Part) -> Part:
        """Returns steps with the states that really come before them in the samples of `part`.

        Args:
            part: bound to the whole model's inputs.
        """
        generator = np.random.default_rng(_SEED)
        kept: dict[str, list[np.ndarray]] = {spec.name: [] for spec in self.model.inputs}
        share = min(1.0, CALIBRATION_STEPS / (len(part) * self.stream.steps))

        def see(number: int, inputs: dict[str, np.ndarray]) -> None:
            chosen = generator.random(len(next(iter(inputs.values())))) < share
            for name, values in inputs.items():
                kept[name].append(values[chosen])

        for batch in part.batches(64):
            _walked(self, batch.inputs[self.stream.input], see)
        arrays = {name: np.concatenate(pieces) for name, pieces in kept.items()}
        return Part(table_of(Batch(arrays, None)))


def streamed(model: LoadedModel, *, step: int, axis: int = 1) -> Streamed:
    """Returns a model that computes what `model` does, a step at a time.

    Proven within 1e-5 of the outputs' range on generated samples.

    Args:
        step: frames of a step; 0 for as few as the model's strides allow.
        axis: of the frames, the batch is 0.

    Raises:
        ConfigError: the step does not fit the strides, or there is no such axis.
        ConversionError: the model cannot go step by step; the message names the layer.
    """
    if model.keras is None:
        raise ConversionError(
            f"Expected a model whose layers can be cut into steps, got {model.path}: {model.why_closed}. "
            "Try a Keras model of standard layers."
        )
    if len(model.inputs) != 1:
        raise ConversionError(
            f"Expected one input of frames for a stream, got {', '.join(spec.name for spec in model.inputs)}. "
            "Try a model of one input."
        )
    (spec,) = model.inputs
    if not 1 <= axis < len(spec.shape):
        raise ConfigError(
            f"Expected --time-axis from 1 to {len(spec.shape) - 1} for the input {spec.name!r}, got {axis}. Try 1."
        )
    frames, free = spec.shape[axis], spec.shape[axis] is None
    if frames is None:
        unit = planned(model.keras, frames=1 << 12, axis=axis).unit
        frames = max(step, unit) * _NOMINAL_STEPS
    plan = planned(model.keras, frames=frames, axis=axis)
    if step % plan.unit:
        raise ConfigError(
            f"Expected steps of a multiple of {plan.unit} frames, by which the model's strides move, got {step}. "
            f"Try --stream {-(-step // plan.unit) * plan.unit}."
        )
    if free and plan.renewed:
        name, reason = plan.renewed[0]
        raise ConfigError(
            f"Expected a fixed number of frames, got any: {name!r} needs all positions of a sample, {reason}. "
            f"Try --shape with the frames of a sample, or data of one length."
        )
    fixed = graph.rebuild(model.keras, shapes=[_with(spec.shape, axis, frames)])
    made, stream = Builder(plan, frames, step or plan.unit).build(fixed, axis=axis)
    stream = replace(stream, free=free)
    inputs = [TensorSpec(name, tuple(t.shape), graph.dtype_name(t)) for name, t in graph.input_names(made)]
    outputs = [*(spec.name for spec in model.outputs), *(name for _, name in stream.states)]
    stream = replace(stream, outputs=dict(zip(outputs, stream.outputs.values())), input=inputs[0].name)
    specs = [TensorSpec(n, tuple(t.shape), graph.dtype_name(t)) for n, (_, t) in zip(outputs, graph.output_names(made))]
    found = Streamed(replace(model, keras=made, inputs=tuple(inputs), outputs=tuple(specs)), stream, model, ())
    difference = _proven(found, fixed)
    return replace(found, notes=_notes(plan, found, difference))


def _with(shape: Sequence[int | None], axis: int, size: int) -> tuple[int | None, ...]:
    return tuple(size if i == axis else own for i, own in enumerate(shape))


def _proven(found: Streamed, whole: Any) -> float:
    """Returns how far the stepwise outputs lie from the whole model's on generated samples, of their range."""
    (frames,) = proof.generated_inputs(whole, samples=_PROBES)
    wanted = proof.outputs_of(whole, [frames])
    got = _walked(found, frames)
    worst = 0.0
    for name, value in zip(found.stream.outputs, wanted):
        if got[name].shape != value.shape:
            raise ConversionError(
                f"Expected {list(value.shape)} of the output {name!r} from all steps together, got "
                f"{list(got[name].shape)}. Try the model without --stream."
            )
        worst = max(worst, keras_bridge.relative_difference(value, got[name]))
    if worst > proof.TOLERANCE:
        raise ConversionError(
            f"Expected the same outputs step by step, within {proof.TOLERANCE:g} of their range, got a difference of "
            f"{worst:.2g}. Try the model without --stream."
        )
    return worst


def _walked(found: Streamed, frames: np.ndarray, see: Any = lambda number, inputs: None) -> dict[str, np.ndarray]:
    """Returns what the step model in Keras makes of samples."""
    tf = frameworks.load("tensorflow")
    keras, order = found.model.keras, [spec.name for spec in found.model.inputs]
    names = [spec.name for spec in found.model.outputs]
    call = tf.function(lambda *values: graph.leaves(keras(list(values), training=False)), reduce_retracing=True)

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, (np.asarray(value) for value in call(*(inputs[name] for name in order)))))

    zeros = {
        spec.name: np.zeros((len(frames), *(size or 1 for size in spec.shape[1:])), spec.dtype)
        for spec in found.model.inputs
    }
    return stepped(found.stream.longer(frames.shape[found.stream.axis]), run, frames, zeros, see=see)


def _notes(plan: Plan, found: Streamed, difference: float) -> tuple[str, ...]:
    stream = found.stream
    elements = sum(
        int(np.prod([size or 1 for size in spec.shape]))
        for spec in found.model.inputs
        if spec.name in dict(stream.states)
    )
    said = [
        f"step by step: {stream.step} of {stream.frames} frames at a time"
        + (" (a sample may have any number of steps)" if stream.free else "")
        + f", {len(stream.states)} states of {elements:,} numbers in all, zero at the beginning",
        f"proven in float: {stream.steps} steps give the whole model's outputs within {difference:.2g} of their range",
    ]
    late = max(one.done for one in plan.outputs) - stream.frames
    if plan.lookahead:
        layers = ", ".join(f"{name!r} by {frames}" for name, frames in plan.lookahead)
        said.append(
            f"layers look ahead (padding that is not causal): {layers}; its answer to a sample comes "
            f"{late} frames after the sample's last one; frames of zeros"
            + (f" for which {stream.valid!r} is 0" if stream.valid else "")
            + " bring it"
        )
    elif stream.tail:
        said.append(f"the last step of a sample is filled up with frames of zeros: {stream.tail}")
    for name, reason in plan.renewed:
        said.append(f"{name!r} sees all positions, as {reason}: they are kept, and it is computed anew at each step")
    return tuple(said)
