"""Quantization-aware training: a float model goes in, one that computes with simulated int8 comes out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.choices import option
from edgeopt.errors import ConfigError, setting
from edgeopt.prospects import PRUNABLE, ModelFacts, Prospect
from edgeopt.steps import TrainedStep, Training
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.vocabulary import Promise, Property, Scheme, StepRecord, StoredWeight

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.formats.contract import FileFacts

_FLOATS = "kinds of operators that compute in floats"
_ZEROS, _VALUES = "zeros", "distinct weights in a channel"
_NARROW = "weights below eight bits"
# No runtime has a kernel for fewer bits of theirs.
_WIDE = frozenset({"Conv2DTranspose"})
# Kinds of weights that are trained below eight bits.
_NARROWED = frozenset({"dense", "convolution", "pointwise"})
# Learning rate below eight bits.
_NARROW_RATE = 1e-3
# Samples that normalizations are averaged over anew.
_AVERAGED = 1024
# That schemes know. Two are -1, 0 and 1.
_BITS = (8, 4, 3, 2)


@dataclass(frozen=True, kw_only=True)
class QAT(TrainedStep):
    """What may be said about quantization-aware training."""

    technique: ClassVar[str] = "qat"
    defaults: ClassVar[Training] = Training(epochs=5, learning_rate=1e-4)

    weight_bits: int = option(
        8,
        f"Bits of a weight: 8, 4, 3 or 2; below 8, all but the layers that {setting('keep_8bit')} names.",
        low=2,
        high=8,
        hint="4",
        tried=(8, 4, 3, 2),
    )
    layer_bits: Mapping[str, int] = option(
        {}, "Other bits for a layer, a kind or a glob.", low=2, high=8, metavar="NAME=BITS"
    )
    layers: tuple[str, ...] = option((), "Only these: names, kinds (Conv2D) or globs.", metavar="NAME")
    spare: tuple[str, ...] = option((), "All but these: names, kinds or globs.", metavar="NAME")
    max_drop: float | None = option(
        0.0,
        "Roll the step back when its file loses more than so many points against int8 after training, beyond chance.",
        low=0.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, bits in (("weight_bits", self.weight_bits), *(("layer_bits", n) for n in self.layer_bits.values())):
            if bits not in _BITS:
                raise ConfigError(
                    f"Expected {', '.join(map(str, _BITS))} bits as {setting(key)}, got {bits}: no file stores others. "
                    "Try 4."
                )

    def training(self, recipes: Training | None = None) -> Training:
        """Returns how to train; fewer bits, whose steps are coarser, start from a larger learning rate."""
        chosen = super().training(recipes)
        said = self.learning_rate or (recipes and recipes.learning_rate)
        return replace(chosen, learning_rate=_NARROW_RATE) if self.bits and not said else chosen

    @property
    def bits(self) -> frozenset[int]:
        """The bits that weights are trained for, below eight; none where all have eight."""
        return frozenset(bits for bits in (self.weight_bits, *self.layer_bits.values()) if bits < 8)


def apply(step: QAT, model: Any, data: Dataset, carried: Carried) -> tuple[Any, StepRecord]:
    """Returns a model that computes with simulated int8, and what became of each layer.

    Ranges start from the calibration samples, so that training starts where post-training quantization ends.

    Raises:
        ConfigError: `layers` or `spare` name no layer, or training does not converge.
        DataError: there are no samples to calibrate or train with.
        ConversionError: no file can hold the model.
    """
    from edgeopt.conversion.unconvertible import require_some_scheme
    from edgeopt.fake_quantization import prepare
    from edgeopt.techniques.recovery import recover
    from edgeopt.techniques.samples import input_batches
    from edgeopt.techniques.selection import select_layers

    require_some_scheme(type(layer).__name__ for layer in model.layers)
    chosen = {layer.name for layer in select_layers(model, step.layers, step.spare)}
    spared = {layer.name for layer in model.layers} - chosen
    keep = carried.properties & {Property.SPARSE, Property.CLUSTERED}
    bits = _bits(step, model, chosen, carried.keep_8bit)
    prepared = prepare(model, input_batches(model, data.calibration), spared=spared, keep=keep, bits=bits)
    fit = recover(step, prepared.model, data, carried, before=model, what="training in int8")
    averaged = _averaged(prepared.model, model, data, carried.seed) if bits else ()
    record = StepRecord(
        step.technique,
        step.said(),
        layers=prepared.layers,
        promises=(Promise(_FLOATS, limit=0), *_narrow_promise(model, bits), *_weight_promises(model, keep)),
        history=fit.history,
        seconds=fit.seconds,
        notes=(*fit.notes, *averaged),
    )
    return prepared.model, record


def _averaged(trained: Any, model: Any, data: Dataset, seed: int) -> tuple[str, ...]:
    """Averages normalizations anew where that brings the answers nearer to the float model's; returns what to say."""
    from edgeopt import data as datasets
    from edgeopt import graph
    from edgeopt.chance import seed_for
    from edgeopt.shrinking.probing import distance
    from edgeopt.techniques.samples import input_batches
    from edgeopt.training.averages import average_anew, normalizations
    from edgeopt.training.objective import some_outputs

    if not normalizations(trained):
        return ()
    watched = datasets.bind(data.calibration, graph.input_specs(model))
    real, before, weights = some_outputs(model, watched), some_outputs(trained, watched), trained.get_weights()
    few = data.training.take(_AVERAGED, seed=seed_for(seed, "samples to average over"))
    average_anew(trained, input_batches(model, few))
    was, now = (distance(real, found) for found in (before, some_outputs(trained, watched)))
    said = f"{now:.3g} from the float model's answers instead of {was:.3g}, on {len(real[0])} samples"
    if now < was:
        return (f"averages of normalizations taken anew: {said}",)
    trained.set_weights(weights)
    return (f"averages of normalizations are those of training; taken anew: {said}",)


def check(step: QAT, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the promises as measured in a converted file.

    A file's tensors have other names and orders than the layers: of weights with the same sizes the one with the most
    zeros in the model is the one with the most in the file.
    """
    integers, *weights = record.promises
    if not any(tensor.kind == "weights" and tensor.dtype.startswith("int") for tensor in file.weights):
        return (replace(integers, note="a float file"), *weights)
    floats = sorted(set(file.float_operators))
    stored = [tensor for tensor in file.weights if tensor.kind == "weights"]
    narrow = sum(tensor.elements for tensor in stored if 0 < tensor.bits < 8)
    return (
        integers.found(len(floats), note=", ".join(floats)),
        *(promise.found(narrow) for promise in weights if promise.kind == _NARROW),
        *_measured([promise for promise in weights if promise.kind != _NARROW], stored),
    )


def predict(step: QAT, facts: ModelFacts) -> Prospect:
    """Returns what training with simulated int8 will bring."""
    gain = "size and speed of int8, with less loss of accuracy: it wins back what int8 loses, mostly little"
    if step.bits:
        share = facts.share(*(PRUNABLE - {"embedding", "recurrent", "attention"}))
        gain = (
            f"at best {share:.0%} of the weights in {max(step.bits)} bits, and the speed of int8: training wins back "
            "what so few values lose, mostly all of it with four bits"
        )
    if not facts.layers:
        return Prospect(gain, "`edgeopt inspect` of the Keras model says which layers are trained in int8")
    trained = trained_layers()
    rest = {name: n for name, n in sorted(facts.layers.items()) if name not in trained}
    others = ", ".join(f"{name} ({n} layer{'s' if n > 1 else ''})" for name, n in rest.items())
    if not others:
        return Prospect(gain, "every layer is trained in int8")
    if len(rest) == len(facts.layers):
        return Prospect("none", f"no layer with weights can be trained in int8 here: {others}", possible=False)
    return Prospect(gain, f"not trained in int8 but quantized afterwards: {others}")


def narrowed(facts: ModelFacts) -> float:
    """Returns the share of the weights that are trained below eight bits where nobody says which layers keep them."""
    from edgeopt.conversion import eight_bits

    last = len(facts.weights) - 1
    narrow = (
        weight.elements
        for place, weight in enumerate(facts.weights)
        if weight.kind in _NARROWED
        and not eight_bits.fragile(first=place == 0, last=place == last, depthwise=False, elements=weight.elements)
    )
    return sum(narrow) / (facts.elements or 1)


def trained_layers() -> frozenset[str]:
    """Returns the layers with weights that are trained in int8, by class; BatchNormalization folds or is rewritten."""
    from edgeopt.fake_quantization.roles import WEIGHTS

    return frozenset({"BatchNormalization", *WEIGHTS})


def fits(step: QAT, scheme: Scheme) -> bool:
    """Whether a scheme is what the weights were trained for."""
    most = max(step.bits, default=8)
    return (
        (most <= scheme.weight_bits < 8 if step.bits else scheme.weight_bits == 8)
        and scheme.activations == "int8"
        and not scheme.dynamic
        and scheme.granularity == "channel"
    )


def _bits(step: QAT, model: Any, chosen: Collection[str], keep_8bit: Sequence[str]) -> dict[str, int]:
    """Returns the bits of the layers that are trained with fewer than eight, by name.

    Raises:
        ConfigError: `keep_8bit` or `layer_bits` name no layer.
    """
    from edgeopt.fake_quantization import weights_of
    from edgeopt.techniques.selection import named_layers

    if not step.bits:
        return {}
    named = [word for word in keep_8bit if word not in ("auto", "none")]
    kept = {layer.name for layer in named_layers(model, named, "keep_8bit")}
    if "auto" in keep_8bit:
        kept |= _fragile(model)
    bits = {}
    for layer in model.layers:
        if layer.name in chosen and weights_of(layer) and type(layer).__name__ not in _WIDE:
            bits[layer.name] = 8 if layer.name in kept else step.weight_bits
    for word, own in step.layer_bits.items():
        bits |= {layer.name: own for layer in named_layers(model, (word,), "layer_bits") if layer.name in bits}
    return {name: n for name, n in bits.items() if n < 8}


def _fragile(model: Any) -> set[str]:
    """Returns the names of the layers that the schemes below eight bits leave at eight by themselves."""
    from edgeopt import graph
    from edgeopt.conversion import eight_bits
    from edgeopt.fake_quantization import weights_of

    calls = graph.own_calls(model)
    sizes = [sum(values.size for values in weights_of(call.layer).values()) for call in calls]
    nodes = [
        ([id(leaf) for leaf in graph.leaves((call.args, dict(call.kwargs)))], [id(t) for t in call.outputs], size > 0)
        for call, size in zip(calls, sizes)
    ]
    sides = ([id(tensor) for _, tensor in named] for named in (graph.input_names(model), graph.output_names(model)))
    first, last = eight_bits.ends(nodes, *sides)
    return {
        call.layer.name
        for place, (call, size) in enumerate(zip(calls, sizes))
        if eight_bits.fragile(
            first=place in first,
            last=place in last,
            depthwise=type(call.layer).__name__.startswith("Depthwise"),
            elements=size,
        )
    }


def _narrow_promise(model: Any, bits: Mapping[str, int]) -> Iterator[Promise]:
    """Yields how many weights the file stores in fewer than eight bits, where any are trained so."""
    from edgeopt.fake_quantization import weights_of

    sizes = {layer.name: sum(values.size for values in weights_of(layer).values()) for layer in model.layers}
    if bits:
        narrow = sum(sizes[name] for name in bits)
        yield Promise(_NARROW, limit=narrow, bound="least", of=sum(sizes.values()), unit="weights")


def _weight_promises(model: Any, keep: frozenset[Property]) -> Iterator[Promise]:
    """Yields what the file has to show of each weight: at least its zeros, at most its distinct values."""
    import numpy as np

    from edgeopt.fake_quantization import channels_of, weights_of

    for layer in model.layers if keep else ():
        for name, values in weights_of(layer).items():
            subject = f"{layer.name}/{name}"
            zeros = values.size - np.count_nonzero(values)
            if Property.SPARSE in keep and zeros:
                yield Promise(_ZEROS, subject, limit=zeros, bound="least", of=values.size, unit="weights")
            rows = channels_of(layer, name)
            distinct = max(len(np.unique(row)) for row in rows)
            if Property.CLUSTERED in keep and distinct < rows.shape[1]:
                yield Promise(_VALUES, subject, limit=distinct, of=values.size, unit="weights")


def _measured(promises: Sequence[Promise], stored: Sequence[StoredWeight]) -> Iterator[Promise]:
    for kind, words, best in ((_ZEROS, "zeros", max), (_VALUES, "unique_per_channel", min)):
        free = list(stored)
        for promise in sorted((p for p in promises if p.kind == kind), key=lambda p: p.limit or 0, reverse=best is max):
            fitting = [t for t in free if t.elements == promise.of and getattr(t, words) is not None]
            if not fitting:
                yield replace(promise, note="no tensor of this size in the file")
                continue
            found = best(fitting, key=lambda tensor: getattr(tensor, words))
            free.remove(found)
            yield promise.found(getattr(found, words))


TECHNIQUE = Technique(
    "qat",
    "Train in simulated int8, or fewer bits: it costs little.",
    QAT,
    apply,
    check,
    predict,
    typical=QAT(),
    needs=frozenset({Need.TRAINING, Need.LABELS, Need.CALIBRATION}),
    ensures=frozenset({Property.FAKE_QUANTIZED}),
    keeps=frozenset({Property.SPARSE, Property.CLUSTERED}),
    variants={
        frozenset({Property.SPARSE}): "PQAT",
        frozenset({Property.CLUSTERED}): "CQAT",
        frozenset({Property.SPARSE, Property.CLUSTERED}): "PCQAT",
    },
    speeds_up=None,
    fits=fits,
    why_unfit="its weights were trained for these integers",
    takes=2.0,
)
