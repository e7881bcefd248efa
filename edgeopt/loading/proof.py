"""Proof that a model came through loading unharmed: two models go in, how far their outputs lie apart comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeopt import graph, keras_bridge
from edgeopt.errors import ModelError

TOLERANCE = 1e-5  # of an output's range
REDUCED_TOLERANCE = 5e-2  # of it, against a model that computes in 16 bits itself

# Sizes tried for free dimensions, of images and of sequences: large enough for most networks, then larger.
_FREE_SIZES = ((64, 16), (160, 64), (299, 256))


def prove(
    original: Any, rebuilt: Any, *, tolerance: float = TOLERANCE, probe: Mapping[str, np.ndarray] | None = None
) -> float:
    """Raises ModelError unless two models agree on the same inputs.

    Args:
        original: a functional or Sequential model of either Keras.
        rebuilt: what was made of it, with the same inputs and outputs in the same order.
        tolerance: the largest difference allowed, as a share of each output's range.
        probe: real inputs by name; without it, inputs are generated, from a fixed seed.

    Returns:
        The largest difference, as a share of the output's range.
    """
    inputs, expected = _run_somehow(original, probe)
    values = outputs_of(rebuilt, inputs)
    names = [name for name, _ in graph.output_names(original)]
    differences = [keras_bridge.relative_difference(e, v) for e, v in zip(expected, values)]
    worst = int(np.argmax(differences))
    if differences[worst] > tolerance:
        first = keras_bridge.first_difference(original, rebuilt, inputs, tolerance=tolerance)
        where = f"; the first layer that differs is {first[0]!r}, by {first[1]:.2g}" if first else ""
        raise ModelError(
            f"Expected the same outputs before and after loading, within {tolerance:g} of their range, "
            f"got a difference of {differences[worst]:.2g} at output {names[worst]!r}{where}. "
            "Try replacing that layer in the code that builds the model."
        )
    return differences[worst]


def outputs_of(model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the outputs of a functional model of either Keras, in the order of `graph.output_names`."""
    results = model(graph.structured_inputs(model, [np.asarray(value) for value in inputs]), training=False)
    arrays = [np.asarray(leaf) for leaf in graph.leaves(results)]
    return [array.astype(np.float32) if array.dtype.name == "bfloat16" else array for array in arrays]


def generated_inputs(
    model: Any,
    *,
    image_size: int = 64,
    length: int = 16,
    samples: int = 2,
    shapes: Sequence[Sequence[int | None]] | None = None,
) -> list[np.ndarray]:
    """Returns inputs that a model can take, always the same: normal floats, digits, integers that its embeddings know.

    An input that Keras made of floats, its default, may be read by an embedding as well.

    Args:
        model: a functional or built Sequential model of either Keras.
        image_size: what free dimensions of inputs with four dimensions and more become.
        length: what free dimensions of others become.
        samples: the batch, where it is free.
        shapes: of the inputs, in place of the model's own.
    """
    generator = np.random.default_rng(7)
    limit, read_as_integers = _integer_limit(model), _read_as_integers(model)
    inputs = []
    named = graph.input_names(model)
    for (name, tensor), given in zip(named, shapes or [tensor.shape for _, tensor in named]):
        free = image_size if len(given) >= 4 else length
        shape = [samples if i == 0 and size is None else size or free for i, size in enumerate(given)]
        dtype = graph.dtype_name(tensor)
        if dtype == "bool":
            inputs.append(generator.random(shape) < 0.7)
        elif dtype == "string":
            inputs.append(generator.integers(0, limit, shape).astype(str).astype(object))
        elif dtype.startswith(("int", "uint")):
            inputs.append(generator.integers(0, limit, shape).astype(dtype))
        elif name in read_as_integers:
            inputs.append(generator.integers(0, limit, shape).astype("float32"))
        else:
            inputs.append(generator.standard_normal(shape).astype("float32"))
    return inputs


def _run_somehow(model: Any, probe: Mapping[str, np.ndarray] | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    if probe is not None:
        missing = [name for name, _ in graph.input_names(model) if name not in probe]
        if missing:
            raise ModelError(f"Expected samples for every input, got none for {missing}. Try naming them so.")
        inputs = [np.asarray(probe[name]) for name, _ in graph.input_names(model)]
        return inputs, outputs_of(model, inputs)
    free = any(size is None for _, tensor in graph.input_names(model) for size in tuple(tensor.shape)[1:])
    sizes = _FREE_SIZES if free else _FREE_SIZES[:1]
    for image_size, length in sizes:
        inputs = generated_inputs(model, image_size=image_size, length=length)
        try:
            return inputs, outputs_of(model, inputs)
        # A size that the network's strides do not fit may raise anything; the last one is told.
        except Exception as error:
            failure = error
    lines = [line for line in str(failure).splitlines() if line.strip()] or [type(failure).__name__]
    raise ModelError(
        f"Expected a model that runs, got an error from {getattr(model, 'name', 'it')!r} itself on generated inputs: "
        f"{lines[0]} Try model.predict() on one of your samples in Keras."
    ) from failure


def _read_as_integers(model: Any) -> set[str]:
    """Returns the inputs that reach an embedding or an encoding through layers without weights."""
    found: set[str] = set()
    origins = {id(tensor): {name} for name, tensor in graph.input_names(model)}
    for call in graph.flat_calls(model):
        read = set().union(*(origins.get(id(x), ()) for x in graph.leaves([*call.args, *call.kwargs.values()])))
        if _limits(call.layer):
            found |= read
        elif not getattr(call.layer, "weights", ()):
            origins |= {id(tensor): read for tensor in call.outputs}
    return found


def _integer_limit(model: Any) -> int:
    """Returns how many different integers every embedding and encoding of the model knows."""
    return min((limit for call in graph.flat_calls(model) for limit in _limits(call.layer)), default=100)


def _limits(layer: Any) -> list[int]:
    options = ("input_dim", "num_tokens", "input_dimension")
    return [value for option in options if isinstance(value := getattr(layer, option, None), int)]
