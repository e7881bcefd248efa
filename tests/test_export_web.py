"""Exported pages run in a headless browser: they pass their own test, give LiteRT's results and call no other host."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import io
import json
import re
import shutil
import subprocess
import threading
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runtime_models
import tflite_models
from PIL import Image

import edgeopt
from edgeopt import frameworks, runtimes
from edgeopt.data.preprocessing import preprocess
from edgeopt.errors import ConfigError, ModelError
from edgeopt.exporters import Exported
from edgeopt.exporters.web import Web
from edgeopt.exporters.web.files import LITERT_JS, _static
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.tflite import rewrite
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Preprocessing

PIXELS = Preprocessing((16, 16), 1 / 255, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
RATE = 8000
WORDS = {"input": "sound", "sample_rate": RATE, "features": "log-mel", "window_ms": 32.0, "hop_ms": 20.0}
MARKUP = "<img src=x onerror=document.title='hacked'>"
HOSTILE = (MARKUP, "</script><script>document.title='hacked'</script>", "__proto__", "a\u202eb", "Größe \U0001f600", "")


@functools.cache
def _segmenter() -> Any:
    """16x16 pictures go in, scores of four classes for each pixel come out."""
    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(5)
    image = keras.layers.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    return keras.Model(image, keras.layers.Conv2D(4, 3, padding="same", name="mask")(x))


@functools.cache
def _listener() -> Any:
    """Spectrograms of 24 frames and 20 bands go in, five keywords come out: a small DS-CNN."""
    keras = frameworks.load("tf_keras")
    keras.utils.set_random_seed(6)
    frames = keras.layers.Input((24, 20, 1), name="spectrogram")
    x = keras.layers.Conv2D(8, (5, 4), strides=2, padding="same", activation="relu")(frames)
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 1, activation="relu")(x))
    return keras.Model(frames, keras.layers.Dense(5, activation="softmax", name="word")(x))


@dataclass
class Opened:
    """A page in a browser, and what went wrong on the way."""

    page: Any
    address: str
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def state(self) -> str:
        return str(self.page.evaluate("document.body.dataset.state"))

    def status(self) -> str:
        return str(self.page.inner_text("#status"))

    def settled(self, *states: str) -> str:
        """Waits until the page is in one of the states, and returns what it says."""
        self.page.wait_for_selector(",".join(f"body[data-state={state}]" for state in states), timeout=60_000)
        return self.status()

    def bars(self) -> list[tuple[str, float]]:
        rows = self.page.locator(".bars li").all()
        return [(row.locator("span").first.inner_text(), float(row.locator("span").last.inner_text())) for row in rows]


@pytest.fixture(scope="session")
def litert_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node_modules folder that `npm ci` makes in an exported page."""
    if shutil.which("npm") is None:
        pytest.skip("no npm here: install nodejs and npm")
    folder = tmp_path_factory.mktemp("npm") / "two"
    made = edgeopt.export("web", runtime_models.models()["two"], folder)
    assert made.next_steps[0] == "npm install"
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=300, capture_output=True)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def pages(litert_js: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Exported]:
    """Pages by their names, all in one folder; "two" is the one that npm put LiteRT.js into, and not here."""
    folder = litert_js.parents[1]
    sources = tmp_path_factory.mktemp("sources")

    def source(name: str, content: bytes) -> Path:
        (sources / name).write_bytes(content)
        return sources / name

    made = {}
    hostile = rewrite.changed(runtime_models.models()["float32"].read_bytes(), _renamed)
    for name, file, settings in (
        (
            "picture",
            source("picture.tflite", tflite_models.convert(tflite_models.cnn, "int8")),
            {"preprocessing": PIXELS, "classes": [f"kind {i}" for i in range(10)]},
        ),
        ("mask", source("mask.tflite", tflite_models.convert(_segmenter, "int8-float-io")), {}),
        ("words", source("words.tflite", tflite_models.convert(_listener, "float32")), WORDS),
        ("hostile", source(f"{MARKUP.replace('/', '')}.tflite", hostile), {"classes": [*HOSTILE, *"abcd"]}),
    ):
        made[name] = edgeopt.export("web", file, folder / name, litert_js=str(litert_js), **settings)
    return made


@pytest.fixture(scope="module")
def opened(pages: Mapping[str, Exported], browser: Any) -> Iterator[Callable[[str], Opened]]:
    """Opens a page by its name, with what stands behind it in the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(pages["mask"].output.parent))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = browser.new_context()

    def one(name: str) -> Opened:
        here = f"http://127.0.0.1:{server.server_port}/"
        made = Opened(context.new_page(), here)
        made.page.on(
            "request",
            lambda request: None if request.url.startswith((here, "blob:")) else made.elsewhere.append(request.url),
        )
        made.page.on("pageerror", lambda error: made.errors.append(str(error)))
        made.page.on(
            "console", lambda message: made.errors.append(message.text) if "Security" in message.text else None
        )
        folder, _, query = name.partition("?")
        made.page.goto(f"{here}{folder}/?{query}")
        made.settled("passed", "failed", "broken")
        return made

    yield one
    context.close()
    server.shutdown()


def _renamed(model: Any, schema: Any) -> None:
    (signature,) = model.signatureDefs
    signature.inputs[0].name, signature.outputs[0].name = "__proto__", MARKUP


def _png(seed: int, height: int, width: int) -> tuple[np.ndarray, bytes]:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return pixels, buffer.getvalue()


def _wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()


def _litert(folder: Path, values: np.ndarray) -> np.ndarray:
    """Returns the first output of the shipped file on LiteRT here."""
    file = folder / "model.tflite"
    session = runtimes.isolated(file, runtimes.RUNTIMES["litert"])
    try:
        (given,), (result, *_) = read(file).inputs, read(file).outputs
        out = session.run({given.name: quantize(values.astype(np.float32), given)})
        return dequantize(out[result.name], result)
    finally:
        session.close()


def test_a_picture_gets_the_classes_that_litert_gives(
    pages: Mapping[str, Exported], opened: Callable[[str], Opened]
) -> None:
    there = opened("picture")
    assert "Self-test passed on the CPU, 3 generated samples" in there.status()
    pixels, content = _png(1, 37, 29)
    there.page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": content})
    assert re.match(r"Ran on the CPU in [0-9.e-]+ ms\.", there.settled("ran", "error"))
    scores = _litert(pages["picture"].output, preprocess(pixels[None], PIXELS))[0]
    best = np.argsort(-scores, kind="stable")[:5]
    assert [label for label, _ in there.bars()] == [f"kind {i}" for i in best]
    np.testing.assert_allclose([value for _, value in there.bars()], scores[best], rtol=1e-3)
    there.page.set_input_files("input[type=file]", {"name": "b.png", "mimeType": "image/png", "buffer": b"no picture"})
    assert there.settled("error") == "Expected a picture, got b.png, which this browser cannot read."
    assert there.elsewhere == there.errors == []


def test_pixels_are_resized_and_scaled_as_in_training(opened: Callable[[str], Opened]) -> None:
    there = opened("picture")
    pixels, _ = _png(2, 23, 40)
    code = """async ([pixels, size, steps]) => {
        const { affine, resized } = await import(new URL("preprocess.js", location.href));
        return [...affine(resized(pixels, size, [16, 16], 3), steps)];
    }"""
    steps = {"scale": PIXELS.scale, "mean": PIXELS.mean, "std": PIXELS.std}
    got = there.page.evaluate(code, [pixels.ravel().tolist(), [23, 40], steps])
    np.testing.assert_allclose(got, preprocess(pixels[None], PIXELS).ravel(), atol=1e-4)


def test_a_segmentation_is_painted_with_its_shares(
    pages: Mapping[str, Exported], opened: Callable[[str], Opened]
) -> None:
    there = opened("mask")
    pixels, content = _png(3, 16, 16)
    there.page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": content})
    there.settled("ran", "error")
    classes = _litert(pages["mask"].output, pixels[None])[0].argmax(-1)
    counts = np.bincount(classes.ravel(), minlength=4)
    wanted = {f"class {i}: {100 * n / 256:.1f} %" for i, n in enumerate(counts) if n}
    assert set(there.page.locator(".legend li").all_inner_texts()) == wanted
    painted = there.page.evaluate("""() => {
        const map = document.querySelector("canvas.map");
        return [...map.getContext("2d").getImageData(0, 0, map.width, map.height).data];
    }""")
    # PASCAL VOC's first colours.
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]])
    np.testing.assert_array_equal(np.reshape(painted, (16, 16, 4))[..., :3], colors[classes])


def test_a_keyword_is_heard_in_a_file_and_by_the_microphone(
    pages: Mapping[str, Exported], opened: Callable[[str], Opened]
) -> None:
    there = opened("words")
    window, hop = RATE * 32 // 1000, RATE * 20 // 1000
    length = 23 * hop + window
    sound = 0.5 * np.sin(np.arange(length) ** 1.5 / 40) * np.hanning(length)
    there.page.set_input_files("input[type=file]", {"name": "a.wav", "mimeType": "audio/wav", "buffer": _wav(sound)})
    there.settled("ran", "error")
    heard = (sound * 32767).round() / 32768
    scores = _litert(pages["words"].output, _log_mel(heard, window, hop, bands=20).reshape(1, 24, 20, 1))[0]
    best = np.argsort(-scores, kind="stable")
    assert [label for label, _ in there.bars()] == [f"class {i}" for i in best]
    np.testing.assert_allclose([value for _, value in there.bars()], scores[best], atol=2e-3)
    there.page.evaluate("document.body.dataset.state = 'waiting'")
    there.page.click("button")
    assert "Ran on the CPU" in there.settled("ran", "error")
    assert there.elsewhere == there.errors == []


def _log_mel(sound: np.ndarray, window: int, hop: int, *, bands: int) -> Any:
    signal = frameworks.load("tensorflow").signal
    size = 1 << (window - 1).bit_length()
    spectrum = abs(signal.stft(sound.astype(np.float32), window, hop, size))
    mel = signal.linear_to_mel_weight_matrix(bands, size // 2 + 1, RATE, 20.0, RATE / 2)
    return np.log(spectrum.numpy() @ mel.numpy() + 1e-6)


@pytest.mark.parametrize("features", ["log-mel", "mfcc"])
def test_features_are_those_of_tensorflow(features: str, opened: Callable[[str], Opened]) -> None:
    there = opened("words")
    sound = np.random.default_rng(4).normal(size=5 * 100 + 200) * 0.1
    code = """async ([wave, sound]) => {
        const { features } = await import(new URL("features.js", location.href));
        return [...features(Float32Array.from(wave), sound)];
    }"""
    asked = {"features": features, "window": 200, "hop": 100, "frames": 6, "mels": 24, "coefficients": 10}
    asked |= {"rate": RATE, "low": 20.0, "high": RATE / 2, "spectrum": "magnitude", "log": "ln"}
    got = np.reshape(there.page.evaluate(code, [sound.tolist(), asked]), (6, -1))
    wanted = _log_mel(sound, 200, 100, bands=24)
    if features == "mfcc":
        signal = frameworks.load("tensorflow").signal
        wanted = signal.mfccs_from_log_mel_spectrograms(wanted).numpy()[:, :10]
    np.testing.assert_allclose(got, wanted, atol=2e-3)


def test_numbers_are_read_or_refused_with_the_reason(opened: Callable[[str], Opened]) -> None:
    there = opened("two")
    a, b = (there.page.get_by_label(f"{name}: 8 numbers") for name in "ab")
    a.fill("1, 2, 3, 4, 5, 6, 7, 8")
    b.fill("8 7 6 5 4 3 2 1")
    there.page.click("button")
    there.settled("ran", "error")
    texts = there.page.locator("#output pre").all_inner_texts()
    got = dict(zip(there.page.locator("#output h2").all_inner_texts(), texts))
    assert [float(word) for word in got["plus"].split()] == [9.0] * 8
    assert [float(word) for word in got["minus"].split()] == [-7.0, -5.0, -3.0, -1.0, 1.0, 3.0, 5.0, 7.0]
    for text, said in (("1 2", "Expected 8 numbers for a, got 2."), ("1 x", "Expected numbers for a, got x.")):
        a.fill(text)
        there.page.click("button")
        there.settled("error")
        assert said in there.status()
        there.page.evaluate("document.body.dataset.state = 'waiting'")


def test_a_gpu_may_be_off_by_more_where_it_computes_integers_in_floats(pages: Mapping[str, Exported]) -> None:
    for name, most in (("mask", 0.1), ("words", 0.02)):
        folder = pages[name].output
        (output,) = json.loads((folder / "model.json").read_text())["outputs"]
        values = np.frombuffer((folder / "model.golden").read_bytes()[4:], ">f4").reshape(3, -1)[
            :, -output["elements"] :
        ]
        assert output["tolerance"]["webgpu"] == pytest.approx(most * np.ptp(values), rel=1e-5)
        assert output["tolerance"]["wasm"] <= output["tolerance"]["webgpu"]


def test_a_software_gpu_runs_the_page_as_well(opened: Callable[[str], Opened]) -> None:
    there = opened("words?accelerator=webgpu")
    assert "Self-test passed on the GPU, 3 generated samples" in there.status()
    assert there.elsewhere == there.errors == []


def test_any_text_is_only_text(opened: Callable[[str], Opened]) -> None:
    there = opened("hostile")
    assert there.state() == "passed", there.status()
    there.page.click("button")
    there.settled("ran", "error")
    assert there.page.locator("img, section script").count() == 0
    assert there.page.title() != "hacked"
    assert MARKUP in there.page.inner_text("#output h2")
    assert {label for label, _ in there.bars()} <= {*HOSTILE, *"abcd"}
    assert there.elsewhere == there.errors == []


def test_what_computes_something_else_is_not_shown(
    pages: Mapping[str, Exported], opened: Callable[[str], Opened]
) -> None:
    golden = pages["mask"].output / "model.golden"
    kept = golden.read_bytes()
    values = np.frombuffer(kept[4:], ">f4").copy()
    values[-1] += 100
    golden.write_bytes(kept[:4] + values.tobytes())
    try:
        there = opened("mask")
        assert "The self-test FAILED on the CPU, 3 generated samples: its results would be wrong." in there.status()
        assert there.page.locator("#input *").count() == 0
        assert float(there.page.inner_text("#selftest tr.far td:nth-child(2)")) == pytest.approx(100, rel=0.01)
        golden.unlink()
        assert "Expected the file model.golden beside this page, got status 404." in opened("mask").status()
    finally:
        golden.write_bytes(kept)


def test_the_page_allows_its_own_files_and_no_other() -> None:
    text = _static("numbers", npm=True)["index.html"].decode()
    (allowed,) = re.findall('Content-Security-Policy" content="(.*?)"', text)
    (inline,) = re.findall('<script type="importmap">(.*?)</script>', text)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert allowed.startswith(f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{digest}'; ")
    assert "//" not in allowed
    assert "unsafe-inline" not in allowed


def test_one_version_of_litert_js_is_asked_for() -> None:
    files = _static("numbers", npm=True)
    assert json.loads(files["package.json"])["dependencies"] == {"@litertjs/core": LITERT_JS}
    packages = json.loads(files["package-lock.json"])["packages"]
    assert {p["version"] for name, p in packages.items() if name} == {LITERT_JS}
    assert all(p["integrity"].startswith("sha512-") for name, p in packages.items() if name)


def test_npm_and_the_export_copy_the_same_files(litert_js: Path, pages: Mapping[str, Exported]) -> None:
    by_npm, by_us = litert_js.parent, pages["mask"].output
    assert {f.name for f in (by_npm / "litert").iterdir()} == {f.name for f in (by_us / "litert").iterdir()}
    assert (by_npm / "package.json").exists()
    assert not (by_us / "package.json").exists()


def test_what_a_page_cannot_do_is_refused(tmp_path: Path) -> None:
    models = runtime_models.models()
    with pytest.raises(ModelError, match=r"Expected a model without a memory for the web, got ring\.tflite"):
        edgeopt.export("web", models["ring"], tmp_path)
    with pytest.raises(ConfigError, match=r"Expected the sample rate of the sound .* Try sample_rate: 16000"):
        Web(input="sound")
    with pytest.raises(ConfigError, match=r"Expected mel bands between 0 and 4000 Hz, .* got 20 to 5000"):
        Web(input="sound", sample_rate=RATE, mel_high=5000.0)
    with pytest.raises(ConfigError, match="Expected a model with one input that is a picture, got 1x8, 1x8"):
        edgeopt.export("web", models["two"], tmp_path, input="picture")
    with pytest.raises(
        ConfigError, match="Expected an input of samples for features: waveform, got one of shape 1x8x8x1"
    ):
        edgeopt.export("web", models["float32"], tmp_path, input="sound", sample_rate=RATE)
    with pytest.raises(ConfigError, match="Expected at least as many mel bands as MFCCs, 8, got 4"):
        edgeopt.export(
            "web", models["float32"], tmp_path, input="sound", sample_rate=RATE, features="mfcc", mel_bands=4
        )
    with pytest.raises(ConfigError, match="Expected a node_modules folder with @litertjs/core as litert_js, got"):
        edgeopt.export("web", models["two"], tmp_path, litert_js=str(tmp_path / "none"))
    assert not any(tmp_path.iterdir())


def test_another_litert_js_is_refused(litert_js: Path, tmp_path: Path) -> None:
    shutil.copytree(litert_js / "@litertjs", tmp_path / "@litertjs")
    package = tmp_path / "@litertjs/core/package.json"
    package.write_text(json.dumps({"version": "1.0.0"}))
    with pytest.raises(ConfigError, match=f"Expected LiteRT.js {LITERT_JS} as litert_js, got 1.0.0"):
        edgeopt.export("web", runtime_models.models()["two"], tmp_path / "out", litert_js=str(tmp_path))


def test_notes_say_where_white_is_something_else(pages: Mapping[str, Exported], tmp_path: Path) -> None:
    data = {"x": np.random.default_rng(0).random((8, 8, 8, 1), dtype=np.float32), "y": np.arange(8)}
    np.savez(tmp_path / "small.npz", **data)
    file = runtime_models.models()["float32"]
    made = edgeopt.export("web", file, tmp_path / "a", data=tmp_path / "small.npz", input="picture")
    assert any("a picture from black to white 255 on the page: --peak says what" in note for note in made.notes)
    made = edgeopt.export("web", file, tmp_path / "b", data=tmp_path / "small.npz", input="picture", peak=1.0)
    assert not any("--peak" in note for note in made.notes)
    assert any("--input picture or --input sound gives it" in note for note in pages["hostile"].notes)
