"""Structured pruning: a model goes in, one with fewer channels, heads or layers comes out."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt import progress
from edgeopt.choices import Range, option
from edgeopt.errors import ConfigError, setting, suggestion
from edgeopt.prospects import ModelFacts, Prospect
from edgeopt.steps import TrainedStep, Training
from edgeopt.techniques.contract import Carried, Technique
from edgeopt.vocabulary import LayerChange, Promise, StepRecord, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from edgeopt.data import Dataset
    from edgeopt.formats.contract import FileFacts
    from edgeopt.loading import LoadedModel
    from edgeopt.shrinking import Channels, Chooser, Chosen

BUDGETS = ("macs", "parameters", "bytes", "width", "latency")
UNITS = ("channels", "heads", "blocks")
# Kinds of weights whose layers have channels.
_CUT = ("convolution", "pointwise", "transposed", "dense", "attention")
# Samples that channels are scored and layers are re-fitted on.
SAMPLES = 1024
# Share of the epochs that the last of several rounds has; the others divide the rest.
LAST_ROUND = 0.5
_SCALE_BYTES = 4
# The converter adds a bias to a convolution without, and constants of its own.
_CONVERTERS_OWN = 0.02
# Steps of the search for the MACs that take a share of the time: the share is then known to 1/64.
_SEARCH_STEPS = 6


@dataclass(frozen=True, kw_only=True)
class Shrink(TrainedStep):
    """What may be said about shrinking. One of the budgets is needed; each is a share of what the model has.

    Raises:
        ConfigError: none or several of the budgets, or a kind of unit that does not go with the rest.
    """

    technique: ClassVar[str] = "shrink"
    defaults: ClassVar[Training] = Training(learning_rate=4e-3)

    macs: float | None = option(
        None,
        "Keep this share of the multiply-accumulates.",
        above=0.0,
        below=1.0,
        hint="0.5",
        tried=Range(0.25, 0.9),
    )
    parameters: float | None = option(None, "Keep this share of the parameters.", above=0.0, below=1.0, hint="0.5")
    bytes: float | None = option(
        None, "Keep this share of the bytes that weights take in int8.", above=0.0, below=1.0, hint="0.5"
    )
    width: float | None = option(None, "Keep this share of every layer's channels.", above=0.0, below=1.0, hint="0.5")
    latency: float | None = option(None, "Keep this share of the measured latency.", above=0.0, below=1.0, hint="0.5")
    epochs: int | None = option(
        None, "Passes over the training samples; 0 does without training and without labels.", low=0, high=100_000
    )
    criterion: str = option(
        "reconstruction",
        "What makes a channel worth keeping; reconstruction: what the layers behind cannot compute without it.",
        choices=("reconstruction", "l1", "l2", "batchnorm", "taylor", "median"),
    )
    refit: bool = option(True, "Fit the layers that are left to what they computed before, by least squares.")
    units: tuple[str, ...] = option(("channels",), "What may go: channels, heads, blocks.", metavar="KIND")
    rounds: int = option(1, "Cut in so many rounds with recovery between them.", low=1, high=100)
    multiple_of: int = option(8, "Channel counts are kept multiples of this where they can be.", low=1, high=64)
    by_sensitivity: bool = option(True, "Spread the cut by what each group of layers loses by it.")
    layers: tuple[str, ...] = option((), "Only these: names, kinds (Conv2D) or globs.", metavar="NAME")
    spare: tuple[str, ...] = option((), "All but these: names, kinds or globs.", metavar="NAME")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"Expected one of {', '.join(BUDGETS)} as the share to keep, got {' and '.join(given) or 'none'}. "
                f"Try {setting('macs', 0.5)}."
            )
        for unit in self.units:
            if unit not in UNITS:
                raise ConfigError(f"Expected units of {', '.join(UNITS)}, got {unit!r}.{suggestion(unit, UNITS)}")
        if not self.units:
            raise ConfigError(f"Expected some of {', '.join(UNITS)} as units, got none. Try channels.")
        if "blocks" in self.units and (given == ["width"] or not self.by_sensitivity):
            raise ConfigError(
                f"Expected a budget of macs, parameters or latency and {setting('by_sensitivity')} with "
                f"{setting('units', 'blocks')}, which go by what they lose for what they save. "
                f"Try {setting('macs', 0.5)}."
            )

    @property
    def budget(self) -> tuple[str, float]:
        """The budget that was given, and the share."""
        return next((name, getattr(self, name)) for name in BUDGETS if getattr(self, name) is not None)


def validate(step: Shrink, training: Training) -> None:
    """Checks that every round can recover.

    Raises:
        ConfigError: there are fewer epochs than rounds.
    """
    epochs_of_rounds(training.epochs or 0, step.rounds)


def apply(step: Shrink, model: Any, data: Dataset, carried: Carried) -> tuple[Any, StepRecord]:
    """Cuts the model down to its budget and recovers, in rounds; see contract.Apply."""
    from edgeopt.shrinking import Channels, joints
    from edgeopt.techniques.recovery import recover
    from edgeopt.techniques.samples import some_inputs
    from edgeopt.training import Hint

    start = time.perf_counter()
    training = step.training(carried.training)
    epochs = epochs_of_rounds(training.epochs or 0, step.rounds)
    before = Channels(model)
    samples = data.training if len(data.training) else data.calibration
    inputs = some_inputs(model, samples, SAMPLES, seed=carried.seed)
    count, share = step.budget
    notes: list[str] = []
    if count == "latency":
        count, share, note = _macs_for_latency(step, model, inputs, carried.folder, carried.seed)
        notes.append(note)
    whole = before.cost()
    history: list[Mapping[str, float]] = []
    left_of: Mapping[str, tuple[int, ...]] = {}
    smaller = model
    for number, several in enumerate(progress.track(epochs, "cutting and recovering", len(epochs)), start=1):
        folder = carried.folder / f"round-{number}" if step.rounds > 1 else carried.folder
        # Equal factors: each round takes the same share of what is left.
        left = share ** (number / step.rounds)
        chosen, measured = _chosen(step, smaller, inputs, (count, left, whole), folder, carried.seed)
        notes += _measured_words(measured) if number == 1 else []
        notes += coarse_words(step, chosen)
        left_of = joints(chosen.channels, chosen.cut, left_of)
        smaller, said = cut_out(smaller, chosen, inputs, refit=step.refit, seed=carried.seed)
        notes += said
        if not several:
            continue
        what = "recovering" if step.rounds == 1 else f"recovering, round {number} of {step.rounds}"
        fit = recover(
            step,
            smaller,
            data,
            carried,
            before=model,
            what=what,
            training=replace(training, epochs=several),
            folder=folder,
            hints=[Hint(name, name, channels=places) for name, places in left_of.items()],
        )
        history += ({"round": float(number), **row} for row in fit.history)
        notes += fit.notes
    after = Channels(smaller)
    record = StepRecord(
        step.technique,
        step.said(),
        layers=_changes(step, model, before, after),
        promises=_promises(step, before, after),
        history=tuple(history),
        seconds=time.perf_counter() - start,
        notes=tuple(notes),
    )
    if step.latency is not None:
        record = replace(record, promises=(*record.promises, _latency_promise(model, smaller, step.latency)))
    return smaller, record


def cut_out(
    model: Any, chosen: Chosen, inputs: Sequence[np.ndarray], *, refit: bool, seed: int
) -> tuple[Any, tuple[str, ...]]:
    """Returns the model without what was chosen, made up for on samples as far as that goes, and what is to be said.

    Args:
        model: whole.
        chosen: what goes.
        inputs: real samples, one array for each input.
        refit: whether layers are fitted anew; statistics of normalizations are estimated in any case.
        seed: of the places in maps that are looked at.
    """
    from edgeopt.shrinking import Channels, Refitter, shrink

    progress.tell("fitting what is left")
    refitter = Refitter(Channels(model), inputs, seed=seed)
    made = refitter.fit(chosen.channels, chosen.cut, refit=refit)
    few = refitter.samples < len(inputs[0])
    said = (f"fitted on {refitter.samples} samples: the activations of more do not fit into memory",) if few else ()
    return shrink(made.channels, chosen.cut), (*said, *made.notes)


def check(step: Shrink, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the promises as measured in a converted file; that of the latency stays as it was timed."""
    from edgeopt.techniques import in_file

    found = []
    for promise in record.promises:
        if promise.kind == _MACS:
            promise = in_file.multiplied(promise, file)
        elif promise.kind == _PARAMETERS:
            promise = promise.found(file.parameters, slack=_CONVERTERS_OWN)
        elif promise.kind == _BYTES and (stored := _int8_bytes(file)):
            promise = promise.found(stored, slack=_CONVERTERS_OWN)
        found.append(promise)
    return tuple(found)


def predict(step: Shrink, facts: ModelFacts) -> Prospect:
    """Returns what the step will bring, before any training."""
    if sum(w.kind in _CUT for w in facts.weights) < 2:
        return Prospect(
            "none", "it takes at least two layers with channels: those of the last one are the outputs", possible=False
        )
    count, share = step.budget
    linear = facts.macs_share("depthwise")
    # A convolution's MACs fall with the channels on both of its sides, a depthwise one's with those of one.
    width = share if count == "width" else _width_for(share, linear)
    macs = linear * width + (1 - linear) * width**2
    said = {
        "macs": f"{share:.0%} of the {facts.macs:,} MACs",
        "parameters": f"{share:.0%} of the {facts.parameters:,} parameters",
        "bytes": f"{share:.0%} of the bytes of int8 weights",
        "width": f"{share:.0%} of the channels leave about {macs:.0%} of the {facts.macs:,} MACs",
        "latency": f"{share:.0%} of the time on LiteRT here, float32",
    }[count]
    reason = "tensors really get smaller, so every runtime gains; "
    reason += "layers are re-fitted on samples, no training" if step.epochs == 0 else "recover by training"
    if step.multiple_of % 8:
        reason += "; less where channel counts are no multiples of 8 (XNNPACK)"
    depthwise = facts.share("depthwise")
    return Prospect(f"{said}, and smaller files", reason, left=depthwise * width + (1 - depthwise) * width**2)


def epochs_of_rounds(epochs: int, rounds: int) -> list[int]:
    """Returns how many epochs each round recovers: the last one half of all, the others alike; none where none are.

    Raises:
        ConfigError: there are fewer epochs than rounds.
    """
    if not epochs:
        return [0] * rounds
    if epochs < rounds:
        raise ConfigError(
            f"Expected at least one epoch for each of {rounds} rounds, got {epochs}. "
            f"Try {setting('epochs', 2 * rounds)}."
        )
    if rounds == 1:
        return [epochs]
    last = min(max(1, round(epochs * LAST_ROUND)), epochs - (rounds - 1))
    rest, more = divmod(epochs - last, rounds - 1)
    return [*(rest + (number < more) for number in range(rounds - 1)), last]


_MACS = "multiply-accumulates"
_PARAMETERS = "parameters"
_BYTES = "bytes of int8 weights, biases and scales"


def _chooser(step: Shrink, model: Any, inputs: Sequence[np.ndarray], folder: Path, seed: int) -> Chooser:
    from edgeopt.shrinking import TRIES, Chooser
    from edgeopt.shrinking.budget import EVENNESS

    return Chooser(
        model,
        inputs,
        criterion=step.criterion,
        kinds=step.units,
        multiple_of=step.multiple_of,
        refit=step.refit,
        by_sensitivity=step.by_sensitivity and step.width is None,
        # What was timed has to be what is cut.
        tries=TRIES if step.latency is None else 0,
        layers=_meant(step, model),
        # What all rounds together leave of a group.
        evenness=EVENNESS ** (1 / step.rounds),
        remember=partial(_remembered, folder / "tried.json"),
        seed=seed,
    )


def _remembered(file: Path, key: str, compute: Callable[[], float]) -> float:
    """Returns what was computed for a key, also by a run that was killed."""
    from edgeopt import files

    known = json.loads(file.read_text()) if file.is_file() else {}
    if key not in known:
        known[key] = compute()
        file.parent.mkdir(parents=True, exist_ok=True)
        files.atomic_write(file, json.dumps(known).encode())
    return float(known[key])


def _meant(step: Shrink, model: Any) -> set[str] | None:
    """Returns the names of the layers that may lose channels, None for all."""
    from edgeopt.techniques.selection import select_layers

    if not step.layers and not step.spare:
        return None
    return {layer.name for layer in select_layers(model, step.layers, step.spare)}


def _chosen(
    step: Shrink, model: Any, inputs: Sequence[np.ndarray], goal: tuple[str, float, Any], folder: Path, seed: int
) -> tuple[Chosen, Sequence[Any]]:
    """Returns what goes in a round, and what was measured for it; what was decided before the run was killed stays."""
    import numpy as np

    from edgeopt import files
    from edgeopt.shrinking import Channels, Chosen, drop

    decided = folder / "cut.json"
    if decided.is_file():
        known = json.loads(decided.read_text())
        channels = Channels(drop(model, known["dropped"]) if known["dropped"] else model)
        return Chosen(tuple(known["dropped"]), channels, {k: np.array(v) for k, v in known["cut"].items()}), ()
    chooser = _chooser(step, model, inputs, folder, seed)
    count, share, whole = goal
    chosen = chooser.uniform(share) if count == "width" else chooser.within(count, share * getattr(whole, count))
    folder.mkdir(parents=True, exist_ok=True)
    said = {"dropped": list(chosen.dropped), "cut": {k: v.tolist() for k, v in chosen.cut.items()}}
    files.atomic_write(decided, json.dumps(said).encode())
    return chosen, chooser.sensitivities


def _measured_words(measured: Sequence[Any]) -> list[str]:
    return [
        f"{one.group} alone: "
        + ", ".join(
            f"{size} of {one.sizes[0]} left loses {loss:.3g}" for size, loss in zip(one.sizes[1:], one.losses[1:])
        )
        for one in measured
    ]


def coarse_words(step: Shrink, chosen: Chosen) -> list[str]:
    """Returns what is to be said of layers so narrow that there was one multiple to cut them to."""
    from edgeopt.shrinking import CHANNELS
    from edgeopt.shrinking.budget import allowed

    narrow = [
        f"{group.name} ({len(chosen.cut[group.name])} of {group.size})"
        for group in chosen.channels.groups
        if group.kind == CHANNELS and group.name in chosen.cut and len(allowed(group, step.multiple_of)) == 2
    ]
    if not narrow or step.multiple_of == 1:
        return []
    return [
        f"cut to the only multiple of {step.multiple_of} there is: {', '.join(narrow)}; multiple_of "
        f"{step.multiple_of // 2} may lose less, and runtimes that compute {step.multiple_of} channels at a time are "
        "slower with it"
    ]


def _changes(step: Shrink, model: Any, before: Channels, after: Channels) -> tuple[LayerChange, ...]:
    kinds = {call.name: type(call.layer).__name__ for call in before.calls}
    chosen = _meant(step, model)
    left, there = after.widths(), {call.name for call in after.calls}
    found = []
    for name, was in before.widths().items():
        # A single channel or head that is left is no group any more.
        now = {unit: left.get(name, {}).get(unit, 1) for unit in was}
        done = reason = ""
        if name not in there:
            done = "gone with its block"
        elif now != was:
            done = ", ".join(f"{was[unit]} → {now[unit]} {unit}" for unit in was if was[unit] != now[unit])
        else:
            reason = before.untouchable.get(name) or _why_whole(step, before, name, chosen)
        found.append(LayerChange(name, kinds[name], done, reason))
    others = [(name, reason) for name, reason in before.untouchable.items() if name not in before.widths()]
    return (*found, *(LayerChange(name, kinds[name], reason=reason) for name, reason in others))


def _why_whole(step: Shrink, before: Channels, name: str, chosen: set[str] | None) -> str:
    """Returns why a layer kept channels that might have gone."""
    from edgeopt.shrinking.budget import allowed

    groups = [group for group in before.groups if name in group.layers]
    asked = [group for group in groups if group.kind in step.units]
    if not asked:
        return f"only {' and '.join(step.units)} may go"
    if chosen is not None:
        spared = {layer for group in asked for layer in group.layers} - chosen
        if spared:
            return f"not asked for: {', '.join(sorted(spared))}" + (" (they go together)" if name not in spared else "")
    if all(len(allowed(group, step.multiple_of)) == 1 for group in asked):
        return f"too few for a smaller multiple of {step.multiple_of}"
    return "worth more than what went"


def _promises(step: Shrink, before: Channels, after: Channels) -> tuple[Promise, ...]:
    old, new = before.cost(), after.cost()
    macs = old.macs * step.macs if step.macs is not None else new.macs
    parameters = old.parameters * step.parameters if step.parameters is not None else new.parameters
    found = []
    # What other operators multiply is in the file's count, and not in ours.
    if not before.uncounted:
        found.append(Promise(_MACS, limit=macs, of=old.macs))
    found.append(Promise(_PARAMETERS, limit=parameters, of=old.parameters))
    if step.bytes is not None:
        found.append(Promise(_BYTES, limit=old.bytes * step.bytes, of=old.bytes))
    return tuple(found)


def _int8_bytes(file: FileFacts) -> int:
    """Returns what weights, biases and their scales take in an int8 file, 0 in any other."""
    stored = [tensor for tensor in file.weights if tensor.kind in ("weights", "biases")]
    if any(tensor.dtype.startswith("float") for tensor in stored):
        return 0
    return sum(tensor.size_bytes + _SCALE_BYTES * tensor.scales for tensor in stored)


def _macs_for_latency(
    step: Shrink, model: Any, inputs: Sequence[np.ndarray], folder: Path, seed: int
) -> tuple[str, float, str]:
    """Returns the largest share of the MACs with which the model takes the share of its time that is asked for."""

    from edgeopt.shrinking import shrink

    assert step.latency is not None
    chooser = _chooser(step, model, inputs, folder, seed)
    total = chooser.channels.cost().macs
    fits, too_slow = 0.0, 1.0
    tried = []
    for number in progress.track(range(_SEARCH_STEPS), "searching the MACs for the latency", _SEARCH_STEPS):
        share = step.latency if number == 0 else (fits + too_slow) / 2
        try:
            chosen = chooser.within("macs", share * total)
        except ConfigError:
            break
        before, after = _times(model, shrink(chosen.channels, chosen.cut))
        ratio = after / before
        tried.append(f"{share:.0%} of the MACs take {ratio:.0%} of the time")
        fits, too_slow = (share, too_slow) if ratio <= step.latency else (fits, share)
    if not fits:
        raise ConfigError(
            f"Expected to get down to {step.latency:.0%} of the time, got {'; '.join(tried) or 'no cut that deep'}. "
            f"Try a larger share, or {setting('multiple_of', max(1, step.multiple_of // 2))}."
        )
    return "macs", fits, "; ".join(tried)


def _times(model: Any, smaller: Any) -> tuple[float, float]:
    """Returns the time of the model and that of the smaller one, in milliseconds: float32, LiteRT."""
    from edgeopt.conversion import Converter, ConvertOptions
    from edgeopt.techniques.timing import milliseconds

    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        paths = [Path(folder) / "before.tflite", Path(folder) / "after.tflite"]
        for one, path in zip((model, smaller), paths):
            Converter(_loaded(one, path), ConvertOptions()).convert("float32", path)
        first, second = milliseconds(paths)
    return first, second


def _loaded(model: Any, path: Path) -> LoadedModel:
    from edgeopt import graph
    from edgeopt.loading import LoadedModel

    inputs, outputs = (
        tuple(TensorSpec(graph.legal_name(name), tuple(t.shape), graph.dtype_name(t)) for name, t in named)
        for named in (graph.input_names(model), graph.output_names(model))
    )
    return LoadedModel(path, "keras2", inputs, outputs, model)


def _latency_promise(model: Any, smaller: Any, share: float) -> Promise:
    from edgeopt.techniques.timing import TIMES_VARY

    before, after = _times(model, smaller)
    promise = Promise("latency", limit=share * before, of=before, unit="ms")
    return promise.found(after, slack=TIMES_VARY, note="float32, LiteRT, one thread")


def _width_for(share: float, linear: float) -> float:
    """Returns the share of channels that leaves `share` of the MACs, of which `linear` are depthwise."""
    if linear == 1:
        return share
    return (-linear + (linear**2 + 4 * (1 - linear) * share) ** 0.5) / (2 * (1 - linear))


TECHNIQUE = Technique(
    "shrink",
    "Cut whole channels, heads or blocks out, and recover.",
    Shrink,
    apply,
    check,
    predict,
    typical=Shrink(width=0.75),
    changes_architecture=True,
    speeds_up=True,
    validate=validate,
    takes=4.0,
)
