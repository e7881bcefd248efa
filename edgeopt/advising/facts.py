"""A workspace and a target go in; all that advice may rest on comes out: facts, each with where it is from.

What is measured is measured on this very model: the float file, the int8 file where there are samples, their scores
where there are labels. What nobody can tell is a fact, too: that it is not known, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt import formats, progress, targets
from edgeopt.advice import of_scheme, of_technique
from edgeopt.advising.probes import Redundancy, redundancy
from edgeopt.errors import EdgeoptError
from edgeopt.evaluation import Evaluation
from edgeopt.formats.contract import FileFacts
from edgeopt.inspection import inspect_converted
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.rounding.alone import CHOICES
from edgeopt.schemes import SCHEMES
from edgeopt.sensitivities import decibel
from edgeopt.targets import Target
from edgeopt.techniques import TECHNIQUES
from edgeopt.tflite.reader import read_once
from edgeopt.vocabulary import Variant
from edgeopt.workspace import Workspace

if TYPE_CHECKING:
    from edgeopt.data import Dataset

# Operators whose outputs have a long tail below zero or none at all: what int8 has broken most often.
_SMOOTH = ("HARD_SWISH", "LOGISTIC", "GELU", "ELU", "TANH")
# Files above this are not rounded to four bits on trial, which would take minutes.
_MOST_WEIGHTS = 1_000_000
# Points, or per cent, of which nobody takes notice.
_SMALL = 0.3
# Noise of a tenth of the signal.
_BAD_DB = 20.0


@dataclass(frozen=True)
class Fact:
    """Something that is known, or known not to be.

    Attributes:
        name: as rules call it.
        words: the fact as a clause.
        origin: how it is known: "measured …", "read from …"; "not known" where it is not.
        value: a number or a truth; None where it is not known.
    """

    name: str
    words: str
    origin: str
    value: float | bool | None


@dataclass(frozen=True)
class Known:
    """All facts.

    Attributes:
        model: what the prospects rest on.
        target: None where nobody named one.
        facts: by name.
        prospects: scheme or technique → what it would bring.
        int8_bytes: of the file in int8, as measured, else as foretold; None where there cannot be one.
    """

    model: ModelFacts
    target: Target | None
    facts: Mapping[str, Fact]
    prospects: Mapping[str, Prospect]
    int8_bytes: int | None

    def number(self, name: str) -> float | None:
        """Returns a fact's value; None where it is not known."""
        value = self.facts[name].value
        return None if value is None else float(value)

    def over(self, name: str, limit: float) -> bool:
        """Whether a fact is known and more than a limit."""
        value = self.number(name)
        return value is not None and value > limit

    def under(self, name: str, limit: float) -> bool:
        """Whether a fact is known and less than a limit."""
        value = self.number(name)
        return value is not None and value < limit

    def has(self, name: str) -> bool:
        """Whether a fact is known and true."""
        return bool(self.facts[name].value)

    def unknown(self, name: str) -> bool:
        """Whether a fact is not known."""
        return self.facts[name].value is None


def gather(workspace: Workspace, target: Target | None) -> Known:
    """Returns all that advice on a workspace's model may rest on.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot be read.
    """
    found: dict[str, Fact] = {}

    def add(name: str, words: str, origin: str, value: float | bool | None) -> None:
        found[name] = Fact(name, words, origin, value)

    progress.tell("reading the model")
    model = _facts(workspace)
    floating = _converted(workspace, "float32", model)
    file = None if floating.file is None else formats.facts(workspace.folder / floating.file)
    if file is not None and not model.quantized:
        model = replace(model, float_bytes=file.size_bytes)
    prospects = {name: of_scheme(row, model) for name, row in SCHEMES.items() if row.algorithm or name == "float16"}
    prospects |= {name: of_technique(name, model) for name in TECHNIQUES}
    _of_model(add, model, file, floating)
    _of_weights(add, file)
    _of_data(add, None if model.quantized or not workspace.has_data else workspace.data)
    int8 = _of_int8(add, workspace, model, floating)
    _of_int4(add, workspace, model, floating, int8)
    small = prospects["int8"].size_bytes if int8 is None else int8.size_bytes
    _of_graph(add, workspace, int8, small)
    _of_target(add, workspace, target, int8, floating)
    return Known(model, target, found, prospects, small)


Add = Callable[[str, str, str, Any], None]


def _facts(workspace: Workspace) -> ModelFacts:
    """Returns what is known of the model's weights and layers; of a file that nothing can be made of, too."""
    file = workspace.original.file
    if formats.is_converted(file) and (found := inspect_converted(file).facts).quantized:
        return found
    # The data have to fit.
    _ = workspace.warnings
    return workspace.survey(layers=False).facts


def _converted(workspace: Workspace, scheme: str, model: ModelFacts) -> Variant:
    if model.quantized:
        return Variant(scheme, scheme, error="the file is quantized already")
    progress.tell(f"converting to {scheme}")
    return workspace.converted(workspace.original, scheme)


def _of_model(add: Add, model: ModelFacts, file: FileFacts | None, floating: Variant) -> None:
    read = "read from the model"
    quantized = f"the file is quantized already ({model.quantized})" if model.quantized else "the model is in floats"
    add("quantized", quantized, read, bool(model.quantized))
    add("trainable", model.untrainable or "its layers can be trained here", read, not model.untrainable)
    if file is None:
        add("float32", f"there is no float32 file: {floating.error}", "not known", None)
    else:
        add("float32", f"its float32 file has {file.size_bytes:,} bytes", "measured on the file", file.size_bytes)
    depthwise = model.macs_share("depthwise")
    add("depthwise", f"depthwise layers do {depthwise:.0%} of the multiply-accumulates", read, depthwise)
    pointwise = model.macs_share("pointwise")
    add("pointwise", f"1x1 convolutions do {pointwise:.0%} of the multiply-accumulates", read, pointwise)
    attending = sorted(kind for kind in model.kinds if "Attention" in kind)
    words = f"it attends ({', '.join(attending)})" if attending else "it has no attention"
    add("attention", words, read, bool(attending))
    known = [weight.unevenness for weight in model.weights if weight.unevenness is not None]
    if known:
        words = f"a layer's largest weight is {max(known):.3g} times a typical channel's where they differ most"
        add("unevenness", words, "measured on the weights", max(known))
    else:
        add("unevenness", "how channels differ in range is not known", "not known", None)
    add("zeros", f"{model.zeros:.0%} of the weights are zero", "measured on the weights", model.zeros)
    smooth = sorted({o.name for o in file.operators} & set(_SMOOTH)) if file is not None else []
    words = f"it computes {', '.join(smooth)}" if smooth else "its activations are clipped or linear"
    if file is None:
        add("smooth", "its activations are not known", "not known", None)
    else:
        add("smooth", words, "read from the float32 file", bool(smooth))


def _of_weights(add: Add, file: FileFacts | None) -> None:
    """Adds where bytes and work are, and how redundant the weights are."""
    rows = [] if file is None else [(o, sum(w.elements for w in o.weights)) for o in file.operators]
    for name, what, of in (
        ("largest", "of the weights", {o.layer: float(n) for o, n in rows}),
        ("busiest", "of the multiply-accumulates", {o.layer: float(o.macs) for o, _ in rows}),
    ):
        whole = sum(of.values())
        if not whole:
            add(name, f"where most {what} are is not known", "not known", None)
            continue
        top = max(of, key=lambda layer: of[layer])
        share = of[top] / whole
        layer = top.rpartition(";")[2].rpartition("/")[0].rpartition("/")[2] or top
        add(name, f"{layer} has {share:.0%} {what}", "measured on the file", share)
    probe: Redundancy | None = None if file is None else redundancy(file)
    if probe is None:
        for name in ("rank", "duplicates", "dead"):
            add(name, "how much in the weights is redundant is not known", "not known", None)
        return
    measured = "measured on the weights"
    add("rank", f"{probe.rank:.0%} of the directions hold 95 % of what its kernels do", measured, probe.rank)
    add("duplicates", f"{probe.duplicates:.0%} of the channels are nearly another's copy", measured, probe.duplicates)
    add("dead", f"{probe.dead:.0%} of the channels are next to nothing", measured, probe.dead)


def _of_data(add: Add, data: Dataset | None) -> None:
    parts = (
        {"calibration": 0, "training": 0, "deciding": 0}
        if data is None
        else {
            "calibration": len(data.calibration),
            "training": len(data.training),
            "deciding": len(data.deciding),
        }
    )
    read = "counted in the data"
    samples = parts["calibration"]
    words = f"there are {samples:,} samples to calibrate with" if samples else "there are no samples"
    add("samples", words, read, samples)
    labels = data is not None and data.deciding.has_labels and parts["deciding"] > 0
    add("labels", f"{parts['deciding']:,} samples have labels" if labels else "no samples have labels", read, labels)
    trains = data is not None and parts["training"] > 0 and data.training.has_labels
    words = f"{parts['training']:,} labelled samples can be trained on" if trains else "there is nothing to train on"
    add("training", words, read, trains)


def _of_int8(add: Add, workspace: Workspace, model: ModelFacts, floating: Variant) -> Variant | None:
    """Adds what int8 costs, measured; returns its file."""
    why = ""
    if floating.error:
        why = floating.error
    elif not workspace.has_data or not len(workspace.data.calibration):
        why = "there are no samples to calibrate with"
    int8 = None if why else _converted(workspace, "int8", model)
    if int8 is not None and int8.error:
        why, int8 = int8.error, None
    if int8 is None:
        for name in ("int8_error", "int8_drop", "int8_loses"):
            add(name, f"what int8 loses is not known: {why}", "not known", None)
        return None
    progress.tell("measuring int8")
    deciding = workspace.data.deciding
    part = deciding if len(deciding) else workspace.data.calibration
    origin = f"measured on {len(part):,} samples"
    try:
        left: float | None = decibel(workspace.nearer(int8, int8, floating).before ** 2)
        add("int8_error", f"int8 leaves {left:.0f} dB of signal to noise in the outputs", origin, left)
    except EdgeoptError as failed:
        left = None
        add("int8_error", f"what int8 leaves of the outputs is not known: {failed}", "not known", None)
    scores = [workspace.score(one, deciding) for one in (floating, int8)] if deciding.has_labels else []
    good = [score for score in scores if isinstance(score, Evaluation)]
    if len(good) == 2:
        drop, metric = good[1].difference(good[0]), good[0].metric
        low = "" if drop.low is None else f" [{drop.low:.2f}, {drop.high:.2f}]"
        words = f"int8 loses {drop.value:.2f} {'points' if metric.is_share else '%'} of {metric.name}{low}"
        add("int8_drop", words, origin, drop.value)
        shown = drop.exceeds(0.0) and drop.value > _SMALL
        add("int8_loses", "a loss by int8 is shown" if shown else "no loss by int8 is shown", origin, shown)
        return int8
    why = str(next((score for score in scores if not isinstance(score, Evaluation)), "no samples have labels"))
    add("int8_drop", f"what int8 costs of the score is not known: {why}", "not known", None)
    if left is None:
        add("int8_loses", "whether int8 loses is not known", "not known", None)
    else:
        bad = left < _BAD_DB
        add("int8_loses", f"its noise is {'more' if bad else 'less'} than a tenth of the signal", origin, bad)
    return int8


def _of_int4(add: Add, workspace: Workspace, model: ModelFacts, floating: Variant, int8: Variant | None) -> None:
    """Adds what four bits cost, rounded as `round` does it."""
    why = ""
    if int8 is None:
        why = "there is no int8 file to compare with"
    elif model.elements > _MOST_WEIGHTS:
        why = "the model is too large to try in passing; edgeopt sensitivity measures it"
    if not why and int8 is not None:
        try:
            left = decibel(workspace.losses(floating, int8, CHOICES["int4"]).together)
            words = f"four bits in all layers, rounded by what these compute, leave {left:.0f} dB of signal to noise"
            add("int4_error", words, "measured on calibration samples", left)
            return
        except EdgeoptError as failed:
            why = str(failed)
    add("int4_error", f"what four bits lose is not known: {why}", "not known", None)


def _of_graph(add: Add, workspace: Workspace, int8: Variant | None, foretold: int | None) -> None:
    if int8 is None:
        words = "" if foretold is None else f", foretold as {foretold:,} bytes"
        add("int8_bytes", f"there is no int8 file{words}", "foretold from the model", foretold)
        add("graph", "how much of the int8 file is graph is not known", "not known", None)
        return
    file = formats.facts(workspace.folder / str(int8.file))
    add("int8_bytes", f"its int8 file has {file.size_bytes:,} bytes", "measured on the file", file.size_bytes)
    share = 1 - file.bytes_by_kind.get("weights", 0) / file.size_bytes
    add("graph", f"{share:.0%} of the int8 file are not weights", "measured on the file", share)


def _of_target(add: Add, workspace: Workspace, target: Target | None, int8: Variant | None, floating: Variant) -> None:
    if target is None:
        for name in ("fits", "latency", "takes_int8", "takes_dynamic", "takes_float16", "takes_int4", "takes_wide"):
            add(name, "no target was named", "not known", None)
        for name in ("sparsity", "clusters"):
            add(name, "what a device makes of it is not known: no target was named", "not known", None)
        return
    said = f"read from the target {target.name}"
    for name, kind in (
        ("takes_int8", "int8"),
        ("takes_dynamic", "dynamic"),
        ("takes_float16", "float16"),
        ("takes_int4", "int4"),
        ("takes_wide", "int16x8"),
    ):
        verdicts = {**target.well, **target.runs, **target.refused}
        add(name, f"{target.name}, {kind}: {verdicts[kind]}", said, kind not in target.refused)
    for name in ("sparsity", "clusters"):
        words = target.techniques[name]
        add(name, f"{target.name}: {words}", said, not words.startswith(("no ", "nothing", "none")))
    tried = int8 if int8 is not None else floating
    if tried.file is None:
        add("fits", "whether it fits is not known: there is no file", "not known", None)
        add("latency", "how fast it is there is not known: there is no file", "not known", None)
        return
    progress.tell(f"asking {target.name}")
    found = targets.assess(target, read_once(workspace.folder / tried.file))
    words = "; ".join(found.problems) or "nothing speaks against it"
    add(
        "fits", f"{tried.scheme} on {target.name}: {words}", f"{found.memory_how} for {target.name}", not found.problems
    )
    time = found.estimate
    if time.latency_ms is None:
        why = "; ".join(time.notes) or "no figures are known"
        add("latency", f"how fast it is on {target.name} is not known: {why}", "not known", None)
    else:
        words = f"{tried.scheme} takes {time.latency_ms:.3g} ms on {target.name}"
        add("latency", words, f"{time.how} for {target.name}", time.latency_ms)
