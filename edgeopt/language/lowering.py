"""A flat decoder goes in; a float `.tflite` that reads tokens piece by piece and keeps keys and values comes out.

Two signatures share the weights: `prefill` reads some tokens, `decode` one and gives the logits of what follows it.
Both take and give the keys and values of every attention layer, `kv_cache_k_0` … [1, heads, cache, size], and write
their own at `input_pos`. The names are those of LiteRT's generative examples (ai-edge-torch), which LiteRT-LM reads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import frameworks, graph, progress
from edgeopt.errors import ModelError

PREFILL, DECODE = "prefill", "decode"
# How far logits of one token after another may lie from those of the whole model, as a share of their range.
SAME = 1e-3
_SEED = 0
# Between [1, tokens, heads, size], as layers compute, and [1, heads, tokens, size], from which LiteRT-LM reads how many
# tokens there are.
_TURNED = (0, 2, 1, 3)
# Keras 3 operations that count positions as they sum ones.
_ONES, _SUM = ("OnesLike",), ("Cumsum",)
# Layers and operations that attention is written in, where it is not one layer.
_ATTENDING = ("Attention", "AdditiveAttention", "DotProductAttention", "Dot", "Einsum", "Matmul", "Softmax")


@dataclass(frozen=True)
class Attention:
    """An attention layer in its place.

    Attributes:
        name: of its layer in the flat graph.
        heads, key_size, value_size: of what is kept of each token.
    """

    name: str
    heads: int
    key_size: int
    value_size: int


@dataclass(frozen=True)
class Decoder:
    """What a decoder is made of.

    Attributes:
        attentions: in the order in which they compute.
        context: the tokens that the model was built for; None where it says no number.
        vocabulary: how many logits it gives.
    """

    attentions: tuple[Attention, ...]
    context: int | None
    vocabulary: int


def decoder_of(model: Any) -> Decoder:
    """Returns what a flat tf_keras decoder is made of.

    Raises:
        ModelError: it is none: it takes or gives something else, gives probabilities, or attends in another way.
    """
    inputs, outputs = graph.input_specs(model), graph.output_names(model)
    if len(inputs) != 1 or len(inputs[0].shape) != 2 or not inputs[0].dtype.startswith("int"):
        given = ", ".join(f"{spec.dtype}{list(spec.shape)}" for spec in inputs)
        raise ModelError(
            f"Expected a model of tokens, one input of whole numbers [batch, tokens], got {given}. Try the decoder "
            "alone."
        )
    shape = tuple(outputs[0][1].shape)
    if len(outputs) != 1 or len(shape) != 3 or shape[-1] is None:
        raise ModelError(
            f"Expected logits of each token's successor, one output [batch, tokens, vocabulary], got "
            f"{', '.join(str(list(tensor.shape)) for _, tensor in outputs)}. Try a model that ends in them."
        )
    found, problems = [], []
    for call in graph.flat_calls(model):
        layer = _inner(call.layer)
        if not _attends(layer):
            if _attends_inside(layer):
                problems.append(f"{call.name}: what is inside of a {type(layer).__name__} cannot be reached")
            continue
        if reason := _why_not_cached(call):
            problems.append(f"{call.name}: {reason}")
            continue
        _, heads, key_size = (int(n) for n in layer._key_dense.kernel.shape)
        found.append(Attention(call.name, heads, key_size, int(layer._value_dense.kernel.shape[-1])))
    if problems:
        raise ModelError(
            "Expected layers that attend to earlier tokens of their own input, got others:"
            + "".join(f"\n  {problem}" for problem in problems)
            + "\nTry MultiHeadAttention or GroupQueryAttention with use_causal_mask=True, each in the model itself."
        )
    if not found:
        calls = graph.flat_calls(model)
        written = [
            f"{call.name} ({kind})" for call in calls if (kind := type(_inner(call.layer)).__name__) in _ATTENDING
        ]
        seen = f", but {', '.join(written)}" if written else ""
        raise ModelError(
            "Expected a decoder with MultiHeadAttention or GroupQueryAttention layers, got a model without any"
            f"{seen}. Attention that is written in operations cannot be told: try the layers instead."
        )
    last = graph.flat_calls(model)[-1]
    activation = getattr(getattr(_inner(last.layer), "activation", None), "__name__", "")
    if "softmax" in (activation, type(last.layer).__name__.lower()):
        raise ModelError(
            f"Expected logits, got probabilities: the last layer, {last.name}, ends in a softmax. Try it without."
        )
    return Decoder(tuple(found), inputs[0].shape[1], int(shape[-1]))


def lower(model: Any, *, cache: int, prefill: int) -> bytes:
    """Returns a decoder as a float `.tflite` with the signatures `prefill` and `decode`.

    Args:
        model: flat, functional tf_keras.
        cache: tokens that are remembered.
        prefill: tokens that are read at once; divides `cache`.

    Raises:
        ModelError: it is no decoder, was built for fewer tokens, or computes something else when it reads one by one.
    """
    decoder = decoder_of(model)
    if cache < 2 or prefill < 1 or cache % prefill:
        raise ModelError(
            f"Expected a cache of whole pieces of {prefill} tokens, got {cache}. Try {-(-cache // prefill) * prefill}."
        )
    if decoder.context is not None and cache > decoder.context:
        raise ModelError(
            f"Expected a cache of at most {decoder.context} tokens, for which the model was built, got {cache}. "
            f"Try {decoder.context}."
        )
    tf = frameworks.load("tensorflow")
    progress.tell("lowering the model")
    module = tf.Module()
    module.variables_of_the_model = list(model.variables)
    steps = {
        name: _step(model, decoder, tokens=tokens, cache=cache, logits=name == DECODE)
        for name, tokens in ((PREFILL, prefill), (DECODE, 1))
    }
    _prove(model, decoder, steps, cache=cache, prefill=prefill)
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        tf.saved_model.save(module, folder, signatures=steps)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(steps))
        return bytes(converter.convert())


def names_of(number: int) -> tuple[str, str]:
    """Returns what the keys and the values of an attention layer are called."""
    return f"kv_cache_k_{number}", f"kv_cache_v_{number}"


def empty_cache(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Returns keys and values of nothing."""
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def shapes_of(decoder: Decoder, cache: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of keys and values, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, one in enumerate(decoder.attentions):
        keys, values = names_of(number)
        shapes[keys] = (1, one.heads, cache, one.key_size)
        shapes[values] = (1, one.heads, cache, one.value_size)
    return shapes


def _step(model: Any, decoder: Decoder, *, tokens: int, cache: int, logits: bool) -> Any:
    """Returns a concrete function that reads so many tokens."""
    tf = frameworks.load("tensorflow")
    specs = [tf.TensorSpec((1, tokens), tf.int32, "tokens"), tf.TensorSpec((tokens,), tf.int32, "input_pos")]
    specs += [tf.TensorSpec(shape, tf.float32, name) for name, shape in shapes_of(decoder, cache).items()]
    names = [spec.name for spec in specs]

    def function(*given: Any) -> dict[str, Any]:
        inputs = dict(zip(names, given))
        walk = _Walk(model, inputs["input_pos"], {name: inputs[name] for name in names[2:]})
        found = walk.outputs(inputs["tokens"])
        return {**walk.kept, **({"logits": found} if logits else {})}

    return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()


class _Walk:
    """One way through the graph of a decoder, at some positions.

    Attributes:
        kept: keys and values by name, with those of these tokens.
    """

    def __init__(self, model: Any, positions: Any, given: dict[str, Any]) -> None:
        self._model, self._positions, self.kept = model, positions, given
        self._number = 0
        self._makers = {id(tensor): call for call in graph.flat_calls(model) for tensor in call.outputs}

    def outputs(self, tokens: Any) -> Any:
        """Returns the model's output for tokens."""
        tf = frameworks.load("tensorflow")
        (given,) = graph.input_specs(self._model)
        (found,) = graph.walk(self._model, [tf.cast(tokens, given.dtype)], self._call)
        return found

    def _call(self, call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = _inner(call.layer)
        try:
            if _attends(layer):
                return self._attended(layer, args[0])
            if _takes_start(layer):
                return call.layer(*args, **{**kwargs, "start_index": self._positions[0]})
            result = call.layer(*args, **kwargs)
        # Whatever a layer of the user's raises for fewer tokens than it was built for.
        except Exception as error:
            raise ModelError(
                f"Expected layers that take any number of tokens, got {call.name} ({type(layer).__name__}), which "
                f"does not ({str(error).strip().splitlines()[0]}). Try one that works token by token."
            ) from error
        return (
            result + frameworks.load("tensorflow").cast(self._positions[0], result.dtype)
            if self._counts(call)
            else result
        )

    def _counts(self, call: graph.Call) -> bool:
        """Whether a call sums ones over the tokens: 1, 2, 3 …"""
        if type(_inner(call.layer)).__name__ not in _SUM:
            return False
        maker = self._makers.get(id(graph.leaves((call.args, call.kwargs))[0]))
        return maker is not None and type(_inner(maker.layer)).__name__ in _ONES

    def _attended(self, layer: Any, x: Any) -> Any:
        """Returns what an attention layer makes of these tokens and all that are kept."""
        tf = frameworks.load("tensorflow")
        update = frameworks.load("tf_xla_ops").xla_dynamic_update_slice
        query, new = layer._query_dense(x), (layer._key_dense(x), layer._value_dense(x))
        start = tf.stack([0, 0, self._positions[0], 0])
        pair = []
        for name, value in zip(names_of(self._number), new):
            self.kept[name] = update(self.kept[name], tf.transpose(value, _TURNED), start)
            pair.append(tf.transpose(self.kept[name], _TURNED))
        self._number += 1
        keys, values = (
            tf.repeat(each, query.shape[2] // each.shape[2], axis=2) if query.shape[2] != each.shape[2] else each
            for each in pair
        )
        mask = self._positions[None, :, None] >= tf.range(keys.shape[1])[None, None]
        output, _ = layer._compute_attention(query, keys, values, mask, False)
        if getattr(layer, "_gate_dense", None) is not None:
            output = output * layer._gate_dense(x)
        return layer._output_dense(output)


def _prove(model: Any, decoder: Decoder, steps: Mapping[str, Any], *, cache: int, prefill: int) -> None:
    """Raises ModelError where reading piece by piece gives other logits than the whole model."""
    tf = frameworks.load("tensorflow")
    length = min(cache, 2 * prefill)
    random = np.random.default_rng(_SEED)
    tokens = random.integers(0, decoder.vocabulary, (1, decoder.context or length)).astype(np.int32)
    whole = np.asarray(model(tokens, training=False))[0, :length]
    kept = {name: tf.constant(value) for name, value in empty_cache(shapes_of(decoder, cache)).items()}
    half = prefill if prefill < length else 0
    if half:
        kept = steps[PREFILL](tokens=tf.constant(tokens[:, :half]), input_pos=tf.range(half), **kept)
    pieces = []
    for position in range(half, length):
        found = steps[DECODE](
            tokens=tf.constant(tokens[:, position : position + 1]), input_pos=tf.constant([position]), **kept
        )
        pieces.append(np.asarray(found["logits"])[0, 0])
        kept = {name: found[name] for name in kept}
    wanted = whole[half:]
    off = float(np.abs(np.stack(pieces) - wanted).max() / (np.ptp(wanted) or 1.0))
    if not off <= SAME:
        raise ModelError(
            f"Expected a decoder that gives the same logits token by token, got some off by {off:.2g} of their "
            "range: a layer mixes tokens in a way that is not known. Known are MultiHeadAttention and "
            "GroupQueryAttention, positions counted by cumsum, and layers that take start_index. Try these."
        )


def _why_not_cached(call: graph.Call) -> str:
    layer = _inner(call.layer)
    given = dict(zip(("query", "value", "key"), call.args)) | dict(call.kwargs)
    sources = {id(given[name]) for name in ("query", "value", "key") if given.get(name) is not None}
    if len(sources) > 1:
        return "it attends to another input than its own"
    if not given.get("use_causal_mask"):
        return "use_causal_mask is not set: it looks ahead"
    if any(given.get(name) is not None for name in ("attention_mask", "query_mask", "value_mask", "key_mask")):
        return "it has a mask of its own"
    if getattr(layer, "sliding_window", None) is not None:
        return "it forgets what is older than its window"
    return ""


def _takes_start(layer: Any) -> bool:
    return "start_index" in getattr(getattr(layer, "_call_signature", None), "parameters", {})


def _inner(layer: Any) -> Any:
    """Returns the Keras 3 layer or operation that a tf_keras layer holds, or the layer itself."""
    return getattr(layer, "layer", getattr(layer, "operation", layer))


def _attends_inside(layer: Any) -> bool:
    """Whether a layer of the user's own has an attention layer."""
    return hasattr(layer, "_flatten_layers") and any(_attends(one) for one in layer._flatten_layers())


def _attends(layer: Any) -> bool:
    return all(hasattr(layer, name) for name in ("_query_dense", "_key_dense", "_value_dense", "_output_dense"))
