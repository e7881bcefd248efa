"""What several test modules need: optional benchmark data beside the checkout, and small real models."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeopt import frameworks, imports
from edgeopt.errors import UnavailableError
from edgeopt.runtimes.litert_gpu import SOFTWARE

imports.own_process()
# It has to be in a process before TensorFlow, whatever the order of the tests.
with contextlib.suppress(UnavailableError):
    frameworks.load("tflite_runtime")
# Workers of every test see a GPU, where there is only chromium's in software.
if SOFTWARE.exists():
    os.environ.setdefault("VK_ICD_FILENAMES", str(SOFTWARE))
# What is started in a background job inherits that SIGINT is ignored; the commands under test have to hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    """Turns a skip for want of a tool into a failure where EDGEOPT_REQUIRE_ALL says that all are here."""
    report = yield
    if report.skipped and os.environ.get("EDGEOPT_REQUIRE_ALL") and "install" in str(report.longrepr):
        report.outcome = "failed"
    return report


def _seed() -> None:
    # What initializers take their seeds from before TensorFlow is there, and what all else draws from after it.
    random.seed(0)
    if "tf_keras" in sys.modules:
        frameworks.load("tf_keras").utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test that draws weights without a seed of its own draws the same in every run, whatever ran before it."""
    _seed()


@pytest.fixture(autouse=True, scope="module")
def _fixtures_seeded() -> None:
    """So do the fixtures of a module."""
    _seed()


@pytest.fixture(autouse=True, scope="module")
def _own_objects() -> Iterator[None]:
    """What the tests of one module load from files of their own is unknown to the next module's."""
    yield
    for library in ("keras", "tf_keras"):
        objects = sys.modules[library].saving.get_custom_objects() if library in sys.modules else {}
        for name, value in tuple(objects.items()):
            if value.__module__.startswith("edgeopt_custom_objects"):
                del objects[name]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of optional real data and models; tests that need it skip without it."""
    folder = Path(os.environ.get("EDGEOPT_SHARED_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"optional benchmark data not found in {folder} (set EDGEOPT_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `cli_models.build` writes."""
    from edgeopt import workers

    folder = tmp_path_factory.mktemp("keras-files")
    with workers.Worker() as worker:
        worker.call("cli_models:build", folder, timeout_s=300)
    return folder


@pytest.fixture(scope="session")
def digits_model(keras_files: Path) -> Path:
    """A small trained Keras 3 model of scikit-learn's digits, 8x8x1 in and ten probabilities out."""
    return keras_files / "digits.keras"


@pytest.fixture(scope="session")
def depthwise() -> Any:
    """A trained network like MobileNetV1 of scikit-learn's digits, in tf_keras; who changes it takes a copy."""
    from compressed_models import digits

    from bench.uneven import mobilenet_v1
    from edgeopt.frameworks import load

    load("tf_keras").utils.set_random_seed(0)
    model = mobilenet_v1((8, 8, 1), 10, width=8)
    model.compile(load("tf_keras").optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    samples = digits(1000).training.arrays()
    (x,) = samples.inputs.values()
    model.fit(x, samples.labels, batch_size=25, epochs=12, verbose=0)
    return model


@pytest.fixture(scope="session")
def step_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 file that reads two of twenty frames at a time, with states and the flags of a tail."""
    import numpy as np

    import edgeopt

    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(0)
    x = frames = keras.layers.Input((20, 6), name="frames")
    x = keras.layers.Conv1D(8, 3, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Conv1D(8, 5, padding="same", strides=2)(x))
    folder = tmp_path_factory.mktemp("steps")
    keras.Model(frames, keras.layers.Dense(3)(x)).save(folder / "net.keras")
    np.savez(folder / "data.npz", x=np.random.default_rng(0).normal(size=(16, 20, 6)).astype("float32"))
    given = {"scheme": "int8", "stream": 0, "data": folder / "data.npz"}
    return edgeopt.convert(folder / "net.keras", folder / "net.tflite", **given).file


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium with a software GPU for WebGPU and a microphone that beeps."""
    path = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if path is None:
        pytest.skip("no browser here: install chromium")
    from playwright.sync_api import sync_playwright

    gpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
    microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *gpu, *microphone])
        yield chromium
        chromium.close()
