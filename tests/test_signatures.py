"""Several sizes in one file, a signature for each: weights are shared, each is proven, commands tell them apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_models
from click.testing import CliRunner

from edgeopt import compare, convert, data, evaluate, frameworks, inspect
from edgeopt.api.sizes import names_of
from edgeopt.cli import cli
from edgeopt.data.sizes import in_sizes
from edgeopt.errors import ConfigError, DataError
from edgeopt.formats import signatures
from edgeopt.loading.sizes import sized
from edgeopt.runtimes.signatures import run as run_signature
from edgeopt.tflite.reader import read
from edgeopt.tflite.signatures import alone, main_alone, merged
from edgeopt.units import parse_shapes, parse_sizes
from edgeopt.vocabulary import TensorSpec

PICTURES = np.random.default_rng(0).random((40, 12, 12, 3)).astype("float32")
MASKS = (PICTURES[..., 0] > 0.5).astype("uint8")
PER_PIXEL = 24 * 3 * 9 + 24 * 24 * 9 + 2 * 24
DATA = {"x_train": PICTURES[:30], "y_train": MASKS[:30], "x_test": PICTURES[30:], "y_test": MASKS[30:]}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Path]:
    """A fully convolutional net, it in int8 in two sizes, and in the second one alone."""
    keras = frameworks.load("keras")
    keras.utils.set_random_seed(0)
    picture = keras.Input((None, None, 3), name="picture")
    x = keras.layers.Conv2D(24, 3, padding="same", activation="relu")(picture)
    x = keras.layers.Conv2D(24, 3, padding="same", activation="relu")(x)
    folder = tmp_path_factory.mktemp("sizes")
    keras.Model(picture, keras.layers.Conv2D(2, 1, activation="softmax")(x)).save(folder / "free.keras")
    shapes = parse_sizes(["1,12,12,3", "1,20,16,3"])
    found = convert(folder / "free.keras", folder / "both.tflite", scheme="int8", data=DATA, shapes=shapes)
    return folder / "free.keras", found, folder / "both.tflite"


def run(*words: str | Path) -> str:
    """Returns what a command prints."""
    done = CliRunner().invoke(cli, [*map(str, words), "--quiet"])
    assert done.exit_code == 0, done.output
    return done.output


def test_sizes_share_their_weights_and_are_each_proven(both: tuple[Path, Any, Path]) -> None:
    _, found, file = both
    small, large = found.signatures
    assert (small.name, large.name) == ("size_12x12", "size_20x16")
    assert [one.inputs[0].shape for one in (small, large)] == [(1, 12, 12, 3), (1, 20, 16, 3)]
    assert (small.macs, large.macs) == (12 * 12 * PER_PIXEL, 20 * 16 * PER_PIXEL)
    assert min(small.keras_db, large.keras_db) > 25
    assert small.fidelity is not None
    assert large.fidelity is not None
    assert "samples resized from 12x12x3 to 20x16x3" in large.notes
    assert "resized" not in str(small.notes)
    # The integers of all kernels are there once; what the two calibrations made different, ranges and biases, twice.
    assert small.inputs[0].quantization != large.inputs[0].quantization
    model = read(file.read_bytes())
    kernels = {t.buffer for graph in model.subgraphs for t in graph.tensors if t.is_constant and len(t.shape) == 4}
    assert len(kernels) == 3
    assert len(model.subgraphs) == 2


def test_commands_say_which_signature_and_take_another(both: tuple[Path, Any, Path], tmp_path: Path) -> None:
    _, _, file = both
    np.savez(tmp_path / "large.npz", x=np.zeros((8, 20, 16, 3), "float32"), y=np.zeros((8, 20, 16), "uint8"))
    np.savez(tmp_path / "small.npz", x=PICTURES[30:], y=MASKS[30:])
    told = "of the signature size_12x12; --signature names another: size_20x16"
    assert f"note: {told}" in run("evaluate", file, "--data", tmp_path / "small.npz")
    with pytest.raises(DataError, match=f"Expected .12, 12, 3. per sample .* It is {told}"):
        evaluate(file, data.load(str(tmp_path / "large.npz"), validation_share=1.0).validation)
    large = run("evaluate", file, "--data", tmp_path / "large.npz", "--signature", "size_20x16")
    assert "note: of the signature size_20x16" in large
    timed = json.loads(run("benchmark", file, "--runs", "3", "--signature", "size_20x16", "--json"))
    assert timed["rows"][0]["file"] == str(file)
    assert "of the signature size_20x16" in timed["notes"]
    shown = inspect(file, signature="size_20x16")
    assert shown.inputs[0].shape == (1, 20, 16, 3)
    assert shown.notes[0] == "of the signature size_20x16"
    assert f"signature size_20x16: picture 1x20x16x3, {20 * 16 * PER_PIXEL:,} MACs" in inspect(file).notes
    alike = compare(
        file, file, data.load({"x": PICTURES[30:]}).calibration, signature="size_12x12", runtime_b="tflite-runtime"
    )
    assert alike.notes[0] == told


def test_a_signature_that_is_not_there(both: tuple[Path, Any, Path]) -> None:
    model, _, file = both
    with pytest.raises(ConfigError, match="Expected one of the signatures size_12x12, size_20x16, got 'size_12'"):
        evaluate(file, data.load(DATA).validation, signature="size_12")
    with pytest.raises(ConfigError, match=r"Expected a .tflite with --signature a, got .*free.keras"):
        inspect(model, signature="a")
    wanted = r"Expected a .tflite with signatures for --signature a, got m\.onnx"
    with pytest.raises(ConfigError, match=wanted), signatures.of(Path("m.onnx"), "a"):
        pass


def test_what_takes_one_size_alone_is_said(both: tuple[Path, Any, Path], tmp_path: Path) -> None:
    model, sizes = both[0], parse_sizes(["1,12,12,3", "1,16,16,3"])
    for option, output, said in (
        ({"target": "cortex-m4"}, "a.tflite", "--target cortex-m4"),
        ({"stream": 0}, "a.tflite", "--stream"),
        ({}, "a.onnx", "-o .*a.onnx"),
    ):
        with pytest.raises(ConfigError, match=f"several sizes without a target or steps, got {said}"):
            convert(model, tmp_path / output, shapes=sizes, **option)  # type: ignore[arg-type]


def test_what_sizes_are_called() -> None:
    inputs = [TensorSpec("a", (None, None, 3), "float32"), TensorSpec("b", (None, 4, None), "float32")]
    fixed = [[TensorSpec("a", (None, n, 3), "float32"), TensorSpec("b", (None, 4, 7), "float32")] for n in (5, 6)]
    assert names_of(fixed, inputs) == ("size_5x7", "size_6x7")
    with pytest.raises(ConfigError, match="Expected sizes that differ, got 5x7 twice"):
        names_of([fixed[0], fixed[0]], inputs)
    with pytest.raises(ConfigError, match="Expected every size of the input 'a', got anyx5x3"):
        sized([TensorSpec("a", (None, None, 5, 3), "float32")], {})


def test_shapes_of_several_sizes() -> None:
    assert parse_sizes([]) == ()
    assert parse_sizes(["a=1,2", "b=1,3", "a=1,4"]) == ({"a": (1, 2), "b": (1, 3)}, {"a": (1, 4), "b": (1, 3)})
    with pytest.raises(ConfigError, match="as many shapes for each input, or one for all, got 2 for 'b' and 3 for an"):
        parse_sizes(["a=1,2", "b=1,3", "a=1,4", "b=1,5", "a=1,6"])
    with pytest.raises(ConfigError, match="Expected one shape for an input, got 1,2 and 1,3"):
        parse_shapes(["1,2", "1,3"])


@pytest.mark.parametrize("steps", [8, 5])
def test_sequences_are_cut_and_their_tags_with_them(steps: int) -> None:
    x = np.arange(20 * 8).reshape(20, 8).astype("int32")
    given = data.load({"x_train": x, "y_train": x % 3, "x_test": x, "y_test": x % 3})
    found, notes = in_sizes(given, [TensorSpec("tokens", (1, steps), "int32")])
    batch = found.validation.arrays()
    assert notes == ((f"samples cut from 8 to {steps}, the first steps kept",) if steps < 8 else ())
    assert np.array_equal(batch.inputs["x"], x[:, :steps])
    assert batch.labels is not None
    assert np.array_equal(batch.labels, (x % 3)[:, :steps])
    assert len(found.calibration) == len(given.calibration)


def test_labels_of_whole_samples_stay_when_these_are_cut() -> None:
    x, y = np.zeros((20, 8, 2), "float32"), np.arange(20) % 2
    found, _ = in_sizes(data.load({"x": x, "y": y}), [TensorSpec("frames", (1, 4, 2), "float32")])
    ids, whole = found.validation.ids(), data.load({"x": x, "y": y}).validation.ids()
    assert ids is not None
    assert np.array_equal(ids, whole)


@pytest.mark.parametrize(("found", "wanted"), [((8,), (9,)), ((8, 2), (4, 3)), ((8, 8, 3), (4, 4, 1))])
def test_samples_are_not_made_up(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    given = data.load({"x": np.zeros((20, *found), "float32")})
    with pytest.raises(DataError, match=r"Expected samples that can be brought to .* for the input 'x' \(pictures are"):
        in_sizes(given, [TensorSpec("x", (1, *wanted), "float32")])


def _counting(start: int, steps: int) -> Any:
    """A sum in a loop, which calls two graphs."""
    keras, tf = frameworks.load("tf_keras"), frameworks.load("tensorflow")
    value = keras.layers.Input((3,), batch_size=1)

    def summed(x: Any) -> Any:
        return tf.while_loop(lambda i, _: i < steps, lambda i, y: (i + 1, y + x), (start, x), maximum_iterations=9)[1]

    return keras.Model(value, keras.layers.Lambda(summed)(value))


def test_graphs_that_call_others_come_along_and_go_again(tmp_path: Path) -> None:
    files = {f"to_{steps}": tflite_models.convert(_counting, "float32", 0, steps) for steps in (3, 5)}  # type: ignore[arg-type]
    assert len(read(files["to_3"]).subgraphs) == 3
    both = merged(files)
    assert [(one.key, one.subgraph) for one in read(both).signatures] == [("to_3", 0), ("to_5", 3)]
    for name, steps in (("to_3", 3), ("to_5", 5)):
        for number, content in enumerate((both, alone(both, name))):
            file = tmp_path / f"{name}{number}.tflite"
            file.write_bytes(content)
            (spec,) = read(files[name]).inputs
            (found,) = run_signature(file, name, [{spec.name: np.float32([[1, 2, 3]])}])
            assert np.array_equal(next(iter(found.values())), np.float32([[1, 2, 3]]) * (1 + steps))
    assert len(read(alone(both, "to_5")).subgraphs) == 3
    assert main_alone(both) == alone(both, "to_3")
    assert main_alone(files["to_3"]) == files["to_3"]
