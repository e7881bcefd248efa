"""A float file, a quantized one, samples and a choice go in; what the outputs lose by each layer alone in it comes out.

Losses of a choice are measured in one way and kept in one place, whoever asks: to give layers bits, to show a person
which layers to spare, to foretell what a technique will bring.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgeopt import progress
from edgeopt.repairing.closeness import errors, held_at_once, reference
from edgeopt.repairing.running import RUNS
from edgeopt.rounding import softmaxed
from edgeopt.rounding.alone import Alone, Choice
from edgeopt.runtimes import Runtime
from edgeopt.tflite.reader import read_once

if TYPE_CHECKING:
    from edgeopt.data import Part

TASK = "measuring sensitivity"
# Enough to order layers by.
SAMPLES = 200


@dataclass(frozen=True)
class LayerLoss:
    """What is lost by one layer alone.

    Attributes:
        name: of the tensor that it writes, in the quantized file.
        layer: its own name.
        kind: its operator.
        weights: how many numbers it multiplies with.
        error: mean squared error of the file's outputs as a share of their variance; of what speaks, by what a
            softmax heeds.
    """

    name: str
    layer: str
    kind: str
    weights: int
    error: float


@dataclass(frozen=True)
class Losses:
    """What is lost by a choice.

    Attributes:
        choice: its name.
        samples: how many the errors were measured on; nothing was fitted on them.
        layers: those that the choice means something for, in the order in which they compute.
        together: the error with all of them in it at once; of "float", with all in int8.
    """

    choice: str
    samples: int
    layers: tuple[LayerLoss, ...]
    together: float

    def of(self, name: str) -> float:
        """Returns the error of a layer by the name of its tensor.

        Raises:
            KeyError: the choice means nothing for such a layer.
        """
        return {layer.name: layer.error for layer in self.layers}[name]


def losses(
    float_file: Path, part: Part, runtime: Runtime = RUNS, *, quantized: Path, choice: Choice, seed: int = 0
) -> Losses:
    """Returns what the outputs of the whole model lose by each layer alone, on samples without labels.

    Args:
        float_file: the model without quantization.
        part: samples; two thirds choose integers, the rest measure.
        runtime: that runs the files.
        quantized: the same model in integers, whose ranges count.
        choice: what a layer becomes.
        seed: of every random choice.

    Raises:
        DataError: there are too few samples.
        ModelError: a file cannot be read, or does not run.
    """
    alone = Alone(float_file.read_bytes(), quantized.read_bytes(), part, seed=seed)
    held = held_at_once(float_file, alone.held)
    model = read_once(float_file)
    heeded = softmaxed.speaks(model, part) and not softmaxed.probabilities(model)
    real = reference(float_file, held, runtime, heed=softmaxed.counts if heeded else None)
    places = [place for place in alone.places if alone.can(place, choice)]

    def lost(content: bytes) -> float:
        with TemporaryDirectory(prefix="edgeopt-") as folder:
            file = Path(folder) / "alone.tflite"
            file.write_bytes(content)
            return float(errors(real, file, held, runtime).mean())

    def each() -> Iterator[LayerLoss]:
        for done, place in enumerate(places):
            progress.tell(TASK, done, len(places), f"{choice.name}, {place.layer}")
            weights = place.uses[0].floating.weight.elements if place.uses else 0
            yield LayerLoss(place.name, place.layer, place.kind, weights, lost(alone.file(place, choice)))

    found = Losses(choice.name, len(held), tuple(each()), lost(alone.together(choice)) if places else 0.0)
    progress.tell(TASK, len(places), len(places))
    return found
