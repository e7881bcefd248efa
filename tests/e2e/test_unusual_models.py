"""What looks like a mistake and has a way round: the way works, through the real command line."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import assert_clean, edgeopt

from edgeopt import frameworks
from edgeopt.tflite.reader import read

COMMANDS = {
    "a Lambda that is trusted": "lambda.keras -o lambda.tflite --trust",
    "a custom layer": "twice.keras -o twice.tflite --custom-objects layers.py",
    "a subclassed model": (
        "subclassed.keras -o subclassed.tflite --custom-objects layers.py --scheme int8 --data digits"
    ),
    "28x28 for 8x8": "digits.keras -o resized.tflite --scheme int8 --data large.npz --resize 8x8",
    "a promise that per-channel Dense would break": (
        "digits.keras -o promised.tflite --scheme dynamic --runtime tflite-runtime==2.14"
    ),
    "several promises": "digits.keras -o int8.tflite --scheme int8 --data digits --runtime tflm --runtime litert",
}

Results = dict[str, "Future[subprocess.CompletedProcess[str]]"]


@pytest.fixture(scope="module")
def folder(keras_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(keras_files, tmp_path_factory.mktemp("unusual") / "models")
    rng = np.random.default_rng(0)
    np.savez(folder / "large.npz", x=rng.random((200, 28, 28), np.float32), y=np.arange(200) % 10)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> Iterator[Results]:
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(edgeopt, "convert", *words.split(), folder=folder) for name, words in COMMANDS.items()}
        pool.shutdown(cancel_futures=True)


def converted(results: Results, name: str) -> str:
    """Returns what a command that succeeded printed."""
    done = results[name].result()
    assert (done.returncode, done.stderr) == (0, "")
    assert_clean(done)
    return " ".join(done.stdout.split())


def run(file: Path, x: np.ndarray) -> np.ndarray:
    """Returns the only output of a float file."""
    interpreter = frameworks.load("litert").Interpreter(model_path=str(file))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def kernel_of(file: Path) -> np.ndarray:
    """Returns the one matrix in a .keras archive."""
    matrices: list[np.ndarray] = []
    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        weights.visititems(lambda _, item: matrices.append(item[()]) if getattr(item, "ndim", 0) == 2 else None)
    (kernel,) = matrices
    return kernel


@pytest.mark.parametrize(("name", "file"), [("a Lambda that is trusted", "lambda"), ("a custom layer", "twice")])
def test_code_of_the_user_s_that_doubles_its_input_is_in_the_file(
    name: str, file: str, results: Results, folder: Path
) -> None:
    """What follows the doubling is one Dense layer, its bias zero from the start."""
    converted(results, name)
    x = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    expected = 2 * x.reshape(1, 64) @ kernel_of(folder / f"{file}.keras")
    np.testing.assert_allclose(run(folder / f"{file}.tflite", x), expected, rtol=1e-4, atol=1e-5)


def test_a_subclassed_model_is_quantized_from_its_own_export(results: Results, folder: Path) -> None:
    said = converted(results, "a subclassed model")
    assert "same results" in said
    model = read(folder / "subclassed.tflite")
    assert {spec.dtype for spec in (*model.inputs, *model.outputs)} == {"int8"}


def test_pictures_of_another_size_are_resized_when_asked(results: Results, folder: Path) -> None:
    converted(results, "28x28 for 8x8")
    (picture,) = read(folder / "resized.tflite").inputs
    assert picture.shape == (1, 8, 8, 1)
    assert picture.quantization is not None
    # The resized samples still reach from 0 to nearly 1.
    assert picture.quantization.scales[0] == pytest.approx(1 / 255, rel=0.05)


def test_a_promise_is_kept_at_a_price_that_is_told(results: Results, folder: Path) -> None:
    pytest.importorskip("tflite_runtime", reason="tflite-runtime is not installed")
    said = converted(results, "a promise that per-channel Dense would break")
    assert "tflite-runtime 2.14: runs" in said
    assert "same results" in said
    assert "Dense layers have one scale for all their weights" in said
    versions = {o.name: o.version for o in read(folder / "promised.tflite").subgraphs[0].operators}
    assert versions["FULLY_CONNECTED"] < 12


def test_every_promise_is_run(results: Results) -> None:
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    said = converted(results, "several promises")
    assert said.count("same results") == 2
    assert "tflm 0" in said
