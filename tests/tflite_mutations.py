"""Whole `.tflite` files go in, as many damaged ones as wanted come out, the same for a seed: bytes, and fields."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from edgeopt import frameworks

# What counts, sizes, indices and options are set to.
_NUMBERS = (-(2**31), -1000, -2, -1, 0, 1, 2, 3, 5, 7, 64, 127, 128, 255, 1000, 65535, 65536, 10**6, 2**30, 2**31 - 1)
_REALS = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-45, 1e-30, 1e-6, 1.0, 1e6, 1e30, 3e38)


def mutations(files: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yields `count` damaged files, in turn of changed bytes and of changed fields."""
    chance = random.Random(seed)
    for i in range(count):
        content = chance.choice(files)
        yield _other_bytes(content, chance) if i % 4 == 0 else _other_fields(content, chance)


def _other_bytes(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        # Most of what can go wrong lies outside of the weights; small files have little of these.
        damaged[chance.randrange(8, len(damaged))] = chance.choice((0, 1, 2, 127, 128, 255, chance.randrange(256)))
    return bytes(damaged)


def _other_fields(content: bytes, chance: random.Random) -> bytes:
    import flatbuffers

    schema = frameworks.load("litert_schema")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        _change(model, model.subgraphs[0], chance)
    builder = flatbuffers.Builder(len(content) + 1024)
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except Exception:  # a number that the field has no room for: as good as the file before
        return _other_bytes(content, chance)
    return bytes(builder.Output())


def _change(model: Any, graph: Any, chance: random.Random) -> None:
    tensor, operator = chance.choice(graph.tensors), chance.choice(graph.operators)
    what = chance.randrange(11)
    if what == 0:
        tensor.shape = _numbers(tensor.shape, chance)
    elif what == 1:
        tensor.type = chance.randrange(20)
    elif what == 2 and tensor.quantization is not None:
        scales = list(_list(tensor.quantization.scale)) or [1.0]
        scales[chance.randrange(len(scales))] = chance.choice(_REALS)
        tensor.quantization.scale = scales * chance.choice((0, 1, 1, 1, 2))
    elif what == 3 and tensor.quantization is not None:
        tensor.quantization.zeroPoint = _numbers(tensor.quantization.zeroPoint, chance)
        tensor.quantization.quantizedDimension = chance.choice((0, 0, 1, 3, 9))
    elif what == 4:
        operator.inputs = _numbers(operator.inputs, chance, range(-1, len(graph.tensors)))
    elif what == 5:
        operator.outputs = _numbers(operator.outputs, chance, range(len(graph.tensors)))
    elif what == 6:
        operator.opcodeIndex = chance.randrange(len(model.operatorCodes))
    elif what == 7:
        chance.choice(model.operatorCodes).builtinCode = chance.randrange(130)
    elif what == 8 and operator.builtinOptions is not None:
        name = chance.choice(sorted(vars(operator.builtinOptions)) or [""])
        if name:
            is_real = isinstance(getattr(operator.builtinOptions, name), float)
            setattr(operator.builtinOptions, name, chance.choice(_REALS if is_real else _NUMBERS))
    elif what == 9:
        constants = [t for t in graph.tensors if model.buffers[t.buffer].data is not None]
        if constants:
            buffer = model.buffers[chance.choice(constants).buffer]
            data = bytearray(bytes(buffer.data))
            for _ in range(4):
                data[chance.randrange(len(data))] = chance.choice((0, 1, 255, 127, 128))
            buffer.data = bytes(data)
    else:
        name = chance.choice(("inputs", "outputs"))
        setattr(graph, name, _numbers(getattr(graph, name), chance, range(len(graph.tensors))))


def _numbers(values: Any, chance: random.Random, among: Sequence[int] = _NUMBERS) -> list[int]:
    """Changes one, or leaves one out, or adds one."""
    changed = [int(value) for value in _list(values)]
    how, number = chance.randrange(4), chance.choice(among)
    if how == 0 or not changed:
        changed.insert(chance.randint(0, len(changed)), number)
    elif how == 1:
        changed.pop(chance.randrange(len(changed)))
    else:
        changed[chance.randrange(len(changed))] = number
    return changed


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)
