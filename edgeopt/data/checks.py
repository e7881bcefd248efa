"""A dataset and a model's inputs and outputs go in; a DataError or warnings about what people get wrong come out."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from edgeopt.data.binding import bind
from edgeopt.data.dataset import Dataset, Part
from edgeopt.errors import DataError, suggestion
from edgeopt.vocabulary import Batch, MetricValue, Preprocessing, TensorSpec

FEW_CALIBRATION_SAMPLES = 100
# Calibration values this many times larger or smaller than training values are no choice of scale but a mistake.
_WRONG_SCALE = 10.0
# Raw bytes looked at per part: as float32 they are up to four times as many.
_PROBE_BYTES = 16 << 20
_PROBED_SAMPLES = 1000
_PICTURE_CHANNELS = (1, 3, 4)
_BRIGHT = 192


def check(
    dataset: Dataset,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec] = (),
    *,
    rescaling: Collection[str] = (),
    free_labels: Collection[str] = (),
    samples: int = _PROBED_SAMPLES,
) -> tuple[str, ...]:
    """Looks at all labels and at up to `samples` samples of each part.

    Args:
        inputs, outputs: the model's, with their batch dimension first; labels are compared to the first output.
        rescaling: kinds of layers with which the model brings raw pixels to its own scale (Rescaling, Normalization).
        free_labels: outputs whose labels need not have their form, as what scores them takes others; "" for all.

    Returns:
        Warnings, one sentence each.

    Raises:
        DataError: shapes, labels, NaN or infinite values, or the scale of the calibration data make a run useless.
    """
    bound = bind(dataset, inputs)
    parts = {name: part for name, part in bound.parts.items() if len(part)}
    warnings: list[str] = []
    free = {spec.name for spec in outputs if {spec.name, ""} & set(free_labels)}
    if any(part.table.varies for part in parts.values()):
        warnings.append(
            "The samples vary from call to call of the function that gives them: what was made of them is found again "
            "by its file and their labels, and two files are scored on different ones."
        )
    for name, part in reversed(parts.items()):
        warnings += _label_warnings(name, part, inputs, outputs, free)
    probes = {name: _probe(part, samples) for name, part in parts.items()}
    for name, probe in probes.items():
        _require_finite(name, probe)
        warnings += _constant(name, probe)
    some = next(iter(probes.values()), None)
    if some is not None:
        preprocessing = next(iter(parts.values())).preprocessing
        warnings += _wrong_scale(some, preprocessing, rescaling)
    if "calibration" in probes:
        count = len(bound.calibration)
        if count < FEW_CALIBRATION_SAMPLES:
            warnings.append(
                f"Only {count} calibration samples: ranges may be too narrow. Try {FEW_CALIBRATION_SAMPLES} to 500."
            )
        if "training" in probes and bound.calibration.table is not bound.training.table:
            warnings += _scale(probes["calibration"], probes["training"])
    for name in ("calibration", "tuning"):
        if name in probes and "validation" in probes:
            warnings += _leaks(name, probes[name], probes["validation"])
    if "training" in parts:
        warnings += _sorted_stream(bound.training)
    return tuple(dict.fromkeys(warnings))


def refuted(
    dataset: Dataset,
    inputs: Sequence[TensorSpec],
    scored: MetricValue,
    *,
    rescaling: Collection[str] = (),
) -> tuple[str, ...]:
    """Returns the warnings of `check` that a score of the model on these data has refuted: pixels on a wrong scale.

    Args:
        inputs: the model's.
        scored: how well the model did. Only a share says what is good: one whose interval is above the half-way from
            guessing to always right.
        rescaling: see `check`.
    """
    part = next((part for part in bind(dataset, inputs).parts.values() if len(part)), None)
    classes = dataset.validation.classes
    if part is None or not scored.is_share or scored.low <= (1 / (classes or 2) + 1) / 2:
        return ()
    probe = _probe(part, _PROBED_SAMPLES)
    return tuple(_wrong_scale(probe, part.preprocessing, rescaling))


def guessing(part: Part, scored: MetricValue) -> tuple[str, ...]:
    """Returns a warning where a model is not shown to do better than who answers one class to every sample; else none.

    Args:
        part: what it was scored on.
        scored: how well it did; only a share of right classes can be compared with that.
    """
    ids = part.ids() if scored.name == "top1" and not part.labels.outputs else None
    if ids is None or not (ids >= 0).any():
        return ()
    share = np.bincount(ids[ids >= 0]).max() / len(ids)
    if share == 1 or scored.low > share:
        return ()
    names = part.class_names[:3]
    order = f" (here {', '.join(names)}{' …' * (len(part.class_names) > 3)})" if names else ""
    return (
        f"The model is not shown to do better than one that answers one class to every sample ({share:.1%} right): "
        f"look at the order of the classes{order}, and at --scale, --mean and --std.",
    )


def _probe(part: Part, samples: int) -> Batch:
    count = max(1, min(samples, _PROBE_BYTES // part.table.sample_bytes))
    return (part.take(count) if part.reads_any_row else part.head(count)).arrays()


def _label_warnings(
    name: str, part: Part, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], free: Collection[str]
) -> list[str]:
    if part.labels.outputs:
        specs = {spec.name: spec for spec in outputs}
        unknown = [output for output in part.labels.outputs if specs and output not in specs]
        if unknown:
            raise DataError(
                f"Expected {name} labels for the model's outputs {', '.join(specs)}, got some for {unknown[0]!r}."
                f"{suggestion(unknown[0], specs)}"
            )
        each = ((output, part.of_output(output)) for output in part.labels.outputs)
        return [
            warning
            for output, one in each
            for warning in _label_warnings(f"{name} {output}", one, inputs, [specs[output]] if specs else (), free)
        ]
    if len(outputs) == 1 and (outputs[0].name in free or _marks_anomalies(part, inputs, outputs[0])):
        return []
    ids = part.ids()
    if ids is None:
        if part.labels.kind == "values" and len(outputs) == 1:
            _require_target_shape(name, part, outputs[0])
        return []
    low, high = int(ids.min()), int(ids.max())
    warnings = [f"All {name} samples are of one class ({low})."] if low == high and len(ids) > 1 else []
    units = outputs[0].shape[-1] if len(outputs) == 1 and outputs[0].shape else None
    classes = units if units is None else max(units, 2)  # one output tells two classes apart
    if low < 0 or (classes is not None and high >= classes):
        bad = int(np.flatnonzero((ids < 0) | (ids >= (classes or math.inf)))[0])
        known = (
            "" if classes is None else f" to {classes - 1}, as the model's output has {units} value{'s' * (units != 1)}"
        )
        remedy = "labels that start at 0" if low == 1 and high == classes else "other labels"
        raise DataError(
            f"Expected {name} labels from 0{known}, got {ids[bad]} (sample {part.source_rows[bad]}). "
            f"Try {remedy}, or --labels values if they are numbers to predict."
        )
    if classes is not None and part.classes is not None and part.classes < classes and units != 1:
        warnings.append(f"The labels name {part.classes} classes, the model tells {classes} apart.")
    return warnings


def _marks_anomalies(part: Part, inputs: Sequence[TensorSpec], output: TensorSpec) -> bool:
    """Whether labels of at most two classes stand beside an output that may be the input given back."""
    few = part.classes is not None and part.classes <= 2
    return few and output.shape[1:] != (2,) and any(spec.shape[1:] == output.shape[1:] for spec in inputs)


def _require_target_shape(name: str, part: Part, output: TensorSpec) -> None:
    labels = part.head(1).arrays().labels
    got = () if labels is None else labels.shape[1:]
    wanted = output.shape[1:]
    squeezed = [n for n in got if n != 1]
    expected = [n for n in wanted if n != 1]
    # Class numbers per position (masks, tags) lack the output's last dimension.
    fits = any(
        len(squeezed) == len(one) and all(w in (None, g) for g, w in zip(squeezed, one))
        for one in (expected, expected[:-1])
    )
    if not fits:
        raise DataError(
            f"Expected {name} labels {tuple(wanted)} per sample, as the model's output, got {tuple(got)}. "
            "Try other labels, --labels inputs for an autoencoder, --labels none, or --metric module:function where "
            "they are what only that takes."
        )


def _require_finite(name: str, probe: Batch) -> None:
    arrays = {f"input {name!r}": array for name, array in probe.inputs.items()}
    labels = {f"the labels of {output!r}": array for output, array in probe.several.items()}
    if probe.labels is not None:
        labels = {"the labels": probe.labels}
    for what, array in {**arrays, **labels}.items():
        if array.dtype.kind != "f":
            continue
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if bad.any():
            kind = "NaN" if np.isnan(array[bad]).any() else "infinite values"
            raise DataError(
                f"Expected finite numbers in {what} of the {name} data, got {kind} in {int(bad.sum())} of the "
                f"{len(array)} samples looked at. Try removing or filling in those samples."
            )


def _constant(name: str, probe: Batch) -> list[str]:
    return [
        f"Every value of input {what!r} in the {len(array)} {name} samples looked at is {array.flat[0]:g}."
        for what, array in probe.inputs.items()
        if len(array) > 1 and (array == array.flat[0]).all()
    ]


def _wrong_scale(probe: Batch, preprocessing: Preprocessing, rescaling: Collection[str]) -> list[str]:
    """Returns warnings of pictures as they are stored, for a model that does not scale them, and of scaled ones twice.

    Fractions up to 255 may be of anything; they are of pixels where most samples come near it, as pictures do.
    """
    if not replace(preprocessing, resize=None).is_identity:
        return []
    pictures = {n: a for n, a in probe.inputs.items() if a.ndim == 4 and a.dtype.kind == "f" and a.min() >= 0}
    if rescaling:
        return [
            f"Input {name!r} holds values from {array.min():.4g} to {array.max():.4g} and the model rescales them once "
            "more (Rescaling): if it was trained on pixels from 0 to 255, use --scale 255."
            for name, array in pictures.items()
            if set(rescaling) == {"Rescaling"} and 0 < array.max() <= 1
        ]
    return [
        f"Input {name!r} holds pixels from {array.min():.4g} to {array.max():.4g} and the model does not rescale them: "
        "if it was trained on 0 to 1, use --scale 1/255."
        for name, array in pictures.items()
        if 64 < array.max() <= 255
        and (
            preprocessing.resize
            or (array == np.rint(array)).all()
            or (array.shape[-1] in _PICTURE_CHANNELS and np.median(array.max(axis=(1, 2, 3))) > _BRIGHT)
        )
    ]


def _scale(calibration: Batch, training: Batch) -> list[str]:
    warnings = []
    for name, own in calibration.inputs.items():
        other = training.inputs[name]
        if own.dtype.kind != "f":
            continue
        reach, expected = (float(np.quantile(np.abs(a), 0.999)) for a in (own, other))
        if max(reach, expected) > _WRONG_SCALE * min(reach, expected):
            raise DataError(
                f"Expected calibration data on the scale of the training data, {other.min():.4g} to {other.max():.4g} "
                f"in input {name!r}, got {own.min():.4g} to {own.max():.4g}. Try saving both on one scale: --scale "
                "and the like apply to both."
            )
        shift = abs(float(own.mean()) - float(other.mean())) / max(float(other.std()), 1e-12)
        if shift > 1 or not 0.5 <= (float(own.std()) + 1e-12) / (float(other.std()) + 1e-12) <= 2:
            warnings.append(
                f"The calibration data differ from the training data in input {name!r}: mean {own.mean():.3g} and "
                f"deviation {own.std():.3g} against {other.mean():.3g} and {other.std():.3g}."
            )
    return warnings


def _leaks(name: str, probe: Batch, validation: Batch) -> list[str]:
    known = set(_keys(validation))
    shared = sum(key in known for key in _keys(probe))
    # A few equal samples (silence, blank pages) are in many honest data sets.
    if shared <= 0.02 * len(probe):
        return []
    return [
        f"At least {shared} of {len(probe)} {name} samples are among the validation samples: accuracies "
        "will look better than they are."
    ]


def _keys(batch: Batch) -> list[bytes]:
    arrays = list(batch.inputs.values())
    return [b"".join(np.ascontiguousarray(array[n]).tobytes() for array in arrays) for n in range(len(batch))]


def _sorted_stream(training: Part) -> list[str]:
    ids = training.ids()
    if ids is None or len(np.unique(ids[: training.shuffled_rows])) == len(np.unique(ids)):
        return []
    return [
        "The training data are sorted by class in a file that can only be read from its beginning, so that shuffling "
        "mixes neighbours only: save it with numpy.savez instead of savez_compressed."
    ]
