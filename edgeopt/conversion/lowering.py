"""A loaded model goes in; the graph and the float `.tflite` that quantizers start from come out.

A fake-quantized model is one more float file once its rounding is taken out: int8 then takes the trained ranges where
there are some and calibrated ones elsewhere, so that no operator stays in float for want of a range. In float schemes
it computes with its rounded weights and without the rounding of activations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt import frameworks, progress
from edgeopt.conversion.quantizers import tensorflow_graph
from edgeopt.tflite import trained_ranges

if TYPE_CHECKING:
    from edgeopt.loading import LoadedModel


@dataclass(frozen=True)
class Graph:
    """A model as a SavedModel of one function.

    Attributes:
        folder: where it is.
        rounds: whether it simulates integers.
    """

    folder: Path
    rounds: bool


@dataclass(frozen=True)
class Floating:
    """A model as a float `.tflite`.

    Attributes:
        content: the file, without any rounding.
        ranges: of the activations that were trained with their rounding, by tensor.
        simulation: the file that rounds as it was trained to; None where it never did.
    """

    content: bytes = field(repr=False)
    ranges: trained_ranges.Ranges = field(default_factory=dict, repr=False)
    simulation: bytes | None = field(default=None, repr=False)


def graph_of(model: LoadedModel, folder: Path, *, batch_size: int | None) -> Graph:
    """Writes a model in inference to `folder`, as a SavedModel with named inputs and outputs."""
    tf = frameworks.load("tensorflow")
    progress.tell("lowering the model")
    function = model.inference_function(batch_size)
    module = tf.Module()
    module.variables_of_the_graph = list(function.variables)
    module.tables_of_the_graph = _tables(model)
    tf.saved_model.save(module, str(folder), signatures={tensorflow_graph.SIGNATURE: function})
    return Graph(folder, _rounds(function))


def _tables(model: LoadedModel) -> list[Any]:
    """Returns the look-up tables of a model's layers, which a graph may refer to only when it is saved with them."""
    resource = frameworks.load("tensorflow").saved_model.experimental.TrackableResource
    keras = model.keras if model.keras is not None else model.original
    layers = keras._flatten_layers() if hasattr(keras, "_flatten_layers") else ()
    return [value for layer in layers for value in vars(layer).values() if isinstance(value, resource)]


def float_file_of(graph: Graph) -> Floating:
    """Returns a graph as a float file, its rounding apart."""
    content = tensorflow_graph.convert(graph.folder)
    if not graph.rounds:
        return Floating(content)
    return Floating(*trained_ranges.separated(content), trained_ranges.simulation(content))


def _rounds(function: Any) -> bool:
    """Whether a concrete function simulates integers."""
    definition = function.graph.as_graph_def()
    nodes = (node for part in (definition.node, *(f.node_def for f in definition.library.function)) for node in part)
    return any(node.op.startswith("FakeQuant") for node in nodes)
