"""Magnitude pruning: a float model goes in, the same architecture with zeros in its weights comes out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.choices import Range, option
from edgeopt.errors import ConfigError, setting
from edgeopt.prospects import PRUNABLE, SPARSE_KERNEL_ZEROS, ModelFacts, Prospect, gzipped_share
from edgeopt.steps import Step, TrainedStep, Training
from edgeopt.techniques.contract import Carried, Technique
from edgeopt.vocabulary import LayerChange, Promise, Property, Scheme, StepRecord

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.formats.contract import FileFacts
    from edgeopt.techniques.prune_masks import Goal, Renewals

# Sparsity rises over this share of the training that is left when it begins; the rest recovers.
RISE = 0.5
# A layer with a smaller share of the model's weights is left alone: zeros there save next to nothing and may cost much.
# At 80 % the first convolution of ResNet-8, 0.6 % of its weights, moves the outputs further than any other layer.
TINY = 0.01
# tfmot's N:M knows where the inputs of these lie.
_N_OF_M_KINDS = ("Dense", "Conv2D")
_ZEROS, _LEFT = "zeros", "most weights left"


@dataclass(frozen=True, kw_only=True)
class Prune(TrainedStep):
    """What may be said about pruning."""

    technique: ClassVar[str] = "prune"
    # ResNet-8 at 80 %, 10 epochs: 1.3 points lost with these, 4 with batches of 64 (and tiny layers pruned).
    defaults: ClassVar[Training] = Training(batch_size=32, learning_rate=2e-3)

    sparsity: float = option(
        0.5,
        "Share of each layer's weights that become zero.",
        above=0.0,
        below=1.0,
        hint="0.8",
        tried=Range(0.3, 0.9),
        only_with=("pattern", None),
    )
    schedule: str = option("polynomial", "How sparsity rises.", choices=("polynomial", "constant"))
    begin_epoch: float | None = option(None, "When pruning begins; at once if not given.", low=0.0)
    end_epoch: float | None = option(None, "When it reaches its goal, half-way if not given; the rest recovers.", low=0)
    begin_step: int | None = option(None, f"As {setting('begin_epoch')}, in training steps.", low=0)
    end_step: int | None = option(None, f"As {setting('end_epoch')}, in training steps.", low=0)
    pattern: str | None = option(
        None,
        "N:M (2:4: two zeros in every four inputs) or blocks of outputs x inputs (1x16).",
        metavar="N:M|RxC",
    )
    layers: tuple[str, ...] = option((), "Only these: names, kinds (Conv2D) or globs.", metavar="NAME")
    spare: tuple[str, ...] = option((), "All but these: names, kinds or globs.", metavar="NAME")
    layer_sparsity: Mapping[str, float] = option(
        {}, "Another sparsity for a layer, a kind or a glob.", low=0.0, below=1.0, metavar="NAME=SHARE"
    )
    by_sensitivity: bool = option(False, "Measure what each layer loses and spread the sparsity by it.")
    for_xnnpack: bool = option(False, "Only what XNNPACK's sparse kernels can use (tfmot's latency policy).")

    def __post_init__(self) -> None:
        super().__post_init__()
        for when in ("begin", "end"):
            if getattr(self, f"{when}_epoch") is not None and getattr(self, f"{when}_step") is not None:
                epoch, step = setting(f"{when}_epoch"), setting(f"{when}_step")
                raise ConfigError(f"Expected {epoch} or {step}, got both. Try {epoch} alone.")
        ends = self.end_epoch is not None or self.end_step is not None
        if self.schedule == "constant" and ends:
            raise ConfigError(
                "Expected no end for a constant schedule, which is at its goal at once, got one. "
                f"Try {setting('schedule', 'polynomial')}."
            )
        n_of_m, _ = _pattern(self.pattern)
        if n_of_m is not None:
            self._check_n_of_m(*n_of_m, ends=ends)
        if self.for_xnnpack:
            self._check_for_xnnpack()

    def _check_n_of_m(self, zeros: int, group: int, *, ends: bool) -> None:
        if ends:
            raise ConfigError(f"Expected no end for the pattern {self.pattern}, which is set at once, got one.")
        if self.by_sensitivity or self.layer_sparsity:
            raise ConfigError(
                f"Expected one sparsity for every layer, that of the pattern {self.pattern}, got "
                f"{setting('by_sensitivity' if self.by_sensitivity else 'layer_sparsity')}. Try without it."
            )
        if self.sparsity not in (type(self).sparsity, zeros / group):
            raise ConfigError(
                f"Expected no sparsity beside the pattern {self.pattern}, which makes it {zeros / group:.0%}, got "
                f"{self.sparsity:g}. Try without it."
            )

    def _check_for_xnnpack(self) -> None:
        if self.pattern is not None:
            raise ConfigError(
                f"Expected no pattern with {setting('for_xnnpack')}, whose kernels take zeros anywhere, got "
                f"{self.pattern}."
            )
        if self.sparsity <= SPARSE_KERNEL_ZEROS:
            raise ConfigError(
                f"Expected a sparsity of more than {SPARSE_KERNEL_ZEROS:.2f} with {setting('for_xnnpack')}, where its "
                f"sparse kernels begin, got {self.sparsity:g}. Try 0.8."
            )


def validate(step: Prune, training: Training, steps_per_epoch: int | None = None) -> None:
    """Checks that the schedule fits the training.

    Args:
        training: with nothing left unsaid.
        steps_per_epoch: None where it is not known yet: begin and end in steps are then not looked at.

    Raises:
        ConfigError: pruning would begin or end after it, or end before it begins.
    """
    epochs = training.epochs or 0
    begin = _checked_time(step, "begin", epochs, steps_per_epoch)
    end = _checked_time(step, "end", epochs, steps_per_epoch)
    if end is not None and end <= (begin or 0):
        raise ConfigError(
            f"Expected pruning to end after it begins, at {begin or 0:g}, got an end at {end:g} "
            f"{'epochs' if steps_per_epoch is None else 'steps'}. Try a later end."
        )


def _checked_time(step: Prune, when: str, epochs: int, steps_per_epoch: int | None) -> float | None:
    """Returns when pruning begins or ends, in steps where an epoch's are known and else in epochs; None if not said."""
    epoch, number = getattr(step, f"{when}_epoch"), getattr(step, f"{when}_step")
    if epoch is not None:
        if epoch > epochs or (when == "begin" and epoch == epochs):
            raise ConfigError(
                f"Expected a schedule inside the training, got "
                f"{setting(f'{when}_epoch', f'{epoch:g}')}, which lies after the {epochs} "
                f"epochs of it. Try an earlier {when}, or more epochs."
            )
        return epoch if steps_per_epoch is None else round(epoch * steps_per_epoch)
    if number is None or steps_per_epoch is None:
        return None
    total = epochs * steps_per_epoch
    if number > total or (when == "begin" and number == total):
        raise ConfigError(
            f"Expected a schedule inside the training, got {setting(f'{when}_step', number)}, which lies after the "
            f"{total} steps of it ({epochs} epochs of {steps_per_epoch}). Try an earlier {when}, or more epochs."
        )
    return number


def apply(step: Prune, model: Any, data: Dataset, carried: Carried) -> tuple[Any, StepRecord]:
    """Returns a copy of `model` with zeros in its weights, trained to do without them, and what was done.

    Raises:
        ConfigError: the schedule does not fit the training, a layer that was named is not there, or none can be pruned.
    """
    from edgeopt import graph
    from edgeopt.techniques.prune_masks import Masker
    from edgeopt.techniques.recovery import recover
    from edgeopt.training import steps_per_epoch

    start = time.perf_counter()
    training = step.training(carried.training)
    validate(step, training)
    pruned = graph.flatten(model)
    goals, changes, notes = _goals(step, pruned, data, carried.seed)
    masker = Masker(goals, lambda steps: _renewals(step, training, steps))
    per_epoch = steps_per_epoch(len(data.training), training.batch_size or 1)
    done = recover(
        step,
        pruned,
        data,
        carried,
        before=model,
        what="pruning",
        callbacks=[masker],
        settled_epoch=_renewals(step, training, per_epoch).end // per_epoch,
        # In a trial's few steps it would not be the same pruning.
        scalable=step.begin_step is None and step.end_step is None,
    )
    promises = tuple(promise for goal in goals for promise in _measured_in_model(goal))
    if not all(promise.kept for promise in promises):
        notes = (*notes, "the weights are those of before the sparsity was reached")
    record = StepRecord(
        technique=step.technique,
        settings=step.said(),
        variant=step.pattern or "",
        layers=changes,
        promises=promises,
        history=done.history,
        seconds=time.perf_counter() - start,
        notes=(*notes, *done.notes),
    )
    return pruned, record


def check(step: Prune, record: StepRecord, file: FileFacts) -> tuple[Promise, ...]:
    """Returns the record's promises with the zeros that the file's weights have.

    Where the tensor of a kernel cannot be told, the zeros of all weights stand for it. One that the file does without
    has no promise to keep.
    """
    from edgeopt.techniques import in_file

    sought = {p.subject: in_file.Sought(p.subject, int(p.of or 0)) for p in record.promises if p.kind == _ZEROS}
    found, everything = in_file.find(file, list(sought.values()))
    tensors = dict(zip(sought, found))
    gone = in_file.left_out(file, list(sought.values()), found)
    limits = [p.limit or 0 for p in record.promises if p.kind == _ZEROS and p.subject not in gone]
    kept = sum(t.zeros or 0 for t in everything) >= sum(limits)
    promises = []
    for promise in record.promises:
        tensor = tensors[promise.subject]
        if promise.subject in gone:
            note = "it is not in the file: no output needs it"
            promises.append(replace(promise, measured=None, kept=None, note=note))
        elif tensor is None:
            note = "its tensor cannot be told in the file: the zeros of all weights stand for it"
            promises.append(replace(promise, measured=None, kept=kept, note=note))
        elif promise.kind == _ZEROS:
            promises.append(promise.found(tensor.zeros or 0))
        elif (stored := file.values(tensor)) is not None:
            promises.append(promise.found(_most_left(stored, int(promise.of or 1))))
        else:
            promises.append(replace(promise, measured=None, kept=None, note="it is encoded as sparse: not counted"))
    return tuple(promises)


def predict(step: Prune, facts: ModelFacts) -> Prospect:
    """Returns what pruning will bring, and what it will not."""
    n_of_m, _ = _pattern(step.pattern)
    sparsity = n_of_m[0] / n_of_m[1] if n_of_m else step.sparsity
    share = facts.share("pointwise") if step.for_xnnpack else facts.share(*PRUNABLE)
    if not share and not step.layers:
        none = "1x1 convolutions" if step.for_xnnpack else "kernels other than depthwise ones, which bear few zeros"
        return Prospect("none", f"there are no {none}: name the layers to prune them", possible=False)
    dense = gzipped_share(facts.zeros)
    sparse = gzipped_share(1 - (1 - facts.zeros) * (1 - sparsity * share))
    where = " of the layers that it takes" if step.layers or step.spare else ""
    gain = f"at {100 * sparsity:.3g} % zeros the gzipped int8 weights{where} shrink to about {sparse / dense:.0%}"
    reasons = ["a pruned file is as large as before: only compressed storage or transfer gains"]
    if facts.zeros > 0.05:
        reasons.append(f"{facts.zeros:.0%} of the weights are zero already")
    pointwise = facts.macs_share("pointwise")
    if step.for_xnnpack:
        reasons.append(
            f"with XNNPACK, float32 or float16, the 1x1 convolutions ({pointwise:.0%} of the MACs) run on sparse "
            "kernels, 1.2 to 2.4 times as fast on ARM as published, no faster on x86"
        )
    else:
        reasons.append(
            f"XNNPACK's sparse kernels take float 1x1 convolutions with over {SPARSE_KERNEL_ZEROS:.0%} zeros: "
            f"{pointwise:.0%} of the MACs here" + ("" if pointwise > 0.3 else ", so no faster")
        )
    if depthwise := facts.share("depthwise"):
        reasons.append(f"depthwise kernels ({depthwise:.1%} of the weights) are pruned where named alone")
    return Prospect(gain, "; ".join(reasons))


def remarks(step: Prune, earlier: Sequence[Step], schemes: Sequence[Scheme]) -> Iterator[str]:
    """Yields what of a step is pointless."""
    if step.for_xnnpack and not any(scheme.activations == "float32" for scheme in schemes):
        names = ", ".join(scheme.name for scheme in schemes)
        yield f"for_xnnpack restricts pruning for the sake of kernels that {names} does not use"
    if any(isinstance(other, Prune) and other.sparsity >= step.sparsity for other in earlier):
        yield f"an earlier step asks for as many zeros as its {step.sparsity:.0%}, or more"


def _measured_in_model(goal: Goal) -> Iterator[Promise]:
    import numpy as np

    from edgeopt.techniques.prune_masks import zeros_of

    values, path = goal.kernel.numpy(), goal.kernel.name.split(":")[0]
    zeros = Promise(_ZEROS, path, limit=zeros_of(goal), bound="least", of=values.size, unit="weights")
    yield zeros.found(values.size - np.count_nonzero(values), note="in the Keras model")
    if goal.n_of_m is not None:
        count, group = goal.n_of_m
        left = Promise(_LEFT, path, limit=group - count, of=group, unit="neighbouring inputs")
        yield left.found(_most_left(np.moveaxis(values, -2, -1), group), note="in the Keras model")


def _most_left(values: Any, group: int) -> int:
    """Returns the most weights other than zero in `group` neighbours along the last axis, the inputs."""
    import numpy as np

    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % group)])
    return int(np.count_nonzero(padded.reshape(-1, group), axis=1).max())


def _pattern(pattern: str | None) -> tuple[tuple[int, int] | None, tuple[int, int]]:
    """Returns N:M or None, and the block as tfmot has it: [inputs, outputs].

    Raises:
        ConfigError: it is neither.
    """
    if pattern is None:
        return None, (1, 1)
    words = re.fullmatch(r"\s*(\d+)\s*([:xX])\s*(\d+)\s*", pattern)
    if words is not None:
        first, second = int(words[1]), int(words[3])
        if words[2] == ":" and 0 < first < second:
            return (first, second), (1, 1)
        if words[2] != ":" and first > 0 and second > 0 and first * second > 1:
            return None, (second, first)
    raise ConfigError(
        f"Expected N:M, N zeros in every M inputs, or blocks RxC as pattern, got {pattern!r}. Try 2:4 or 1x16."
    )


def _renewals(step: Prune, training: Training, steps_per_epoch: int) -> Renewals:
    """Returns when masks are renewed in a training of so many steps an epoch."""
    from edgeopt.techniques.prune_masks import renewals

    validate(step, training, steps_per_epoch)
    epochs = training.epochs or 1
    begin = round(_checked_time(step, "begin", epochs, steps_per_epoch) or 0)
    if _pattern(step.pattern)[0] is not None:
        return renewals(begin, begin)
    end = _checked_time(step, "end", epochs, steps_per_epoch)
    if end is None:
        end = begin + RISE * (epochs * steps_per_epoch - begin)
    return renewals(begin, round(end), gradual=step.schedule == "polynomial")


def _goals(
    step: Prune, model: Any, data: Dataset, seed: int
) -> tuple[tuple[Goal, ...], tuple[LayerChange, ...], tuple[str, ...]]:
    """Returns the goal of each kernel, what becomes of each layer, and what is worth saying.

    Raises:
        ConfigError: no layer can be pruned.
    """
    from edgeopt.techniques.prune_masks import Goal
    from edgeopt.techniques.selection import is_named, kernels, select_layers

    n_of_m, block = _pattern(step.pattern)
    asked = {id(layer) for layer in select_layers(model, step.layers, step.spare)}
    allowed = _xnnpack_policy(step, model)
    taken: list[tuple[Any, list[Any]]] = []
    reasons: dict[int, str] = {}
    total = sum(_size(kernel) for layer in select_layers(model) for kernel in kernels(layer))
    for layer in select_layers(model):
        if not kernels(layer) and not is_named(layer, step.layers):
            continue
        variables = _multiplied(layer, step)
        share = sum(map(_size, variables)) / (total or 1)
        reasons[id(layer)] = _why_not(step, layer, variables, share, id(layer) in asked, allowed)
        if not reasons[id(layer)]:
            taken.append((layer, variables))
    if not taken:
        found = set(reasons.values()) or {"it has no layers with kernels"}
        raise ConfigError(f"Expected a model with layers to prune, got none: {'; '.join(sorted(found))}.")
    sparsities, notes = _sparsities(step, model, taken, data, seed)
    goals = tuple(
        Goal(variable, sparsities[layer.name], n_of_m, block) for layer, variables in taken for variable in variables
    )
    done = {layer.name: _words(step, [g for g in goals if any(g.kernel is v for v in own)]) for layer, own in taken}
    changes = tuple(
        LayerChange(layer.name, type(layer).__name__, done=done.get(layer.name, ""), reason=reasons[id(layer)])
        for layer in select_layers(model)
        if id(layer) in reasons
    )
    return goals, changes, notes


def _multiplied(layer: Any, step: Prune) -> list[Any]:
    """Returns the kernels of `layer` that are pruned: depthwise ones where the layer was named alone."""
    from edgeopt.techniques.selection import is_named, kernel_name, kernels

    named = is_named(layer, (*step.layers, *step.layer_sparsity))
    return [kernel for kernel in kernels(layer) if named or kernel_name(kernel) != "depthwise_kernel"]


def _why_not(step: Prune, layer: Any, variables: list[Any], share: float, asked: bool, allowed: Any) -> str:
    """Returns why `layer`, which has `share` of the model's weights, is left alone; "" where it is not."""
    from edgeopt.techniques.selection import is_named, kernels

    n_of_m, block = _pattern(step.pattern)
    kind = type(layer).__name__
    if not asked:
        return "it was not asked for" if step.layers and not is_named(layer, step.spare) else "it is spared"
    if not variables:
        return (
            "depthwise kernels are few and fragile: tfmot leaves them out; name the layer or its kind to prune it"
            if kernels(layer)
            else "it has no kernels"
        )
    named = is_named(layer, (*step.layers, *step.layer_sparsity))
    if share < TINY and not named and not step.by_sensitivity:
        return f"it has {share:.1%} of the weights: zeros there save nothing and cost accuracy; name it to prune it"
    if allowed is not None and not allowed(layer):
        return "XNNPACK's sparse kernels are for 1x1 convolutions"
    if n_of_m is not None:
        if kind not in _N_OF_M_KINDS:
            return f"tfmot sets N:M in {' and '.join(_N_OF_M_KINDS)} alone"
        inputs = variables[0].shape[-2]
        if inputs <= n_of_m[1] - n_of_m[0]:
            return f"the pattern {step.pattern} needs more than {n_of_m[1] - n_of_m[0]} inputs, and it has {inputs}"
    if block != (1, 1):
        if any(len(variable.shape) != 2 for variable in variables):
            return "tfmot's blocks are for kernels of two axes, those of Dense layers"
        if any(-(-length // by) < 2 for v in variables for length, by in zip(v.shape, block)):
            return f"its {variables[0].shape[0]} inputs and {variables[0].shape[1]} outputs are too few for blocks"
    return ""


def _size(kernel: Any) -> int:
    return int(kernel.shape.num_elements())


def _xnnpack_policy(step: Prune, model: Any) -> Any:
    """Returns tfmot's test of a layer, None where none is asked for.

    Raises:
        ConfigError: XNNPACK would run nothing of the model sparse.
    """
    if not step.for_xnnpack:
        return None
    from edgeopt.frameworks import load

    policy = load("tfmot").sparsity.keras.PruneForLatencyOnXNNPack()
    try:
        policy.ensure_model_supports_pruning(model)
    except ValueError as error:
        raise ConfigError(
            f"Expected a model that XNNPACK runs on its sparse kernels, got one that it does not: {error}. "
            f"Try without {setting('for_xnnpack')}: smaller when compressed, no faster."
        ) from None
    return policy.allow_pruning


def _sparsities(
    step: Prune, model: Any, taken: list[tuple[Any, list[Any]]], data: Dataset, seed: int
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Returns layer → sparsity, and what was measured to find it."""
    from edgeopt.techniques.selection import is_named, named_layers

    found = dict.fromkeys((layer.name for layer, _ in taken), step.sparsity)
    named_layers(model, tuple(step.layer_sparsity), "layer_sparsity")
    said = {
        layer.name: share
        for word, share in step.layer_sparsity.items()
        for layer, _ in taken
        if is_named(layer, (word,))
    }
    said.update({name: share for name, share in step.layer_sparsity.items() if name in found})
    notes: tuple[str, ...] = ()
    if step.by_sensitivity:
        from edgeopt.techniques import prune_sensitivity

        free = {layer.name: variables for layer, variables in taken if layer.name not in said}
        losses = prune_sensitivity.measure(model, free, data.training, seed=seed)
        sizes = {name: sum(map(_size, variables)) for name, variables in free.items()}
        found.update(prune_sensitivity.spread(losses, sizes, min(step.sparsity, prune_sensitivity.HIGHEST)))
        notes = tuple(
            f"sensitivity of {name}: "
            + ", ".join(f"{s:.0%} → {loss:.3g}" for s, loss in zip(prune_sensitivity.SPARSITIES, row))
            for name, row in losses.items()
        )
    return {**found, **said}, notes


def _words(step: Prune, goals: list[Goal]) -> str:
    from edgeopt.techniques.prune_masks import zeros_of

    size = sum(_size(goal.kernel) for goal in goals)
    zeros = sum(zeros_of(goal) for goal in goals)
    words = f"{zeros / size:.1%} of {size:,} weights zero"
    return words + (f", {step.pattern}" if step.pattern else "")


TECHNIQUE = Technique(
    "prune",
    "Set the smallest weights to zero, gradually, and recover.",
    Prune,
    apply,
    check,
    predict,
    typical=Prune(sparsity=0.8),
    ensures=frozenset({Property.SPARSE}),
    keeps=frozenset({Property.SPARSE}),
    validate=validate,
    remarks=remarks,
)
