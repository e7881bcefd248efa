"""A float file, a quantized one, samples and budgets go in; the file with the bits that each layer needs comes out.

What each layer loses by each choice was measured before (`losses`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeopt.data import Part
from edgeopt.errors import ConfigError, ModelError, setting
from edgeopt.rounding.allocation import Budget, allocate
from edgeopt.rounding.layout import LINEAR
from edgeopt.rounding.losses import Losses
from edgeopt.rounding.walk import Result, Settings, round_file, stored_in
from edgeopt.tflite.macs import operator_macs
from edgeopt.tflite.pairing import Pair, Pairing, pair_weights
from edgeopt.tflite.simulating import with_float_layers

# Bits that files hold, and runtimes know for all the operators of LINEAR.
CHOICES = (4, 8)
# A layer that stays as it was, between integers.
FLOAT = 32
# What the two operators around it, their tensors and its bias take, about.
_CONVERSIONS = 600
# As `rewrite.changed` aligns buffers.
_ALIGNMENT = 16
# A file has an entry for each operator and version: new versions of operators add some.
_ATTEMPTS = 4
# Times that differ by so much are the same.
_TIMES_VARY = 0.03

# Files → the milliseconds that an inference of each takes, measured in turns.
Clock = Callable[[Sequence[bytes]], Sequence[float]]


@dataclass(frozen=True)
class Mixed:
    """What became of a file.

    Attributes:
        result: of its rounding, with all its layers.
        bits: name of a layer → of its weights; FLOAT where they stay floats.
        losses: name of a layer → number of bits → error of the outputs with that layer alone in so many.
        times: name of a layer → number of bits → milliseconds that it takes more than in 8; empty where nobody asked.
    """

    result: Result
    bits: Mapping[str, int]
    losses: Mapping[str, Mapping[int, float]]
    times: Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Speed:
    """What the file may take.

    Attributes:
        latency_ms: at most.
        clock: what times files.
    """

    latency_ms: float
    clock: Clock


@dataclass(frozen=True)
class _Layer:
    pair: Pair
    elements: int
    channels: int
    macs: int
    block: int

    def size_bytes(self, bits: int) -> int:
        scales = 2 * self.elements // self.block if self.block and bits < CHOICES[-1] else 0
        conversions = _CONVERSIONS if bits == FLOAT else 0
        held = (self.elements * bits // 8, scales)
        return conversions + sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in held)


def mix(
    floating: bytes,
    quantized: bytes,
    samples: Part,
    settings: Settings,
    *,
    size: int,
    bit_macs: float | None,
    speed: Speed | None = None,
    chosen: Sequence[str],
    losses: Mapping[int, Losses],
    time_limit: float,
) -> Mixed:
    """Returns the file with each layer in the bits that it needs, rounded by what its layers compute.

    Args:
        floating, quantized: the model without quantization, and with integer weights.
        samples: as the float file takes them.
        settings: how to round.
        size: bytes that the file may have.
        bit_macs: share of the multiply-accumulates times bits of all layers in the most bits.
        speed: what an inference may take; None where it does not matter.
        chosen: names of layers whose bits may be chosen.
        losses: each of CHOICES, and FLOAT where that may be → what the layers lose by it.
        time_limit: of the integer programme, in seconds.

    Raises:
        ConfigError: no choice keeps the budgets; the message says the smallest that there is.
        DataError: there are too few samples.
        ModelError: no layer can have other bits.
    """
    pairing = pair_weights(floating, quantized)
    there = _layers(pairing, chosen)
    block = there[0].block
    sizes = np.array([[layer.size_bytes(bits) for bits in CHOICES] for layer in there], float).reshape(-1, len(CHOICES))
    low, all_high = (
        stored_in(floating, quantized, {layer.pair.name: bits for layer in there}, block=block) for bits in CHOICES
    )
    high = len(all_high)
    rest = len(low) - int(sizes[:, 0].sum())
    # What each channel has in 8 bits alone: scales and zero points of its own, where it had those of blocks.
    channels = np.array([layer.channels for layer in there])
    sizes[:, -1] += channels * ((high - rest - sizes[:, -1].sum()) / channels.sum())
    choices = (*CHOICES, FLOAT) if FLOAT in losses else CHOICES
    if FLOAT in choices:
        sizes = np.column_stack([sizes, [layer.size_bytes(FLOAT) for layer in there]])
    work = np.array([[layer.macs * bits for bits in choices] for layer in there], float)
    budgets = [Budget(sizes, size - rest)]
    if bit_macs is not None:
        budgets.append(Budget(work, bit_macs * work[:, choices.index(CHOICES[-1])].sum()))
    _require_possible(budgets, size, rest, bit_macs, len(quantized))

    def held(bits_of: Mapping[str, int]) -> bytes:
        stored = {name: min(bits, CHOICES[-1]) for name, bits in bits_of.items()}
        content = stored_in(floating, quantized, stored, block=block)
        return _with_floats(floating, content, {name for name, bits in bits_of.items() if bits == FLOAT})

    names = [layer.pair.name for layer in there]
    lost = {name: {bits: losses[bits].of(name) for bits in choices} for name in names}
    table = np.array([list(each.values()) for each in lost.values()])
    times: Mapping[str, Mapping[int, float]] = {}
    if speed is not None:
        fastest, times = _times(names, choices, held, speed.clock)
        added = np.array([[times[name][bits] for bits in choices] for name in names])
        budgets.append(Budget(added, speed.latency_ms - fastest))
    for _ in range(_ATTEMPTS):
        picked = allocate(table, budgets, time_limit=time_limit)
        if picked is None:
            break
        bits_of = {name: choices[choice] for name, choice in zip(names, picked)}
        start = held(bits_of)
        if speed is not None and (late := speed.clock([all_high, start])[1] - speed.latency_ms) > 0:
            budgets[-1] = replace(budgets[-1], limit=budgets[-1].limit - late)
            if late > _TIMES_VARY * speed.latency_ms:
                continue
        result = round_file(floating, start, samples, settings)
        over = len(result.content) - size
        if over <= 0:
            return Mixed(result, bits_of, lost, times)
        budgets[0] = replace(budgets[0], limit=budgets[0].limit - over)
        _require_possible(budgets[:1], size, rest + over, bit_macs, len(quantized))
    if speed is None:
        raise ConfigError(_too_small(size, rest + int(budgets[0].least), len(quantized)))
    quickest = allocate(added, budgets[:-1], time_limit=time_limit)
    assert quickest is not None  # what is cheapest in one of the others is so in both
    raise ConfigError(_too_slow(speed.latency_ms, fastest + added[np.arange(len(added)), quickest].sum(), size))


def _times(
    names: Sequence[str], choices: Sequence[int], held: Callable[[Mapping[str, int]], bytes], clock: Clock
) -> tuple[float, Mapping[str, Mapping[int, float]]]:
    """Returns the milliseconds of the file with all layers in the most bits, and what each choice alone adds to it."""
    most = dict.fromkeys(names, CHOICES[-1])
    others = [bits for bits in choices if bits != CHOICES[-1]]
    whole, *alone = clock([held(most), *(held({**most, name: bits}) for name in names for bits in others)])
    added = iter(took - whole for took in alone)
    return whole, {name: {**{bits: next(added) for bits in others}, CHOICES[-1]: 0.0} for name in names}


def _with_floats(floating: bytes, quantized: bytes, names: Collection[str]) -> bytes:
    """Returns the file with some layers as the float file has them."""
    pairing = pair_weights(floating, quantized)
    return with_float_layers(
        quantized,
        {
            pair.quantized.operator.index: (pairing.float_weights(pair), pairing.float_bias(pair))
            for pair in pairing.pairs
            if pair.name in names
        },
    )


def _layers(pairing: Pairing, chosen: Sequence[str]) -> list[_Layer]:
    """Returns the layers whose bits may be chosen, one for each weight tensor."""
    found: dict[int, _Layer] = {}
    for pair in pairing.pairs:
        operator, weight = pair.quantized.operator, pair.quantized.weight
        if pair.name not in chosen or operator.name not in LINEAR:
            continue
        macs = operator_macs(pairing.quantized.main, operator)
        before = found.get(weight.index)
        found[weight.index] = (
            _Layer(pair, weight.elements, weight.shape[pair.quantized.axis], macs, weight.block_size)
            if before is None
            else replace(before, macs=before.macs + macs)
        )
    if not found:
        raise ModelError(
            f"Expected a file with layers of {', '.join(LINEAR)} in symmetric integers, got none. "
            "Try --scheme int8, or leaving the step out."
        )
    return list(found.values())


def _require_possible(budgets: Sequence[Budget], size: int, rest: int, bit_macs: float | None, whole: int) -> None:
    bytes_of, *others = budgets
    if bytes_of.least > bytes_of.limit:
        raise ConfigError(_too_small(size, int(bytes_of.least) + rest, whole))
    if any(budget.least > budget.limit for budget in others):
        raise ConfigError(
            f"Expected at least {CHOICES[0] / CHOICES[-1]:.0%} of the multiply-accumulates times bits, the "
            f"smallest that {CHOICES[0]} bits give, got {bit_macs:.0%}. Try {setting('bit_macs', 0.75)}."
        )


def _too_small(size: int, least: int, whole: int) -> str:
    return (
        f"Expected a size of at least {least:,} bytes, which the file has with all layers in {CHOICES[0]} bits, got "
        f"{size:,} ({size / whole:.0%} of what it has now). Try {setting('size', f'{-(-least // 1000)}KB')}, or "
        "sparing fewer layers."
    )


def _too_slow(latency_ms: float, quickest_ms: float, size: int) -> str:
    return (
        f"Expected a latency of at least {quickest_ms:.3g} ms, the least that files of {size:,} bytes take here, got "
        f"{latency_ms:.3g} ms. Try {setting('latency', f'{1.05 * quickest_ms:.3g}ms')}, or a larger {setting('size')}."
    )
