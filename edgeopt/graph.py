"""The layer graph of a functional model: a model goes in, its calls in order or a model built anew from them come out.

One walker serves both Keras: it feeds anything (symbolic tensors of either Keras, or real arrays) through a model's
graph, with nested models inlined, and leaves what each call does to a function. Cloning with replaced layers, the
bridge between the two Keras and the search for the first layer that differs are such functions.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeopt import frameworks
from edgeopt.errors import ModelError
from edgeopt.vocabulary import Shape, TensorSpec

if TYPE_CHECKING:
    import numpy as np

OTHER_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16", "half", "double")


@dataclass(frozen=True)
class Call:
    """One call of a layer (in Keras 3 also of an operation) in a graph.

    Attributes:
        layer: what is called.
        name: the layer's name in the flat graph, unique there.
        args, kwargs: as given, the graph's own symbolic tensors among them.
        outputs: the symbolic tensors that come out, flat.
    """

    layer: Any
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Any, ...] = field(repr=False, default=())


@dataclass(frozen=True)
class Replacement:
    """What stands in a layer's place.

    Attributes:
        layer: a layer, or any function of tensors.
        weights: what the layer starts with; None where it keeps its own.
        then: layers or functions that its output goes through, in turn.
    """

    layer: Callable[..., Any]
    weights: Sequence[np.ndarray] | None = None
    then: tuple[Callable[..., Any], ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what it makes of a call's arguments."""
        result = self.layer(*args, **kwargs)
        for function in self.then:
            result = function(result)
        return result


Step = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]


def functional(layer: Any) -> Any | None:
    """Returns the functional model that `layer` is or, as a Sequential, holds; None when it has no static graph.

    A class of the user's that overrides `call` has none: what it computes is in its code.
    """
    classes: dict[str, Any] = {_qualified(base): base for base in type(layer).__mro__}
    core = layer
    if "keras.src.models.sequential.Sequential" in classes:
        core = layer._functional
        standard = classes["keras.src.models.sequential.Sequential"].call
    elif "keras.src.models.functional.Functional" in classes:
        standard = classes["keras.src.models.functional.Functional"].call
    elif "tf_keras.src.engine.sequential.Sequential" in classes:
        standard = classes["tf_keras.src.engine.sequential.Sequential"].call
    elif "tf_keras.src.engine.functional.Functional" in classes:
        standard = classes["tf_keras.src.engine.functional.Functional"].call
    else:
        return None
    if (
        classes[_qualified(type(layer))].call is not standard
        or core is None
        or not getattr(core, "_nodes_by_depth", None)
    ):
        return None
    return core


def is_model(layer: Any) -> bool:
    """Whether `layer` is a model of either Keras, with a static graph or without."""
    names = {_qualified(base) for base in type(layer).__mro__}
    return bool(names & {"keras.src.models.model.Model", "tf_keras.src.engine.training.Model"})


def is_flat(model: Any) -> bool:
    """Whether `model` is functional and calls no other model."""
    core = functional(model)
    return core is model and not any(is_model(call.layer) for call in own_calls(core))


def input_names(model: Any) -> list[tuple[str, Any]]:
    """Returns the name and symbolic tensor of each input: the key where the model takes a dict, else its layer's."""
    return _named(_structures(_graph_of(model))[0])


def input_specs(model: Any) -> tuple[TensorSpec, ...]:
    """Returns name, shape and dtype of each input, as `data.bind` takes them."""
    return tuple(TensorSpec(name, tuple(t.shape), dtype_name(t)) for name, t in input_names(model))


def output_names(model: Any) -> list[tuple[str, Any]]:
    """Returns the name and symbolic tensor of each output: the key where the model gives a dict, else its layer's."""
    return _named(_structures(_graph_of(model))[1])


def own_calls(model: Any) -> list[Call]:
    """Returns the calls of a functional model in an order that can be run, its nested models' calls as one each.

    Only what the outputs need is there: symbolic losses and metrics are left out.
    """
    core = _graph_of(model)
    inputs, outputs = _structures(core)
    needed = {id(tensor) for tensor in leaves(outputs)}
    given = {id(tensor) for tensor in leaves(inputs)}
    found = []
    for depth in sorted(core._nodes_by_depth):
        for node in reversed(core._nodes_by_depth[depth]):
            call = _call(node)
            if any(id(tensor) in needed and id(tensor) not in given for tensor in call.outputs):
                needed.update(id(leaf) for leaf in leaves((call.args, call.kwargs)) if _is_symbolic(leaf))
                found.append(call)
    return found[::-1]


def flat_calls(model: Any) -> list[Call]:
    """Returns all calls of the flat graph; a nested model that is called twice gives its calls twice."""
    found: list[Call] = []

    def note(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found.append(Call(call.layer, call.name, args, kwargs, call.outputs))
        return call.outputs

    walk(model, [tensor for _, tensor in input_names(model)], note)
    return found


def walk(model: Any, inputs: Sequence[Any], step: Step) -> list[Any]:
    """Feeds `inputs` through the graph of `model`, nested models inlined, and returns what becomes of its outputs.

    Args:
        model: a functional or built Sequential model of either Keras.
        inputs: one value for each of `input_names(model)`.
        step: called for each call in order as step(call, args, kwargs), with the values in place of the graph's
            tensors; returns the call's outputs in the layer's own structure.

    Raises:
        ModelError: the model has no static graph.
    """
    core = _graph_of(model)
    names = _flat_names(core)
    values = {id(tensor): value for (_, tensor), value in zip(input_names(core), inputs)}
    _walk(core, values, step, names, None)
    return [values[id(tensor)] for _, tensor in output_names(core)]


def build(model: Any, keras: Any, step: Step, *, as_float32: bool = True, shapes: Sequence[Shape] | None = None) -> Any:
    """Builds a flat functional model in `keras` (the module of either) by walking `model` with `step`.

    Inputs and outputs are in the order of `input_names` and `output_names`; inputs are called as there. A dict of
    several becomes a list. `shapes`, with the batch first, fix what the inputs leave free.
    """
    inputs = []
    for number, (name, tensor) in enumerate(input_names(model)):
        shape = tuple(tensor.shape) if shapes is None else shapes[number]
        dtype = dtype_name(tensor)
        if as_float32 and dtype in OTHER_FLOATS:
            dtype = "float32"
        if keras.__name__ == "tf_keras":
            inputs.append(keras.Input(shape[1:], batch_size=shape[0], dtype=dtype, name=legal_name(name)))
        else:
            inputs.append(keras.Input(batch_shape=shape, dtype=dtype, name=legal_name(name)))
    outputs = walk(model, inputs, step)
    single = inputs[0] if len(inputs) == 1 else inputs
    return keras.Model(single, outputs[0] if len(outputs) == 1 else outputs, name=legal_name(model.name))


def rebuild(
    model: Any,
    layer_fn: Callable[[Any], Replacement | None] | None = None,
    *,
    as_float32: bool = False,
    shapes: Sequence[Shape] | None = None,
) -> Any:
    """Returns a flat copy of a tf_keras model in which `layer_fn` may replace layers.

    Args:
        model: a functional or built Sequential tf_keras model; it stays as it is.
        layer_fn: asked once for each layer, however often it is called; None (the default, and as an answer) clones
            the layer with its weights. A layer of the same name gets the one that is unique in the flat graph.
        as_float32: whether layers and inputs of other floating dtypes or mixed policies become float32.
        shapes: of the inputs, with the batch first, where they fix what the model leaves free.

    Raises:
        ModelError: the model has no static graph.
    """
    replacements: dict[int, Replacement] = {}

    def replaced(call: Call) -> Replacement:
        layer = call.layer
        if id(layer) not in replacements:
            answer = layer_fn(layer) if layer_fn is not None else None
            if answer is None:
                answer = Replacement(clone(layer, as_float32=as_float32), layer.get_weights())
            if getattr(answer.layer, "name", None) == layer.name:
                answer.layer._name = call.name  # type: ignore[attr-defined]
            replacements[id(layer)] = answer
        return replacements[id(layer)]

    def step(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return replaced(call)(*args, **kwargs)

    built = build(model, frameworks.load("tf_keras"), step, as_float32=as_float32, shapes=shapes)
    for replacement in replacements.values():
        if replacement.weights is not None:
            set_weights(replacement.layer, replacement.weights)
    return built


def flatten(model: Any, *, as_float32: bool = False) -> Any:
    """Returns a flat functional copy of a tf_keras model: nested models inlined, weights copied, sharing kept.

    A layer of a nested model keeps its name where that is free, else the nested model's name goes before it.
    """
    return rebuild(model, as_float32=as_float32)


def with_unroll(config: Any) -> Any:
    """Returns a layer's config with every recurrent layer in it unrolled; convolutional ones cannot be."""
    if isinstance(config, Mapping):
        if str(config.get("class_name", "")).startswith("Conv"):
            return config
        # Of the layers that know the word, the convolutional ones alone have filters.
        takes = "unroll" in config and "filters" not in config
        return {k: True if k == "unroll" and takes else with_unroll(v) for k, v in config.items()}
    if isinstance(config, (list, tuple)) and type(config) in (list, tuple):
        return type(config)(with_unroll(item) for item in config)
    return config


def clone(layer: Any, *, as_float32: bool = False) -> Any:
    """Returns a new layer of the same class and config, without its weights."""
    config = layer.get_config()
    return type(layer).from_config(float32_config(config) if as_float32 else config)


def set_weights(layer: Any, values: Sequence[np.ndarray]) -> None:
    """Sets a layer's weights, each reshaped where it holds as many numbers in another shape.

    Raises:
        ModelError: the layer holds other weights than `values`.
    """
    shapes = [weight.shape for weight in layer.get_weights()]
    fits = len(shapes) == len(values) and all(value.size == math.prod(s) for value, s in zip(values, shapes))
    if not fits:
        raise ModelError(
            f"Expected weights of shapes {shapes} for layer {layer.name!r}, "
            f"got {[tuple(value.shape) for value in values]}. Try saving the model anew from the code that built it."
        )
    layer.set_weights([value.reshape(shape) for value, shape in zip(values, shapes)])
    if hasattr(layer, "finalize_state"):  # an adapted Normalization computes with copies of its weights
        layer.finalize_state()


def float32_config(config: Any) -> Any:
    """Returns a layer's or model's config with every floating dtype and policy, at any depth, made float32."""
    if isinstance(config, Mapping):
        return {key: _float32_dtype(item) if key == "dtype" else float32_config(item) for key, item in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(float32_config(item) for item in config) if type(config) in (list, tuple) else config
    return config


def takes_training(layer: Any) -> bool:
    """Whether a layer of either Keras takes the argument `training`."""
    return bool(getattr(layer, "_expects_training_arg", False) or getattr(layer, "_call_has_training_arg", False))


def structured_inputs(model: Any, values: Sequence[Any]) -> Any:
    """Returns `values`, one for each of `input_names(model)`, in the structure (one, list, dict) the model takes."""
    structure = _structures(_graph_of(model))[0]
    given = {id(tensor): value for (_, tensor), value in zip(input_names(model), values)}
    return map_leaves(lambda tensor: given[id(tensor)], structure)


def dtype_name(tensor: Any) -> str:
    """Returns the NumPy name of a symbolic tensor's dtype, of either Keras."""
    return getattr(tensor.dtype, "name", None) or str(tensor.dtype)


def policies(model: Any) -> set[str]:
    """Returns the names of the dtype policies in use that are not float32, integer or boolean."""
    found = set()
    for layer in model._flatten_layers():
        policy = getattr(layer, "dtype_policy", None) or getattr(layer, "_dtype_policy", None)
        name = getattr(policy, "name", None)
        if isinstance(name, str) and (name in OTHER_FLOATS or "_from_" in name):
            found.add(name)
    return found


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """Returns lists, tuples and dicts of leaves with `function` applied to each leaf."""
    if isinstance(value, Mapping):
        return {key: map_leaves(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_leaves(function, item) for item in value))
    if isinstance(value, (list, tuple)):
        items = [map_leaves(function, item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return function(value)


def leaves(value: Any) -> list[Any]:
    """Returns the leaves of lists, tuples and dicts (these by sorted key, as both Keras flatten them)."""
    if isinstance(value, Mapping):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def legal_name(name: str) -> str:
    """Returns `name` as TensorFlow takes it for a scope: letters, digits and `_.-`, no mark at the front."""
    legal = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in name)
    return legal if legal[:1].isalnum() else f"layer{legal}"


def _walk(core: Any, values: dict[int, Any], step: Step, names: Mapping[int, str], training: Any) -> None:
    for call in own_calls(core):
        args, kwargs = map_leaves(lambda leaf: values.get(id(leaf), leaf), (tuple(call.args), dict(call.kwargs)))
        nested = functional(call.layer)
        if nested is None:
            if training is not None and takes_training(call.layer):
                kwargs["training"] = training
            named = Call(call.layer, names[id(call.layer)], call.args, call.kwargs, call.outputs)
            results = leaves(step(named, args, kwargs))
        else:
            inner_training = kwargs.get("training", args[1] if len(args) > 1 else None)
            inputs, outputs = _structures(nested)
            inner = {id(tensor): value for tensor, value in _pairs(inputs, args[0] if args else kwargs["inputs"])}
            _walk(nested, inner, step, names, training if inner_training is None else inner_training)
            results = [inner[id(tensor)] for tensor in leaves(outputs)]
        values.update((id(tensor), value) for tensor, value in zip(call.outputs, results))


def _flat_names(core: Any) -> dict[int, str]:
    """Returns a unique legal name for each layer of the flat graph, by id; the outermost layers keep theirs."""
    taken = {legal_name(name) for name, _ in input_names(core)}
    names: dict[int, str] = {}
    queue: list[tuple[str, Any]] = [("", core)]
    while queue:
        prefix, model = queue.pop(0)
        for call in own_calls(model):
            nested = functional(call.layer)
            if nested is not None:
                queue.append((f"{prefix}{call.layer.name}_", nested))
            elif id(call.layer) not in names:
                name = next(n for n in _candidates(call.layer.name, prefix) if n not in taken)
                taken.add(name)
                names[id(call.layer)] = name
    return names


def _candidates(name: str, prefix: str) -> Iterator[str]:
    yield legal_name(name)
    full = legal_name(prefix + name)
    yield full
    count = 1
    while True:
        yield f"{full}_{count}"
        count += 1


def _graph_of(model: Any) -> Any:
    core = functional(model)
    if core is None:
        raise ModelError(
            f"Expected a functional or Sequential model, got {getattr(model, 'name', model)!r}, a "
            f"{type(model).__name__} whose graph is in its code. Try building it with the functional API."
        )
    return core


def _structures(core: Any) -> tuple[Any, Any]:
    """Returns a functional model's inputs and outputs as they were given: one tensor, lists, dicts."""
    if hasattr(core, "_nested_inputs"):
        return core._nested_inputs, core._nested_outputs
    return core._inputs_struct, core._outputs_struct


def _pairs(reference: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each tensor of a model's input structure with what was given for it; a dict may be given for a list."""
    if isinstance(reference, Mapping):
        given = value if isinstance(value, Mapping) else dict(zip(sorted(reference), value))
        for key in reference:
            yield from _pairs(reference[key], given[key])
    elif isinstance(reference, (list, tuple)):
        if isinstance(value, Mapping):
            value = [value[_history(tensor).name] for tensor in reference]
        if len(reference) == 1 and not isinstance(value, (list, tuple)):
            value = [value]
        for part, item in zip(reference, value):
            yield from _pairs(part, item)
    else:
        alone = leaves(value)
        yield reference, alone[0] if len(alone) == 1 else value


def _named(structure: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def collect(part: Any, key: str | None) -> None:
        if isinstance(part, Mapping):
            for name in sorted(part):
                collect(part[name], str(name))
        elif isinstance(part, (list, tuple)):
            for item in part:
                collect(item, None)
        else:
            found.append((key if key is not None else _history(part).name, part))

    collect(structure, None)
    unique: list[tuple[str, Any]] = []
    for name, tensor in found:
        taken = {n for n, _ in unique}
        free = next(n for n in (name, *(f"{name}_{i}" for i in range(1, len(found) + 1))) if n not in taken)
        unique.append((free, tensor))
    return unique


def _call(node: Any) -> Call:
    if hasattr(node, "operation"):
        args, kwargs = node.arguments.args, _users_own(node.operation, node.arguments.args, node.arguments.kwargs)
        return Call(node.operation, node.operation.name, args, kwargs, tuple(node.outputs))
    args = () if node.is_input else tuple(node.call_args)
    return Call(node.layer, node.layer.name, args, dict(node.call_kwargs), tuple(leaves(node.outputs)))


def _users_own(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a Keras 3 node's keyword arguments without those that Keras filled in.

    It records the default of `training` and the mask that came with the first argument as if they had been given.
    """
    own = dict(kwargs)
    if "training" in own and hasattr(layer, "call"):
        default = inspect.signature(layer.call).parameters.get("training")
        if own["training"] is None or (default is not None and own["training"] == default.default):
            del own["training"]
    if "mask" in own and args:
        implied = [getattr(leaf, "_keras_mask", None) for leaf in leaves(args[0])]
        given = leaves(own["mask"])
        if all(mask is None for mask in given) or (
            len(given) == len(implied) and all(_same_origin(a, b) for a, b in zip(given, implied))
        ):
            del own["mask"]
    return own


def _same_origin(a: Any, b: Any) -> bool:
    """Whether two symbolic Keras 3 tensors (or constants) come from the same operations on the same tensors."""
    if a is b:
        return True
    if not _is_symbolic(a) or not _is_symbolic(b):
        return not _is_symbolic(a) and not _is_symbolic(b) and type(a) is type(b) and bool(a == b)
    one, other = a._keras_history, b._keras_history
    if type(one.operation) is not type(other.operation) or one.tensor_index != other.tensor_index:
        return False
    if not type(one.operation).__module__.startswith("keras.src.ops."):
        return False
    nodes = [h.operation._inbound_nodes[h.node_index].arguments for h in (one, other)]
    options = [{k: v for k, v in h.operation.get_config().items() if k != "name"} for h in (one, other)]
    pairs = [leaves((arguments.args, arguments.kwargs)) for arguments in nodes]
    same = len(pairs[0]) == len(pairs[1]) and options[0] == options[1]
    return same and all(_same_origin(x, y) for x, y in zip(*pairs))


def _history(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation if hasattr(history, "operation") else history.layer


def _is_symbolic(value: Any) -> bool:
    return hasattr(value, "_keras_history")


def _float32_dtype(dtype: Any) -> Any:
    if isinstance(dtype, Mapping):
        with contextlib.suppress(KeyError, TypeError):
            return _float32_dtype(dtype["config"]["name"])
        return dtype
    return "float32" if dtype in OTHER_FLOATS else dtype


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
