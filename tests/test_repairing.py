"""Ranges, scales and biases of quantized files: right where it is known what is right, nearer where it is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compressed_models import loaded_of

from edgeopt import data, formats
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.data import Part
from edgeopt.errors import DataError
from edgeopt.frameworks import load
from edgeopt.repairing import biases, closeness, ranges
from edgeopt.repairing.histograms import counterparts, histograms
from edgeopt.repairing.holding_out import divided
from edgeopt.repairing.ranges import ACTIVATIONS, WEIGHTS, Histogram
from edgeopt.repairing.running import activations, outputs
from edgeopt.repairing.scales import groups, parameters, with_ranges
from edgeopt.repairing.search import search
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import Carried, calibrate, correct_bias
from edgeopt.tflite.pairing import Pairing, pair_weights
from edgeopt.tflite.reader import read
from edgeopt.tflite.stored_weights import StoredWeights, layers, stored_bias, with_weights
from edgeopt.vocabulary import StepRecord

SAMPLES = 60
OUTPUTS = 16  # its weights are enough for dynamic range
OUTLIER = 40.0


def network() -> Any:
    """Convolutions with and without an activation, pooling, a reshape and a Dense layer."""
    keras = load("tf_keras")
    keras.utils.set_random_seed(5)
    layers = keras.layers
    x = inputs = layers.Input((8, 8, 2), name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="a")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="b")(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(OUTPUTS, name="c")(x))


def samples(outlier: bool = False) -> Part:
    x = np.random.default_rng(3).normal(0, 1, (SAMPLES, 8, 8, 2)).astype(np.float32)
    if outlier:
        x[0, 0, 0, 0] = OUTLIER
    return data.load({"x_train": x, "x_test": x[:4]}, calibration_samples=SAMPLES).calibration


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network in some schemes, calibrated with an outlier where the name says so."""
    folder = tmp_path_factory.mktemp("repairing")
    model = network()
    found = {}
    for name in ("float32", "int8", "int8-per-tensor", "int16x8", "dynamic"):
        found[name] = folder / f"{name}.tflite"
        found[name].write_bytes(_converter(model, samples()).to_bytes(SCHEMES[name]))
    found["int4"] = folder / "int4.tflite"
    found["int4"].write_bytes(_in_four_bits(found["float32"], found["int8"]))
    found["outlier"] = folder / "outlier.tflite"
    found["outlier"].write_bytes(_converter(model, samples(outlier=True)).to_bytes(SCHEMES["int8"]))
    return found


def _in_four_bits(float_file: Path, int8_file: Path) -> bytes:
    """The int8 file with weights of 4 bits, one scale a channel, but for the depthwise ones."""
    pairing = pair_weights(float_file.read_bytes(), int8_file.read_bytes())
    weights = {}
    for pair in pairing.pairs:
        if pair.quantized.operator.name != "DEPTHWISE_CONV_2D":
            values = pairing.float_weights(pair)
            scales = np.abs(values).reshape(len(values), -1).max(1) / 7
            near = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
            weights[pair.quantized.weight.index] = StoredWeights(near, scales.astype(np.float32), 4, 0)
    return with_weights(int8_file.read_bytes(), weights)


def _converter(model: Any, part: Part) -> Converter:
    return Converter(loaded_of(model), ConvertOptions(calibration=part))


@pytest.fixture(scope="module")
def part(files: dict[str, Path]) -> Part:
    return data.bind(samples(), formats.facts(files["float32"]).inputs)


# --- ranges ----------------------------------------------------------------------------------------------------------


def filled(values: np.ndarray) -> Histogram:
    histogram = Histogram(min(0.0, float(values.min())), max(0.0, float(values.max())))
    histogram.add(values)
    return histogram


# With 256 levels the square of one outlier is as much as the rounding of all others.
@pytest.mark.parametrize(("kind", "levels"), [("percentile", 256), ("mse", 16), ("entropy", 256)])
def test_one_outlier_in_many_values_is_clipped(kind: str, levels: int) -> None:
    values = np.append(np.random.default_rng(0).uniform(-1, 1, 100_000), OUTLIER)
    whole = ACTIVATIONS["min-max"](filled(values), levels, False)
    held = ACTIVATIONS[kind](filled(values), levels, False)
    assert whole == (pytest.approx(-1, abs=1e-4), OUTLIER)
    # The integers of a range from -1 to 1 are finer by (40 + 1) / 2; ends are tried in steps.
    assert (whole[1] - whole[0]) / (held[1] - held[0]) > 0.5 * (OUTLIER + 1) / 2
    assert held[0] < -0.7
    assert held[1] > 0.7


def test_what_reaches_no_farther_than_most_is_kept() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 100_000)
    for kind in ACTIVATIONS:
        low, high = ACTIVATIONS[kind](filled(values), 256, False)
        assert low == 0
        assert high == pytest.approx(1, abs=0.02), kind
        # int16 has its 0 in the middle.
        low, high = ACTIVATIONS[kind](filled(values), 65535, True)
        assert low == -high


def test_zeros_of_a_relu_do_not_draw_the_range_to_them() -> None:
    values = np.maximum(np.random.default_rng(0).normal(-2, 1, 200_000), 0)
    assert (values == 0).mean() > 0.9
    _, high = ACTIVATIONS["entropy"](filled(values), 256, False)
    assert high > 0.5 * values.max()
    counted = filled(values)
    assert counted.counts.sum() + counted.zeros == values.size


def test_clipping_points_of_weights() -> None:
    rows = np.random.default_rng(0).laplace(0, 1, (3, 4096))
    rows[1] *= 10
    # Sakr et al., table 1: of a Laplace distribution with 4 bits; Banner et al. have 5.03 deviations of 1 for mse.
    for kind, low, high in (("mse", 4.0, 6.0), ("octav", 4.0, 6.0)):
        clip = WEIGHTS[kind](rows, 4)
        assert low < clip[0] < high, kind
        assert clip[1] == pytest.approx(10 * clip[0], rel=0.15)
    assert WEIGHTS["min-max"](rows, 4) == pytest.approx(np.abs(rows).max(1))
    assert WEIGHTS["octav"](np.zeros((1, 8)), 4) == [0]


def test_a_constant_has_no_range_to_choose() -> None:
    assert filled(np.zeros(10)).empty
    assert not filled(np.arange(10.0)).empty
    assert ranges.alike((0, 1), [(0, 1.001)])
    assert not ranges.alike((0, 1), [(0, 1.1)])


# --- scales ----------------------------------------------------------------------------------------------------------


def test_parameters_hold_the_range_and_say_zero_exactly() -> None:
    assert parameters((-1.0, 1.0), "int16") == (1 / 32767, 0)
    scale, zero = parameters((0.0, 2.55), "int8")
    assert (scale, zero) == (pytest.approx(0.01), -128)
    assert parameters((1.0, 2.55), "int8") == (pytest.approx(0.01), -128)  # 0 is among them


def test_what_shares_a_scale_moves_together(files: dict[str, Path]) -> None:
    model = read(files["int8"].read_bytes())
    free, left = groups(model)
    assert not left
    operators = {operator.name: operator for operator in model.main.operators}
    pool = operators["MAX_POOL_2D"]
    (group,) = (group for group in free if pool.inputs[0] in group.tensors)
    assert pool.outputs[0] in group.tensors
    content = with_ranges(files["int8"].read_bytes(), {group: (0.0, 2 * group.held[1])})
    changed = read(content)
    for index in group.tensors:
        assert changed.main.tensors[index].quantization.scales[0] == pytest.approx(2 * group.held[1] / 255, rel=1e-5)
    # What comes in has other steps, and the bias the same real values.
    for ours, theirs in zip(layers(model), layers(changed)):
        assert stored_bias(changed, theirs) == pytest.approx(stored_bias(model, ours), abs=1e-4)


@pytest.mark.parametrize("scheme", ["int8", "int16x8", "int8-per-tensor"])
def test_the_same_ranges_anew_are_the_same_outputs(
    files: dict[str, Path], part: Part, scheme: str, tmp_path: Path
) -> None:
    content = files[scheme].read_bytes()
    free, _ = groups(read(content))
    assert free
    (tmp_path / "same.tflite").write_bytes(with_ranges(content, {group: group.held for group in free}))
    for before, after in zip(outputs(files[scheme], part), outputs(tmp_path / "same.tflite", part)):
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])
    assert with_ranges(content, {}) == content


def test_a_softmax_keeps_the_scale_of_its_kernel(digits_model: Path, tmp_path: Path) -> None:
    import edgeopt

    edgeopt.convert(digits_model, tmp_path / "m.tflite", scheme="int8", data=data.load("digits"))
    _, left = groups(read((tmp_path / "m.tflite").read_bytes()))
    assert "SOFTMAX has a scale of its own" in left.values()


def test_activations_are_found_in_the_float_file(files: dict[str, Path], part: Part) -> None:
    floating, quantized = read(files["float32"].read_bytes()), read(files["int8"].read_bytes())
    free, _ = groups(quantized)
    names = counterparts(floating, quantized)
    assert all(any(index in names for index in group.tensors) for group in free)
    found = histograms(files["float32"], floating, quantized, free, part)
    assert found.keys() == set(free)
    seen = {name: values for batch in activations(files["float32"], part) for name, values in batch.items()}
    for group, histogram in found.items():
        sizes = sum(seen[names[i]][0].size for i in group.tensors if i in names)
        assert histogram.counts.sum() + histogram.zeros == sizes * len(part)
        # Converters take the same samples, and nudge the ends so that 0 is a step.
        assert histogram.high == pytest.approx(group.held[1], abs=0.01 * (group.held[1] - group.held[0]))


# --- closeness -------------------------------------------------------------------------------------------------------


def test_a_difference_is_told_from_chance() -> None:
    draws = np.random.default_rng(0)
    errors = draws.uniform(1, 2, 50)
    assert closeness.change(errors, errors * 0.5).nearer
    assert closeness.change(errors, errors * 2).farther
    same = closeness.change(errors, errors[::-1])
    assert not same.nearer
    assert not same.farther
    assert "equal, within chance" in same.words
    assert closeness.change(np.array([4.0]), np.array([1.0])).p_value == 1
    assert not closeness.change(errors, np.full(50, np.inf)).nearer


def test_errors_are_in_spreads_of_the_float_outputs(files: dict[str, Path], part: Part) -> None:
    floating = closeness.reference(files["float32"], part)
    assert closeness.errors(floating, files["float32"], part).max() < 1e-9
    values = np.concatenate([next(iter(batch.values())) for batch in outputs(files["float32"], part)])
    (spread,) = floating.spreads.values()
    assert spread == pytest.approx(values.var(axis=0).mean(), rel=1e-5)
    wide = closeness.errors(floating, files["int16x8"], part).mean()
    assert wide < closeness.errors(floating, files["int8"], part).mean()


def test_what_is_streamed_is_what_is_held(files: dict[str, Path], part: Part, monkeypatch: Any) -> None:
    floating = closeness.reference(files["float32"], part)
    held = closeness.change(*(closeness.errors(floating, files[name], part) for name in ("int8", "int16x8")))
    found = closeness.compared(files["float32"], part, before=files["int8"], after=files["int16x8"])
    assert (found.before, found.after) == (pytest.approx(held.before), pytest.approx(held.after))
    assert found.p_value == pytest.approx(held.p_value)
    assert len(closeness.held_at_once(files["float32"], part)) == SAMPLES
    monkeypatch.setattr(closeness, "_HELD_BYTES", 10 * 4 * OUTPUTS)
    assert len(closeness.held_at_once(files["float32"], part)) == 10


def test_a_file_of_a_fixed_batch_is_fed_all_samples(tmp_path: Path, part: Part) -> None:
    fixed = Converter(loaded_of(network()), ConvertOptions(batch_size=16)).to_bytes("float32")
    single = Converter(loaded_of(network()), ConvertOptions()).to_bytes("float32")
    (tmp_path / "fixed.tflite").write_bytes(fixed)
    (tmp_path / "single.tflite").write_bytes(single)
    found = []
    for name in ("fixed", "single"):
        found.append(np.concatenate([next(iter(b.values())) for b in outputs(tmp_path / f"{name}.tflite", part)]))
    assert len(found[0]) == SAMPLES == 3 * 16 + 12
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_too_few_samples_are_refused(part: Part) -> None:
    seen, held_out = divided(part, "calibrate")
    assert (len(seen), len(held_out)) == (2 * SAMPLES // 3, SAMPLES // 3)
    with pytest.raises(DataError, match=r"Expected at least 14 calibration samples for calibrate, got 13: .*chance"):
        divided(part.head(13), "calibrate")


def test_a_search_takes_what_is_shown_to_help() -> None:
    draws = np.random.default_rng(0).uniform(1, 2, 40)
    worth = {("a", "good"): 0.5, ("a", "bad"): 2.0, ("b", "good"): 1.5, ("b", "bad"): 1.0}
    tried = []

    def measure(chosen: Any) -> np.ndarray | None:
        tried.append(dict(chosen))
        if chosen.get("c"):
            return None  # no file can have it
        return draws * np.prod([worth[item] for item in chosen.items()] or 1.0)

    assert search({"a": ["good", "bad"], "b": ["good", "bad"], "c": ["good"]}, measure) == {"a": "good"}
    assert tried[0] == {}


# --- the techniques --------------------------------------------------------------------------------------------------


def calibrated(files: dict[str, Path], name: str, part: Part, folder: Path, **said: Any) -> tuple[Path, StepRecord]:
    step = calibrate.Calibrate(**said)
    return calibrate.apply(step, files["float32"], SCHEMES["int8"], part, Carried(folder, converted=files[name]))


def test_an_outlier_of_the_calibration_is_undone(files: dict[str, Path], part: Part, tmp_path: Path) -> None:
    made, record = calibrated(files, "outlier", part, tmp_path, weights="keep")
    found = closeness.compared(files["float32"], part, before=files["outlier"], after=made)
    assert found.nearer
    # Inputs of deviation 1 reach to about 4: steps are ten times finer, and of the rest other roundings make the most.
    assert found.before / found.after > 2
    (promise,) = record.promises
    assert promise.kept
    assert promise.measured == pytest.approx(100 * found.after, rel=0.5)
    assert any("→" in layer.done for layer in record.layers)


def test_where_nothing_is_won_the_file_is_as_it_was(files: dict[str, Path], part: Part, tmp_path: Path) -> None:
    made, record = calibrated(files, "int16x8", part, tmp_path, weights="keep")
    assert made.read_bytes() == files["int16x8"].read_bytes()
    assert record.promises == ()
    assert any("ranges are as they were" in note or "no other range" in note for note in record.notes)


def test_one_kind_of_range_for_all(files: dict[str, Path], part: Part, tmp_path: Path) -> None:
    made, record = calibrated(files, "int4", part, tmp_path, activations="keep", weights="mse")
    assert {layer.done for layer in record.layers} == {"mse"}
    pairing = pair_weights(files["float32"].read_bytes(), made.read_bytes())
    before = pair_weights(files["float32"].read_bytes(), files["int4"].read_bytes())

    def error(one: Pairing) -> float:
        return sum(float(((one.float_weights(p) - one.stored(p).dequantized) ** 2).sum()) for p in one.pairs)

    assert error(pairing) < error(before)
    assert {one.stored(p).bits for one in (pairing, before) for p in one.pairs} == {4, 8}


def test_a_choice_is_made_of_four_bits_too(files: dict[str, Path], part: Part, tmp_path: Path) -> None:
    made, record = calibrated(files, "int4", part, tmp_path)
    found = closeness.compared(files["float32"], part, before=files["int4"], after=made)
    assert found.after <= found.before
    assert all(promise.kept for promise in record.promises)


def test_weights_that_were_rounded_with_care_are_kept(files: dict[str, Path], part: Part, tmp_path: Path) -> None:
    pairing = pair_weights(files["float32"].read_bytes(), files["int8"].read_bytes())
    careful = {}
    for pair in pairing.pairs:
        stored = pairing.stored(pair)
        up = np.where(stored.values < 127, stored.values + 1, stored.values).astype(np.int8)
        careful[pair.quantized.weight.index] = replace(stored, values=up)
    rounded = {**files, "rounded": tmp_path / "rounded.tflite"}
    rounded["rounded"].write_bytes(with_weights(files["int8"].read_bytes(), careful))
    _, record = calibrated(rounded, "rounded", part, tmp_path, activations="keep", weights="mse")
    assert {layer.reason for layer in record.layers} == {"rounded with more care than to the nearest integer"}


@pytest.mark.parametrize("scheme", ["int8", "int4", "int16x8", "dynamic"])
def test_biases_that_are_off_by_a_known_number_are_put_right(
    files: dict[str, Path], part: Part, scheme: str, tmp_path: Path
) -> None:
    content = files[scheme].read_bytes()
    pairing = pair_weights(files["float32"].read_bytes(), content)
    pair = pairing.pairs[-1]  # the Dense layer, whose outputs are the file's
    layer, model = pair.quantized, pairing.quantized
    off = np.resize([0.1, -0.05, 0.0, 0.15], OUTPUTS)
    before = stored_bias(model, layer)
    shifted = tmp_path / "shifted.tflite"
    shifted.write_bytes(
        with_weights(content, {}, {layer.operator.index: (np.zeros(OUTPUTS) if before is None else before) + off})
    )
    made, found = biases.corrected(files["float32"], shifted, part, tmp_path)
    correction = found[-1]
    assert (correction.kind, correction.reason) == ("FULLY_CONNECTED", "")
    # What rounding alone had shifted is corrected beside it.
    own = biases.corrected(files["float32"], files[scheme], part, tmp_path)[1][-1]
    assert correction.off - own.off == pytest.approx(-off, abs=0.02)
    assert np.all(correction.doubt < 0.02)
    (tmp_path / "made.tflite").write_bytes(made)
    change = closeness.compared(files["float32"], part, before=shifted, after=tmp_path / "made.tflite")
    assert change.nearer
    step = correct_bias.CorrectBias()
    output, record = correct_bias.apply(
        step, files["float32"], SCHEMES["int8"], part, Carried(tmp_path, converted=shifted)
    )
    assert all(promise.kept for promise in record.promises)
    assert closeness.compared(files["float32"], part, before=shifted, after=output).nearer


def test_a_difference_below_its_doubt_is_none() -> None:
    off, doubt = np.array([1.0, 1.0, -2.0, 0.0]), np.array([0.0, 2.0, 1.0, 1.0])
    assert biases.shrunk(off, doubt) == pytest.approx([1, 0, -2 * (1 - 1 / 4), 0])
