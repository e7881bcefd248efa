"""Bits are given to layers by what they lose, within budgets that the file keeps."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_technique_round import Pair, cnn  # noqa: F401 - a fixture

from edgeopt import data as datasets
from edgeopt import formats
from edgeopt.carry_out import carry_out
from edgeopt.errors import ConfigError, ModelError
from edgeopt.plan import plan
from edgeopt.recipe import Recipe, read_recipe, steps_from
from edgeopt.rounding.allocation import Budget, allocate
from edgeopt.rounding.alone import BETWEEN, CHOICES
from edgeopt.rounding.losses import Losses, losses
from edgeopt.rounding.mixing import FLOAT, Mixed, Speed, mix
from edgeopt.rounding.walk import Settings, output_error
from edgeopt.techniques.mixed import Mix, latency_ms, size_bytes
from edgeopt.techniques.timing import milliseconds
from edgeopt.tflite.pairing import pair_weights
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed
from edgeopt.tflite.simulating import with_float_layers
from edgeopt.tflite.stored_weights import layers
from edgeopt.workspace import Workspace

# --- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    costs, work = (np.sort(random.uniform(1, 9, (6, 3)), axis=1) for _ in range(2))
    losses = -np.sort(-random.uniform(0, 1, (6, 3)), axis=1)
    budgets = [Budget(costs, 0.6 * costs[:, -1].sum()), Budget(work, 0.7 * work[:, -1].sum())]
    chosen = allocate(losses, budgets, time_limit=30)
    assert chosen is not None
    every = np.array(list(itertools.product(range(3), repeat=6)))
    rows = np.arange(6)
    allowed = [one for one in every if all(budget.allows(one) for budget in budgets)]
    assert any((one == chosen).all() for one in allowed)
    assert losses[rows, chosen].sum() == pytest.approx(min(losses[rows, one].sum() for one in allowed))


def test_what_is_left_is_spent_and_time_that_is_over_leaves_a_choice() -> None:
    costs = np.array([[1.0, 2.0]] * 4)
    losses = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    # 4 is the least, and 2 more are to spend: on the two that lose most.
    assert _chosen(losses, Budget(costs, 6.0), time_limit=1e-9) == [1, 1, 0, 0]
    assert _chosen(losses, Budget(costs, 4.0)) == [0, 0, 0, 0]
    assert len(_chosen(np.zeros((2, 2)), Budget(costs[:2], 9.0))) == 2


def test_budgets_that_pull_apart_leave_a_choice_or_none() -> None:
    losses = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0]])
    size = np.array([[1.0, 2.0]] * 3)
    # What is small is slow: of 3 layers 2 are slow at least where 4 is the most.
    time = np.array([[1.0, 0.0]] * 3)
    assert _chosen(losses, Budget(size, 4.0), Budget(time, 2.0)) == [1, 0, 0]
    assert allocate(losses, [Budget(size, 4.0), Budget(time, 1.0)], time_limit=30) is None


def _chosen(losses: np.ndarray, *budgets: Budget, time_limit: float = 30) -> list[int]:
    chosen = allocate(losses, budgets, time_limit=time_limit)
    assert chosen is not None
    return [int(choice) for choice in chosen]


@pytest.mark.parametrize(("text", "expected"), [("150%", 3.0), ("0.5 %", 0.01), ("800us", 0.8), ("5ms", 5.0)])
def test_a_latency_is_a_share_or_a_time(text: str, expected: float) -> None:
    assert latency_ms(text, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "expected"), [("60%", 1200), ("12.5 %", 250), ("1KB", 1000), ("1800", 1800)])
def test_a_size_is_a_share_or_bytes(text: str, expected: int) -> None:
    assert size_bytes(text, 2000) == expected


# --- files -----------------------------------------------------------------------------------------------------------


_FOUND: dict[int, dict[int, Losses]] = {}


def _losses(pair: Pair) -> dict[int, Losses]:
    """What the layers lose in 4 and 8 bits, and as floats between integers; measured once."""
    if id(pair) not in _FOUND:
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / f"{name}.tflite" for name in ("floating", "quantized")}
            for name, file in files.items():
                file.write_bytes(getattr(pair, name))
            _FOUND[id(pair)] = {
                bits: losses(files["floating"], pair.samples, quantized=files["quantized"], choice=choice)
                for bits, choice in {4: CHOICES["int4"], 8: CHOICES["int8"], FLOAT: BETWEEN}.items()
            }
    return _FOUND[id(pair)]


def _mixed(
    pair: Pair,
    size: int = 10**6,
    bit_macs: float | None = None,
    *,
    floats: bool = False,
    speed: Speed | None = None,
) -> Mixed:
    names = [one.name for one in pair_weights(pair.floating, pair.quantized).pairs]
    return mix(
        pair.floating,
        pair.quantized,
        pair.samples,
        Settings(),
        size=size,
        bit_macs=bit_macs,
        speed=speed,
        chosen=names,
        losses={bits: lost for bits, lost in _losses(pair).items() if floats or bits != FLOAT},
        time_limit=30,
    )


def test_the_file_keeps_its_size_and_the_layers_that_lose_most_keep_their_bits(cnn: Pair) -> None:  # noqa: F811
    size = len(cnn.quantized) - 900
    found = _mixed(cnn, size)
    assert len(found.result.content) <= size
    stored = {layer.name: int(layer.weight.dtype[3:]) for layer in layers(read(found.result.content))}
    assert stored == dict(found.bits)
    assert set(stored.values()) == {4, 8}
    # 900 bytes are less than half of the largest layer's weights: it alone is enough.
    loss = {name: errors[4] - errors[8] for name, errors in found.losses.items()}
    assert sum(loss[name] for name, bits in stored.items() if bits == 4) <= max(loss.values())


def test_work_is_a_budget_too(cnn: Pair) -> None:  # noqa: F811
    found = _mixed(cnn, bit_macs=0.75)
    facts = {layer.layer: layer.macs for layer in _operators(found.result.content)}
    done = sum(macs * found.bits[name] for name, macs in facts.items() if name in found.bits)
    assert done <= 0.75 * 8 * sum(macs for name, macs in facts.items() if name in found.bits)
    with pytest.raises(ConfigError, match=r"Expected at least 50% of the multiply-accumulates times bits.* got 40%"):
        _mixed(cnn, bit_macs=0.4)


def test_a_size_that_is_too_small_says_the_smallest(cnn: Pair) -> None:  # noqa: F811
    with pytest.raises(
        ConfigError, match=r"at least ([\d,]+) bytes, .* got 2,000 \(\d+% of what it has now\)\."
    ) as error:
        _mixed(cnn, 2000)
    least = int(str(error.value).split("at least ")[1].split(" bytes")[0].replace(",", ""))
    # Operators of few bits have entries of their own in the file, so it may take some bytes more.
    assert len(_mixed(cnn, least + 300).result.content) <= least + 300


def _slow_fours(contents: Sequence[bytes]) -> list[float]:
    """A machine on which layers of four bits are slow, and several of them slower than they are alone."""
    fours = [sum(layer.weight.dtype == "int4" for layer in layers(read(content))) for content in contents]
    return [1 + 0.5 * count**1.5 for count in fours]


def test_the_file_keeps_its_time(cnn: Pair) -> None:  # noqa: F811
    size = len(cnn.quantized) - 900
    # Two take 2.4 ms, so that one is left: the largest, which is enough.
    found = _mixed(cnn, size, speed=Speed(2.2, _slow_fours))
    assert len(found.result.content) <= size
    assert list(found.bits.values()).count(4) == 1
    assert found.times[next(iter(found.bits))] == {4: pytest.approx(0.5), 8: 0.0}
    with pytest.raises(
        ConfigError, match=r"at least 1\.5 ms, the least that files of [\d,]+ bytes .* got 1\.2 ms\."
    ) as why:
        _mixed(cnn, size, speed=Speed(1.2, _slow_fours))
    assert "latency: 1.58ms" in str(why.value)


def test_files_are_timed_in_turns_and_one_that_does_not_run_says_so(cnn: Pair, tmp_path: Path) -> None:  # noqa: F811
    files = [tmp_path / name for name in ("one.tflite", "other.tflite")]
    files[0].write_bytes(cnn.quantized)
    (took,) = milliseconds(files[:1])
    assert took > 0
    files[1].write_bytes(changed(cnn.quantized, _nobodys))
    with pytest.raises(ModelError, match=r"Expected a model that LiteRT runs, to time it, got one it refuses: .+"):
        milliseconds(files)


def test_a_layer_may_stay_float_between_integers(cnn: Pair) -> None:  # noqa: F811
    plain = _mixed(cnn)
    assert set(plain.bits.values()) == {8}
    largest = max(layer.weight.elements for layer in layers(read(cnn.quantized)))
    size = len(cnn.quantized) + 3 * largest // 2  # not enough for the largest
    found = _mixed(cnn, size, floats=True)
    assert len(found.result.content) <= size
    held = {layer.weight.dtype: layer.weight.elements for layer in layers(read(found.result.content))}
    assert held.keys() >= {"float32", "int8"}
    assert held["float32"] < largest
    assert FLOAT in found.bits.values()
    assert found.result.after < plain.result.after


def test_floats_go_from_layer_to_layer_as_they_are(cnn: Pair) -> None:  # noqa: F811
    pairing = pair_weights(cnn.floating, cnn.quantized)
    numbers = {
        pair.quantized.operator.index: (pairing.float_weights(pair), pairing.float_bias(pair)) for pair in pairing.pairs
    }
    content = with_float_layers(cnn.quantized, dict(list(numbers.items())[:2]))
    model = read(content)
    assert [operator.name for operator in model.main.operators] == [
        *("DEQUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "QUANTIZE", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED")
    ]
    # Both the weights of before are gone.
    weights = sum(values.size for values, _ in list(numbers.values())[:2])
    assert len(content) < len(cnn.quantized) + 3 * weights + 2 * 700
    # Rounding goes on behind them, on what arrives.
    assert output_error(cnn.floating, content, cnn.samples) < output_error(cnn.floating, cnn.quantized, cnn.samples)
    assert with_float_layers(cnn.quantized, {}) == cnn.quantized


def test_a_file_without_layers_to_choose_for(cnn: Pair) -> None:  # noqa: F811
    with pytest.raises(ModelError, match=r"Expected a file with layers of CONV_2D, .*, got none"):
        mix(
            cnn.floating,
            cnn.floating,
            cnn.samples,
            Settings(),
            size=10**6,
            bit_macs=None,
            chosen=(),
            losses={},
            time_limit=1,
        )


def test_a_recipe_ends_in_a_file_of_the_size_asked_for(digits_model: Path, tmp_path: Path) -> None:
    with Workspace(digits_model, datasets.load("digits"), tmp_path) as workspace:
        found = carry_out(Recipe(steps=steps_from([{"mixed": {"size": "90%"}}]), schemes=("int8",)), workspace)
    (record,) = found.records
    assert not record.rolled_back
    before, after = (next(v for v in found.variants if v.name == name) for name in ("int8", "mixed.int8"))
    assert (after.size_bytes or 0) <= 0.9 * (before.size_bytes or 0)
    size = next(promise for promise in record.promises if promise.kind == "bytes of the file")
    assert size.measured == after.size_bytes
    assert all(promise.kept for promise in record.promises)
    dtypes = {weight.dtype for weight in formats.facts(tmp_path / str(after.file)).weights if weight.kind == "weights"}
    assert dtypes == {"int4", "int8"}


def test_a_recipe_ends_in_a_file_that_is_as_fast_as_asked_for(digits_model: Path, tmp_path: Path) -> None:
    step = {"mixed": {"size": "90%", "latency": "1000%"}}
    with Workspace(digits_model, datasets.load("digits"), tmp_path) as workspace:
        found = carry_out(Recipe(steps=steps_from([step]), schemes=("int8",)), workspace)
    (record,) = found.records
    promise = next(promise for promise in record.promises if promise.kind == "latency")
    assert promise.of is not None
    assert promise.kept
    assert 0 < (promise.measured or 0) < promise.limit
    assert 5 * promise.of < promise.limit < 20 * promise.of  # the share of a time that was taken before
    assert " ms with 4 bits)" in " ".join(layer.done for layer in record.layers)


def test_a_recipe_says_which_layers_stayed_float(digits_model: Path, tmp_path: Path) -> None:
    step = {"mixed": {"size": "160%", "floats": True, "spare": ["FULLY_CONNECTED"]}}
    with Workspace(digits_model, datasets.load("digits"), tmp_path) as workspace:
        found = carry_out(Recipe(steps=steps_from([step]), schemes=("int8",)), workspace)
    (record,) = found.records
    assert not record.rolled_back
    done = [layer.done for layer in record.layers]
    assert any(one.startswith("float (alone it makes the error ") and one.endswith("with float)") for one in done)
    after = next(v for v in found.variants if v.name == "mixed.int8")
    held = {weight.dtype for weight in formats.facts(tmp_path / str(after.file)).weights if weight.kind == "weights"}
    assert held == {"float32", "int8"}


def test_what_a_plan_says_of_it() -> None:
    notes = plan(read_recipe("{schemes: [int8], steps: [round, mixed]}")).notes
    assert notes == ("steps[1].mixed: it rounds all weights anew",)
    with pytest.raises(ConfigError, match="Expected a size such as 64KB"):
        Mix(size="much")
    with pytest.raises(ConfigError, match="Expected a time such as 5ms"):
        Mix(latency="soon")
    with pytest.raises(ConfigError, match="got dynamic: runtimes know layers of 4 bits beside layers of 8"):
        plan(read_recipe("{schemes: [int8, dynamic], steps: [mixed]}"))
    with pytest.raises(ConfigError, match=r"got int4-block32: .*, and floats stand between integers"):
        plan(read_recipe("{schemes: [int4-block32], steps: [{mixed: {floats: true}}]}"))


def _nobodys(parsed: Any, schema: Any) -> None:
    """Makes the first operator one that no runtime knows."""
    code = parsed.operatorCodes[parsed.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = "Nobodys"


def _operators(content: bytes) -> list[formats.contract.OperatorFacts]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file.tflite"
        file.write_bytes(content)
        return list(formats.facts(file).operators)
