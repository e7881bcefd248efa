"""A workspace and choices go in; what its model loses by each layer alone in each of them comes out.

First what the outputs of the whole model lose, without labels (`rounding.losses`, which the workspace keeps for
whoever asks); then, where there are labels, the score itself, with its doubt, for the layers that matter. Nothing is
trained: it says which layers to spare, not what a recovery brings back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgeopt import progress
from edgeopt.errors import ConfigError, ConversionError, DataError, EdgeoptError, suggestion
from edgeopt.evaluation import Evaluation, evaluate_here, in_worker
from edgeopt.repairing.running import RUNS
from edgeopt.rounding.alone import CHOICES, Alone, Choice, width, zeros
from edgeopt.rounding.losses import SAMPLES, LayerLoss, Losses
from edgeopt.vocabulary import Difference, LayerLosses, Loss, MetricValue, Sensitivity, Variant
from edgeopt.workspace import Workspace

if TYPE_CHECKING:
    from edgeopt.data import Part
    from edgeopt.runtimes import Runtime

# What may be asked for; the last two of each sparsity and width.
NAMES = (*CHOICES, "sparsity", "width")
SPARSITIES = (0.5, 0.8)
WIDTHS = (0.5,)
# Layers whose scores are measured, for each choice at most; those that make so much of the loss matter.
EXACT = 3
_MATTERS = 0.9
# Samples that are scored; beyond these a layer's loss is known well enough to be spared or not.
_SCORED = 1000


def chosen(
    names: Sequence[str] = NAMES, *, sparsities: Sequence[float] = SPARSITIES, widths: Sequence[float] = WIDTHS
) -> tuple[Choice, ...]:
    """Returns choices by their names.

    Raises:
        ConfigError: there is none of a name, or a share is not between 0 and 1.
    """
    found: list[Choice] = []
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"Expected some of {', '.join(NAMES)} as choices, got {name!r}.{suggestion(name, NAMES)}")
        shares, make = {"sparsity": (sparsities, zeros), "width": (widths, width)}.get(name, ((), zeros))
        for share in shares:
            if not 0 < share < 1:
                raise ConfigError(f"Expected a {name} between 0 and 1, got {share:g}. Try --{name} 0.5.")
        found += [CHOICES[name]] if name in CHOICES else [make(share) for share in shares]
    if not found:
        raise ConfigError(f"Expected at least one choice, got none. Try --choices {','.join(CHOICES)}.")
    return tuple(dict.fromkeys(found))


def measure(workspace: Workspace, choices: Sequence[Choice], *, exact: int = EXACT, seed: int = 0) -> Sensitivity:
    """Returns what the model of a workspace loses by each of its layers alone.

    Args:
        workspace: with data to calibrate with; labels only for scores.
        choices: what a layer becomes.
        exact: layers whose scores are measured, for each choice at most.
        seed: of every random choice.

    Raises:
        ConfigError: there is no such metric or output.
        ConversionError: the model has no file in floats or in int8.
        DataError: the data do not fit the model, or there are too few samples.
        ModelError: the model cannot be read, or a file does not run.
    """
    warnings = workspace.warnings
    floating, quantized = (workspace.converted(workspace.original, name) for name in ("float32", "int8"))
    for variant in (floating, quantized):
        if variant.error is not None:
            raise ConversionError(variant.error)
    tables = [workspace.losses(floating, quantized, choice, seed=seed) for choice in choices]
    metric, why = _scorable(workspace, floating) if exact else (None, ())
    scores = {
        choice.name: _scores(workspace, floating, quantized, choice, _that_matter(table, exact), seed)
        for choice, table in zip(choices, tables)
        if metric is not None
    }
    return Sensitivity(
        max(table.samples for table in tables),
        metric,
        tuple(choice.name for choice in choices),
        _by_layer(tables, scores),
        {table.choice: Loss(decibel(table.together)) for table in tables},
        (*why, *warnings),
    )


def decibel(error: float) -> float:
    """Returns the signal to noise of a squared error that is a share of the variance."""
    return -10 * math.log10(error) if error > 0 else math.inf


def _by_layer(tables: Sequence[Losses], scores: Mapping[str, Mapping[str, Difference]]) -> tuple[LayerLosses, ...]:
    losses: dict[str, dict[str, Loss]] = {}
    facts: dict[str, LayerLoss] = {}
    # The choices that mean something everywhere have all layers in their order.
    for table in sorted(tables, key=lambda one: -len(one.layers)):
        for layer in table.layers:
            facts.setdefault(layer.name, layer)
    for table in tables:
        for layer in table.layers:
            score = scores.get(table.choice, {}).get(layer.name)
            losses.setdefault(layer.name, {})[table.choice] = Loss(decibel(layer.error), score)
    return tuple(LayerLosses(one.layer, name, one.kind, one.weights, losses[name]) for name, one in facts.items())


# --- scores -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """How much worse the score is, by the name of the tensor of the layer that was changed."""

    drops: Mapping[str, Difference]


def scored(
    float_file: Path,
    part: Part,
    runtime: Runtime,
    *,
    quantized: Path,
    choice: Choice,
    layers: Sequence[str],
    labelled: Part,
    metric: str | None,
    output: str | None,
    seed: int,
) -> Scores:
    """Returns how much worse the model's score is with each of some layers alone as chosen.

    Args:
        float_file, part, runtime, quantized, choice, seed: see `losses`.
        layers: names of the tensors that they write.
        labelled: what is scored.
        metric, output: see `evaluate`.
    """
    alone = Alone(float_file.read_bytes(), quantized.read_bytes(), part, seed=seed)

    def score(file: Path) -> Evaluation:
        return evaluate_here(
            file, labelled, runtime, metric=metric, output=output, threads=None, batch_size=None, delegate=None
        )

    real, drops = score(float_file), {}
    places = [place for place in alone.places if place.name in layers]
    with TemporaryDirectory(prefix="edgeopt-") as folder:
        file = Path(folder) / "alone.tflite"
        for done, place in enumerate(places):
            progress.tell("scoring layers", done, len(places), f"{choice.name}, {place.layer}")
            file.write_bytes(alone.file(place, choice))
            drops[place.name] = score(file).difference(real)
    return Scores(drops)


def _scores(
    workspace: Workspace, floating: Variant, quantized: Variant, choice: Choice, layers: tuple[str, ...], seed: int
) -> Mapping[str, Difference]:
    part = workspace.data.calibration.take(SAMPLES, seed=seed)
    labelled = workspace.data.deciding.take(_SCORED, seed=seed)
    conditions = workspace.conditions
    key = {
        "float": floating.sha256,
        "file": quantized.sha256,
        "part": part.digest(),
        "labelled": labelled.digest(),
        "choice": choice,
        "layers": layers,
        "metric": workspace.metric_content,
        "seed": seed,
    }

    def compute() -> Scores:
        found: Scores = in_worker(
            "edgeopt.sensitivities:scored",
            workspace.folder / str(floating.file),
            part,
            RUNS,
            quantized=workspace.folder / str(quantized.file),
            choice=choice,
            layers=layers,
            labelled=labelled,
            metric=conditions.scoring,
            output=conditions.output_name,
            seed=seed,
        )
        return found

    return workspace.remember("scores-alone", key, Scores, compute, uses=(RUNS.package,)).drops


def _that_matter(table: Losses, most: int) -> tuple[str, ...]:
    """Returns the layers that make the greater part of what is lost; of "float", of what is won."""
    wins = table.choice == "float"
    lost = {one.name: (table.together - one.error) if wins else one.error for one in table.layers}
    order = sorted((name for name, error in lost.items() if error > 0), key=lambda name: -lost[name])
    whole, found, told = sum(lost[name] for name in order), [], 0.0
    for name in order[:most]:
        found.append(name)
        told += lost[name]
        if told >= _MATTERS * whole:
            break
    return tuple(found)


def _scorable(workspace: Workspace, floating: Variant) -> tuple[MetricValue | None, tuple[str, ...]]:
    """Returns the float model's score; where there is none and nobody asked for one, why."""
    asked = workspace.conditions.scoring or workspace.conditions.output_name
    labelled = workspace.data.deciding.take(_SCORED, seed=0)
    if not len(labelled):
        return None, ("no scores: there are no samples apart from those to calibrate and train with",)
    try:
        found = workspace.score(floating, labelled)
    except (ConfigError, DataError) as error:
        found = error
    if isinstance(found, EdgeoptError):
        if asked:
            raise found
        return None, (f"no scores: {found}",)
    return found.metric, ()
