"""The reference models: sizes as published, training that learns, repeats itself and says what it refuses."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import autoencoder
import detector
import digits_cnn
import drawn
import ds_cnn
import mobilenet_v2
import numpy as np
import pytest
import resnet8
import training
from click.testing import CliRunner

from edgeopt import data, metrics
from edgeopt.errors import ConfigError, DataError
from edgeopt.frameworks import load
from edgeopt.training import augmentation
from edgeopt.training.stream import stream

MODELS = Path(__file__).parents[1] / "models"

ARCHITECTURES = {module.__name__: module for module in (digits_cnn, ds_cnn, resnet8, mobilenet_v2, autoencoder)}


def batch_norm(channels: int) -> int:
    return 4 * channels


def tiny(shape: tuple[int, ...], *, dtype: str = "float32", high: float = 1.0, samples: int = 24) -> dict[str, Any]:
    """Two classes that differ in brightness, so that one epoch has something to learn."""
    rng = np.random.default_rng(0)
    labels = np.arange(samples) % 2
    x = (rng.random((samples, *shape)) * (0.5 + 0.5 * labels.reshape(-1, *[1] * len(shape))) * high).astype(dtype)
    return {"x_train": x, "y_train": labels, "x_test": x[:8], "y_test": labels[:8]}


# --- architectures ---------------------------------------------------------------------------------------------------


def test_resnet8_has_the_published_parameters() -> None:
    def residual(channels_in: int, channels: int) -> int:
        shortcut = 0 if channels_in == channels else channels_in * channels + channels
        convolutions = 9 * channels_in * channels + channels + 9 * channels * channels + channels
        return convolutions + 2 * batch_norm(channels) + shortcut

    stem = 9 * 3 * 16 + 16 + batch_norm(16)
    expected = stem + residual(16, 16) + residual(16, 32) + residual(32, 64) + 64 * 10 + 10
    assert resnet8.build().count_params() == expected == 78_666


def test_autoencoder_has_as_many_weights_as_mlperf_tiny_s_file(shared: Path) -> None:
    import h5py

    sizes: list[int] = []
    with h5py.File(shared / "models" / "ad01.h5") as file:
        file["model_weights"].visititems(lambda _, item: sizes.append(item.size) if hasattr(item, "size") else None)
    assert autoencoder.build((640,)).count_params() == sum(sizes)


@pytest.mark.parametrize(("width", "size"), [(0.35, 96), (1.0, 32)])
def test_mobilenet_v2_has_the_parameters_of_keras_own(width: float, size: int) -> None:
    theirs = load("keras").applications.MobileNetV2((size, size, 3), alpha=width, weights=None, classes=10)
    assert mobilenet_v2.build((size, size, 3), 10, width=width).count_params() == theirs.count_params()


@pytest.mark.parametrize(("size", "last_map"), [(32, 4), (48, 3), (64, 4), (96, 3), (128, 4), (224, 7)])
def test_mobilenet_v2_keeps_a_map_of_3_by_3_on_small_pictures(size: int, last_map: int) -> None:
    assert size // math.prod(mobilenet_v2.strides_for(size)) == last_map


@pytest.mark.parametrize(("bands", "width", "columns"), [(10, 4, 5), (40, 8, 10), (80, 16, 10)])
def test_ds_cnn_reads_wider_spectrograms_in_wider_steps(bands: int, width: int, columns: int) -> None:
    model = ds_cnn.build((49, bands, 1), 12)
    stem = next(layer for layer in model.layers if "conv2d" in layer.name)
    assert stem.output.shape == (None, 25, columns, 64)
    blocks = 4 * (9 * 64 + 64 * 64 + 2 * batch_norm(64))
    assert model.count_params() == 10 * width * 64 + batch_norm(64) + blocks + 64 * 12 + 12


def test_digits_cnn_holds_what_compression_meets_and_stays_small() -> None:
    model = digits_cnn.build()
    kinds = {type(layer).__name__ for layer in model.layers}
    assert {"Conv2D", "DepthwiseConv2D", "BatchNormalization", "Add", "GlobalAveragePooling2D", "Dense"} <= kinds
    assert 15_000 <= model.count_params() <= 60_000


def test_width_narrows_every_architecture() -> None:
    for name, module in ARCHITECTURES.items():
        shape = (64,) if name == "autoencoder" else (16, 16, 1)
        small, large = (module.build(shape, 10, width=width).count_params() for width in (0.25, 1.0))
        assert small < 0.4 * large, name


@pytest.mark.parametrize(
    ("base", "width", "expected"), [(64, 1.0, 64), (64, 0.35, 24), (32, 0.35, 16), (16, 0.1, 8), (24, 0.75, 24)]
)
def test_channels_are_multiples_of_8_and_never_far_under_what_was_asked(base: int, width: float, expected: int) -> None:
    assert training.channels(base, width) == expected
    assert training.channels(base, width) % 8 == 0
    assert training.channels(base, width) >= 0.9 * base * width


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"autoencoder"}))
def test_vectors_are_refused_where_images_are_needed(name: str) -> None:
    with pytest.raises(ConfigError, match=r"Expected samples of shape \(height, width, channels\), got \(64,\)\. Try"):
        ARCHITECTURES[name].build((64,), 10)


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_shift_moves_each_sample_by_its_own_distance_and_repeats_the_edge() -> None:
    x = np.random.default_rng(0).random((40, 8, 6, 2), dtype=np.float32)
    for axis, length in ((1, 8), (2, 6)):
        moved = augmentation.shift(x, [1, 2], axis=axis, share=1 / 3).numpy()
        most = round(length / 3)
        distances = []
        for before, after in zip(x, moved):
            at = {by: np.clip(np.arange(length) + by, 0, length - 1) for by in range(-most, most + 1)}
            distances += [by for by, index in at.items() if np.array_equal(before.take(index, axis - 1), after)]
        assert len(distances) == 40
        assert set(distances) == set(range(-most, most + 1))


def test_flip_mirrors_some_pictures_and_leaves_the_others() -> None:
    x = np.random.default_rng(0).random((40, 4, 4, 3), dtype=np.float32)
    flipped = augmentation.flip(x, [3, 4]).numpy()
    kept = [np.array_equal(a, b) for a, b in zip(x, flipped)]
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(x, flipped)]
    assert sum(kept) + sum(mirrored) == 40
    assert 10 < sum(kept) < 30


def test_mask_hides_one_stripe_behind_the_sample_s_mean() -> None:
    x = np.random.default_rng(0).random((40, 20, 10, 1), dtype=np.float32)
    masked = augmentation.mask(x, [5, 6], axis=1, share=0.25).numpy()
    widths = []
    for before, after in zip(x, masked):
        rows = np.flatnonzero((before != after).any(axis=(1, 2)))
        widths.append(len(rows))
        if len(rows):
            assert rows.tolist() == list(range(rows[0], rows[-1] + 1))
            np.testing.assert_allclose(after[rows], before.mean(), rtol=1e-5)
    assert max(widths) == 20 * 0.25
    assert min(widths) < 2


def test_augmentation_changes_from_batch_to_batch_and_repeats_with_the_seed() -> None:
    part = data.load(tiny((8, 8, 1), samples=8)).training

    def two_epochs() -> list[np.ndarray]:
        batches = stream(part, batch_size=8, augment="image", seed=3).take(2)
        return [np.sort(x, axis=0) for x, _ in batches.as_numpy_iterator()]

    first, second = two_epochs(), two_epochs()
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(first, second)


# --- training --------------------------------------------------------------------------------------------------------


def small(shape: tuple[int, ...], classes: int, *, width: float, scale: float, offset: float) -> Any:
    """An architecture that is traced in no time."""
    layers = load("keras").layers
    inputs = layers.Input(shape)
    x = training.rescaled(inputs, scale, offset)
    if len(shape) == 3:
        x = layers.BatchNormalization()(layers.Conv2D(8, 3)(x))
    return load("keras").Model(inputs, layers.Dense(classes, "softmax")(layers.Flatten()(x)))


TINY_DATA = {
    "ds_cnn": tiny((20, 10, 1), dtype="float16"),
    "resnet8": tiny((16, 16, 3), dtype="uint8", high=255),
    "mobilenet_v2": tiny((16, 16, 3), dtype="uint8", high=255),
    "autoencoder": tiny((6, 6, 1)),
}


@pytest.mark.parametrize(
    "name", ["ds_cnn", "resnet8", "autoencoder", pytest.param("mobilenet_v2", marks=pytest.mark.slow)]
)
def test_one_epoch_on_tiny_data_gives_a_plain_keras_file(name: str, tmp_path: Path) -> None:
    aim = training.INPUT if name == "autoencoder" else training.CLASSES
    augment = {"ds_cnn": "spectrogram", "autoencoder": "none"}.get(name, "image")
    dataset = data.load(TINY_DATA[name], labels=aim.labels)
    settings = training.Training(epochs=1, batch_size=8, augment=augment)
    model = training.fit(ARCHITECTURES[name].build, dataset, settings, aim=aim, width=0.1)

    value = training.score(model, dataset.validation, aim=aim)
    assert value.name == aim.metric
    assert value.samples == 8
    model.save(tmp_path / "model.keras")
    again = load("keras").models.load_model(tmp_path / "model.keras", safe_mode=True)
    x = TINY_DATA[name]["x_test"].astype("float32")
    np.testing.assert_array_equal(again(x), model(x))
    assert len(model.optimizer.variables) == 2  # its step and rate: the file holds no slots


def test_raw_integers_go_in_and_are_scaled_inside_the_model() -> None:
    raw = tiny((16, 16, 3), dtype="uint8", high=255)
    raw["x_train"][0, 0, 0] = (0, 255, 7)
    model = training.fit(small, data.load(raw), training.Training(epochs=1, batch_size=24))
    (rescaling,) = [layer for layer in model.layers if type(layer).__name__ == "Rescaling"]
    assert (rescaling.scale, rescaling.offset) == (pytest.approx(1 / 255), 0)


def test_data_in_0_to_1_need_no_scaling_layer() -> None:
    kinds = {type(layer).__name__ for layer in digits_cnn.build(scale=1.0, offset=0.0).layers}
    assert "Rescaling" not in kinds


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    dataset = data.load(tiny((8, 8, 1)))

    def weights(seed: int) -> np.ndarray:
        settings = training.Training(epochs=2, batch_size=8, augment="shift")
        return np.concatenate([w.ravel() for w in training.fit(small, dataset, settings, seed=seed).get_weights()])

    first = weights(1)
    np.testing.assert_array_equal(first, weights(1))
    assert not np.array_equal(first, weights(2))


def test_what_cannot_be_trained_on_is_refused_in_words() -> None:
    settings = training.Training(epochs=1, batch_size=8)
    x = tiny((8, 8, 1))["x_train"]

    def refused(kind: type[Exception], match: str, spec: Any, **changes: Any) -> None:
        with pytest.raises(kind, match=match):
            training.fit(small, data.load(spec), replace(settings, **changes))

    refused(DataError, "Expected class labels to train on, got none.*Try data with y_train", {"x": x})
    refused(DataError, "Expected samples that differ, got 0 everywhere. Try", {"x": 0 * x, "y": np.arange(24) % 2})
    refused(
        ConfigError,
        r"Expected images or spectrograms to augment, got samples \(64,\). Try augment: none",
        {"x": x.reshape(24, 64), "y": np.arange(24) % 2},
        augment="shift",
    )
    two = {"x_train_left": x, "x_train_right": x, "y_train": np.arange(24) % 2, "x_test_left": x, "x_test_right": x}
    refused(DataError, "Expected training samples with one input, got 24 samples with 2. Try", two)


def test_a_training_that_diverges_gives_no_model() -> None:
    def linear(shape: tuple[int, ...], classes: int | None, **_: Any) -> Any:
        inputs = load("keras").layers.Input(shape)
        return load("keras").Model(inputs, load("keras").layers.Dense(6)(inputs))

    # Each step multiplies the error: the first epochs still have a loss that is a number, or not even those.
    for rate in (2.0, 100.0):
        settings = training.Training(
            epochs=60, batch_size=8, optimizer="sgd", learning_rate=rate, weight_decay=0.0, decay="constant", warmup=0.0
        )
        dataset = data.load(tiny((6,), high=100.0), labels="inputs")
        with pytest.raises(ConfigError, match=r"Expected training to converge, got.*(no number|NaN).*(T|t)ry"):
            training.fit(linear, dataset, settings, aim=training.INPUT)


# --- the detector ----------------------------------------------------------------------------------------------------


def told(boxes: np.ndarray) -> np.ndarray:
    """Returns the head that tells boxes [N, boxes, 5] without a doubt."""
    heads = np.zeros((len(boxes), detector.CELLS, detector.CELLS, detector.CLASSES + 4), np.float32)
    for n, row in enumerate(boxes):
        for x1, y1, x2, y2, kind in row[row[:, 4] >= 0]:
            x, y = (x1 + x2) / 2 / detector.CELL, (y1 + y2) / 2 / detector.CELL
            cell = heads[n, int(y), int(x)]
            cell[int(kind)] = 0.99
            cell[detector.CLASSES :] = (x2 - x1) / detector.SIZE, (y2 - y1) / detector.SIZE, x - int(x), y - int(y)
    return heads


def test_a_head_that_tells_all_boxes_is_decoded_into_them_and_costs_least() -> None:
    drawn = detector.drawn(4, 24)
    x, boxes = drawn["x_test"], drawn["y_test"]
    assert (x.shape, x.dtype) == ((24, 48, 48, 1), np.uint8)
    head = told(boxes)
    rows = metrics.metric("map@detector:boxes")
    batch = data.load((x, boxes), labels="values", validation_share=1.0).validation.arrays()
    assert rows.value(rows.settle(*rows.per_sample(head, batch))).value == pytest.approx(1.0)

    def cost(head: np.ndarray) -> np.ndarray:
        return np.asarray(detector.loss(boxes, load("tensorflow").constant(head)))

    best = cost(head)
    assert best.shape == (24,)
    assert best.max() < 0.05
    wider, elsewhere = head.copy(), np.roll(head, 3, axis=2)
    wider[..., detector.CLASSES] += 0.1
    assert (cost(wider) > best + 0.4).all()
    assert (cost(elsewhere) > best + 1).all()
    assert detector.build().output_shape == (None, *head.shape[1:])


def test_what_is_drawn_are_shapes_in_their_boxes() -> None:
    drawn = detector.drawn(8, 1)
    for picture, boxes in zip(drawn["x_train"][..., 0], drawn["y_train"]):
        there = boxes[boxes[:, 4] >= 0]
        assert 1 <= len(there) <= 3
        for x1, y1, x2, y2, _ in there.round().astype(int):
            middle = picture[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3]
            assert middle.mean() > 100


# --- scripts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [*ARCHITECTURES.values(), detector], ids=lambda module: module.__name__)
def test_what_a_script_has_by_default_is_among_what_it_takes(module: Any) -> None:
    done = CliRunner().invoke(module.main, ["--data", "digits", "-o", "model.h5"])
    assert "Expected an output that ends in .keras, got model.h5" in done.output


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(MODELS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def test_digits_reach_97_percent_and_the_printed_score_is_the_file_s(tmp_path: Path) -> None:
    output = tmp_path / "digits.keras"
    done = script("digits_cnn", "-o", output)
    assert (done.returncode, done.stderr) == (0, "")
    printed = re.search(r"top1 ([\d.]+) \(([\d.]+) to ([\d.]+)\) on (\d+) held-out samples", done.stdout)
    assert printed
    accuracy = float(printed[1])
    assert accuracy >= 0.97
    held_out = data.load("digits").validation
    assert int(printed[4]) == len(held_out)
    everything = held_out.arrays()
    model = load("keras").models.load_model(output)
    predicted = model.predict(next(iter(everything.inputs.values())), verbose=0).argmax(axis=1)
    assert accuracy == pytest.approx((predicted == everything.labels).mean(), abs=5e-5)


def test_scripts_refuse_before_they_train(tmp_path: Path) -> None:
    taken = tmp_path / "taken.keras"
    taken.write_text("somebody's")
    for arguments, message in (
        (("-o", taken), "exists already. Try another name, or --force"),
        (("-o", tmp_path / "model.h5"), "Expected an output that ends in .keras, got .*model.h5. Try .*model.keras"),
        (("-o", tmp_path / "m.keras", "--data", tmp_path / "none.npz"), "which does not exist"),
        (("-o", tmp_path / "m.keras", "--epochs", 0), "Invalid value for '--epochs'"),
    ):
        done = script("digits_cnn", *arguments)
        assert done.returncode == 2, done.stderr
        assert re.search(message, done.stderr)
        assert "Traceback" not in done.stderr
    assert taken.read_text() == "somebody's"
    assert sorted(tmp_path.iterdir()) == [taken]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_help_is_quick_and_says_what_the_model_is(name: str) -> None:
    done = script(name, "--help")
    assert done.returncode == 0
    assert "--learning-rate" in done.stdout
    assert ARCHITECTURES[name].__doc__.splitlines()[0][:40] in done.stdout  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_readme_s_table_is_what_the_models_are(tmp_path: Path) -> None:
    from edgeopt.inspection import inspect_file

    rows = re.findall(
        r"^\| `(\w+)\.py` \|.*?\| (\S+) → .*?\| ([\d,]+) \| ([\d,]+) \|", (MODELS / "README.md").read_text(), re.M
    )
    modules = {**ARCHITECTURES, detector.__name__: detector}
    assert {row[0] for row in rows} == set(modules)
    for name, shape, parameters, macs in rows:
        model = modules[name].build()
        assert shape.split("\N{MULTIPLICATION SIGN}") == [str(size) for size in model.input_shape[1:]]
        model.save(tmp_path / f"{name}.keras")
        inspection = inspect_file(tmp_path / f"{name}.keras")
        assert (f"{inspection.parameters:,}", f"{inspection.macs:,}") == (parameters, macs), name
        assert inspection.parameters == model.count_params()


def test_a_drawn_network_is_written_with_data_that_score_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(drawn.main, ["tagger", "--epochs", "1"])
    assert (done.exit_code, done.output) == (
        0,
        f"tagger.keras: {30 * 16 + 3 * 16 * 32 + 32 + 32 * 32 + 32 + 32 * 4 + 4:,} parameters; "
        "tagger.npz: 1,200 samples and 800 to test\n",
    )
    assert len(data.load("tagger.npz").validation) == drawn.TESTED
    assert load("keras").models.load_model("tagger.keras").loss.ignore_class == -1
    again = CliRunner().invoke(drawn.main, ["tagger"])
    assert "tagger.keras exists already. Try another name, or --force to overwrite it" in again.output


def test_vectors_of_one_class_that_lie_together_cost_least() -> None:
    labels, ways = np.array([0, 0, 1, 1]), np.eye(2, dtype="float32")
    apart, mixed = (np.asarray(drawn.alike(labels, ways[order])) for order in ([0, 0, 1, 1], [0, 1, 0, 1]))
    # Of three others one is alike, at a cosine of 1 / 0.1; two are at 0.
    assert apart == pytest.approx(np.full(4, math.log(math.exp(10) + 2) - 10), abs=1e-5)
    assert (mixed > apart + 9).all()
