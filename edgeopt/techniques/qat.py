"""Quantization-aware training: a float model goes in, one that computes with simulated int8 comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.choices import option
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import TrainedStep, Training
from edgeopt.techniques.contract import Carried, Need, Technique
from edgeopt.vocabulary import Promise, Property, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.formats.contract import FileFacts

_FLOATS = "kinds of operators that compute in floats"
_ZEROS, _VALUES = "zeros", "distinct weights in a channel"


@dataclass(frozen=True, kw_only=True)
class QAT(TrainedStep):
    """What may be said about quantization-aware training."""

    technique: ClassVar[str] = "qat"
    defaults: ClassVar[Training] = Training(epochs=5, learning_rate=1e-4)

    layers: tuple[str, ...] = option((), "Only these: names, kinds (Conv2D) or globs.", metavar="NAME")
    spare: tuple[str, ...] = option((), "All but these: names, kinds or globs.", metavar="NAME")
    max_drop: float | None = option(
        0.0,
        "Roll the step back when its file loses more than so many points against int8 after training, beyond chance.",
        low=0.0,
    )


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
    prepared = prepare(model, input_batches(model, data.calibration), spared=spared, keep=keep)
    fit = recover(step, prepared.model, data, carried, before=model, what="training in int8")
    record = StepRecord(
        step.technique,
        step.said(),
        layers=prepared.layers,
        promises=(Promise(_FLOATS, limit=0), *_weight_promises(model, keep)),
        history=fit.history,
        seconds=fit.seconds,
        notes=fit.notes,
    )
    return prepared.model, record


def check(step: QAT, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the promises as measured in a converted file.

    A file's tensors have other names and orders than the layers: of weights with the same sizes the one with the most
    zeros in the model is the one with the most in the file.
    """
    integers, *weights = record.promises
    if not any(weight.dtype == "int8" for weight in file.weights):
        return (replace(integers, note="a float file"), *weights)
    floats = sorted(set(file.float_operators))
    return (integers.found(len(floats), note=", ".join(floats)), *_measured(weights, file))


def predict(step: QAT, facts: ModelFacts) -> Prospect:
    """Returns what training with simulated int8 will bring."""
    gain = "size and speed of int8, with less loss of accuracy: it wins back what int8 loses, mostly little"
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


def trained_layers() -> frozenset[str]:
    """Returns the layers with weights that are trained in int8, by class; BatchNormalization folds or is rewritten."""
    from edgeopt.fake_quantization.roles import WEIGHTS

    return frozenset({"BatchNormalization", *WEIGHTS})


def fits(scheme: Scheme) -> bool:
    """Whether a scheme is what the weights were trained for."""
    return scheme.weights == scheme.activations == "int8" and not scheme.dynamic and scheme.granularity == "channel"


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


def _measured(promises: Sequence[Promise], file: FileFacts) -> Iterator[Promise]:
    stored = [tensor for tensor in file.weights if tensor.kind == "weights"]
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
    "Train with simulated int8, so that quantization costs nothing.",
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
    why_unfit="its model computes with simulated int8 already",
)
