"""Exported Android projects: their classes compile, run on a JVM over LiteRT and give its outputs, bit for bit."""

from __future__ import annotations

import functools
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import android_build
import decoder
import numpy as np
import pytest
import runtime_models
import tflite_models
from click.testing import CliRunner
from metadata_reader import read_note

import edgeopt
from edgeopt import exporters, frameworks, runtimes
from edgeopt.cli import cli
from edgeopt.data.preprocessing import preprocess
from edgeopt.errors import ConfigError, ModelError
from edgeopt.exporters import shipped
from edgeopt.exporters.android import Android, files
from edgeopt.keras_bridge import to_keras2
from edgeopt.language.generating import open_generator
from edgeopt.language.lowering import lower
from edgeopt.runtimes import samples
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.runtimes.streaming import StreamSession
from edgeopt.tflite import rewrite
from edgeopt.tflite.reader import read
from edgeopt.tflite.stream import stream_of
from edgeopt.vocabulary import Preprocessing

HOSTILE = ('"; System.exit(1); //', "line\nend", "*/ ${x} $y", "Größe \U0001f600", "\\u0022", "??/", "", "a", "b", "\\")
HOSTILE_NAME = '*/ "in\nput" ${x} \\u000a'
PIXELS = Preprocessing((16, 16), 1 / 255, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


@dataclass(frozen=True)
class Case:
    """An exported project and how it came about."""

    output: Path
    source: Path
    preprocessing: Preprocessing

    @property
    def shipped(self) -> Path:
        return next(self.output.glob("model/src/main/assets/*.tflite"))


@pytest.fixture(scope="module")
def cases(step_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Case]:
    """Projects by the name of their model."""
    folder = tmp_path_factory.mktemp("android")
    models = runtime_models.models()
    picture = folder / "picture.tflite"
    picture.write_bytes(tflite_models.convert(tflite_models.cnn, "int8"))
    hostile = folder / 'a "model" ${x} \\u000a ü.tflite'
    hostile.write_bytes(_renamed(models["float32"].read_bytes()))
    words, bare = folder / "words.tflite", folder / "bare.tflite"
    words.write_bytes(tflite_models.convert(_words, "float32"))
    bare.write_bytes(rewrite.changed(models["int8"].read_bytes(), _without_signatures))
    made = {}
    for name, file, settings in (
        ("floats", models["int8"], {}),
        ("bytes", models["int8"], {"io": "uint8"}),
        ("stored", models["int8"], {"io": "file"}),
        ("plain", models["float32"], {"preprocessing": Preprocessing(None, 2.0, (1.0,), (3.0,))}),
        ("two", models["two"], {}),
        ("old", models["int8-float-io"], {"min_sdk": 21, "io": "file"}),
        ("picture", picture, {"preprocessing": PIXELS, "classes": [f"kind {i}" for i in range(10)]}),
        ("hostile", hostile, {"classes": HOSTILE}),
        ("words", words, {}),
        ("bare", bare, {}),
        ("ring", models["ring"], {}),
        ("oldring", models["ring"], {"min_sdk": 21}),
        ("stream", models["ring"], {"streaming": True}),
        ("steps", step_file, {}),
    ):
        edgeopt.export("android", file, folder / name, name=name, **settings)
        made[name] = Case(folder / name, file, settings.get("preprocessing", Preprocessing()))
    return made


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A decoder, exported."""
    folder = tmp_path_factory.mktemp("writer")
    frameworks.load("keras").utils.set_random_seed(0)
    model, _ = to_keras2(decoder.build(260, 24, width=32, blocks=1, heads=2))
    # Untrained, all contexts give much the same: larger weights part them.
    model.set_weights([3 * weight for weight in model.get_weights()])
    file = folder / "writer.tflite"
    file.write_bytes(lower(model, cache=24, prefill=4))
    edgeopt.export("android", file, folder / "app", name="poet")
    return Case(folder / "app", file, Preprocessing())


@pytest.fixture(scope="module")
def classes(cases: Mapping[str, Case], writer: Case, tmp_path_factory: pytest.TempPathFactory) -> android_build.Classes:
    """All of them compiled."""
    projects = [case.output for case in (*cases.values(), writer)]
    return android_build.compiled(projects, tmp_path_factory.mktemp("classes"))


def _words() -> Any:
    """Five indices of words go in, three numbers come out."""
    keras = frameworks.load("tf_keras")
    words = keras.layers.Input((5,), dtype="int32", batch_size=1)
    embedded = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(words))
    return keras.Model(words, keras.layers.Dense(3)(embedded))


def _without_signatures(model: Any, schema: Any) -> None:
    model.signatureDefs = None


def _steps() -> Any:
    """Steps of four numbers go in, as many as one likes."""
    keras = frameworks.load("tf_keras")
    steps = keras.layers.Input((None, 4), name="steps")
    return keras.Model(steps, keras.layers.Dense(3)(steps))


def _newest(model: Any, schema: Any) -> None:
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
            code.version = 12


def _renamed(content: bytes) -> bytes:
    """Returns a model whose input and output are called what no code should be."""

    def change(model: Any, schema: Any) -> None:
        (signature,) = model.signatureDefs
        signature.inputs[0].name, signature.outputs[0].name = HOSTILE_NAME, f"{HOSTILE_NAME} out"

    return rewrite.changed(content, change)


def _bits(line: str) -> np.ndarray:
    return np.array([int(word, 16) for word in line.split()], np.uint32).view(np.float32)


WITHOUT_KOTLIN = ("bytes", "old", "ring", "oldring", "stream")
NAMES = ("floats", "stored", "steps", "plain", "two", "picture", "hostile", "words", "bare", *WITHOUT_KOTLIN)


def _generated(case: Case) -> list[dict[str, np.ndarray]]:
    """Returns two samples as the shipped file takes them; of a file of steps, all steps of one."""
    if stream_of(read(case.source)) is not None:
        session = runtimes.open_session(case.source, runtimes.RUNTIMES["litert"])
        specs = {spec.name: spec for spec in read(case.source).inputs}
        assert isinstance(session, StreamSession)
        found = session.steps(samples.generated(session.inputs, seed=7))
        shipped = read(case.shipped).inputs
        return [{s.name: quantize(dequantize(one[s.name], specs[s.name]), s) for s in shipped} for one in found]
    return [samples.generated(read(case.shipped).inputs, seed=seed) for seed in (7, 8)]


@pytest.fixture(scope="module")
def said(cases: Mapping[str, Case], classes: android_build.Classes) -> Callable[[str], Mapping[str, list[str]]]:
    """What the classes of each module print on two generated samples."""

    @functools.cache
    def tried(name: str) -> Mapping[str, list[str]]:
        model = read(cases[name].shipped)
        real = [[dequantize(s[spec.name], spec) for spec in model.inputs] for s in _generated(cases[name])]
        return classes.tried(cases[name].output / "model", name, real)

    return tried


@pytest.mark.parametrize("name", NAMES)
def test_the_classes_give_what_litert_gives(
    name: str, cases: Mapping[str, Case], said: Callable[[str], Mapping[str, list[str]]]
) -> None:
    case, said_here = cases[name], said(name)
    model, generated = read(case.shipped), _generated(case)
    session = runtimes.isolated(case.shipped, runtimes.RUNTIMES["litert"])
    results = [session.run(sample) for sample in generated]
    session.close()
    expected = [dequantize(result[spec.name], spec) for result in results for spec in model.outputs]
    raw = dequantize(generated[0][model.inputs[0].name], model.inputs[0])
    assert ("kotlin output" in said_here) == (name not in WITHOUT_KOTLIN)
    for who in ("java", "kotlin"):
        for line, wanted in zip(said_here.get(f"{who} output", []), expected, strict=f"{who} output" in said_here):
            np.testing.assert_array_equal(_bits(line), wanted.astype(np.float32).ravel())
        if f"{who} output" in said_here:
            assert said_here[f"{who} passed"] == ["true"], said_here[f"{who} said"]
            assert said_here[f"{who} with a wrong value passed"] == ["false"]
            assert "TOO FAR" in said_here[f"{who} with a wrong value said"][0]
            assert re.search(r"off by at most 0.0, ", said_here[f"{who} said"][0])
    one = replace(case.preprocessing, resize=None)
    np.testing.assert_array_equal(_bits(said_here["preprocessed"][0]), preprocess(raw, one).astype(np.float32).ravel())
    assert said_here["best"] == ["1", "2", "0"]
    assert said_here["NaN"][0].startswith("Expected numbers for") == (model.inputs[0].dtype != "float32")
    assert said_here["short"][0].startswith(f"Expected {raw.size} values for")
    assert said_here["none"] == [f"Expected {len(model.inputs)} inputs, got 0."]


def test_a_stream_goes_on_until_it_is_reset(
    cases: Mapping[str, Case], said: Callable[[str], Mapping[str, list[str]]]
) -> None:
    """What is kept is what an interpreter keeps that nobody touches between its calls."""
    case = cases["stream"]
    lite = frameworks.load("litert").Interpreter(model_path=str(case.shipped))
    lite.allocate_tensors()
    (frame,), (scaled,) = lite.get_input_details(), lite.get_output_details()
    got = [_bits(line) for line in said("stream")["java went on"]]
    for sample, one in zip(_generated(case), got, strict=True):
        lite.set_tensor(frame["index"], sample["frame"])
        lite.invoke()
        np.testing.assert_array_equal(one, lite.get_tensor(scaled["index"]).ravel())
    assert not np.array_equal(got[1], _bits(said("stream")["java output"][1]))
    assert "java went on" not in said("ring")


def test_a_file_of_steps_comes_with_what_carries_its_states(
    cases: Mapping[str, Case], said: Callable[[str], Mapping[str, list[str]]]
) -> None:
    case, lines = cases["steps"], said("steps")
    steps, outputs = _generated(case), [spec.name for spec in read(case.shipped).outputs]
    stream = stream_of(read(case.source))
    assert stream is not None
    (answer,) = stream.outputs
    wanted = lines["java output"][outputs.index(answer) :: len(outputs)]
    assert len(set(wanted)) > len(steps) // 2
    assert lines["step"] == 2 * wanted
    assert "float[][] answers = stream.step(frames);" in (case.output / "README.md").read_text()


def test_an_accelerator_that_refuses_is_never_left_unsaid(said: Callable[[str], Mapping[str, list[str]]]) -> None:
    one = {**said("plain"), **said("old")}
    assert one["java ran on"] == ["CPU"]
    assert one["delegate 1 REFUSE"] == ["GPU"]
    assert one["delegate 0 REFUSE"][0].startswith("GPU does not take the model: ")
    assert one["delegate 0 CPU"][0].startswith("CPU, because GPU refused: java.lang.IllegalArgumentException")
    assert one["GPU REFUSE"][0].startswith("GPU does not take the model: ")
    assert one["GPU CPU"][0].startswith("CPU, because GPU refused: ")


def test_any_text_is_only_text(cases: Mapping[str, Case], said: Callable[[str], Mapping[str, list[str]]]) -> None:
    case = cases["hostile"]
    assert [spec.name for spec in read(case.shipped).inputs] == [HOSTILE_NAME.replace("\n", "\\n")]
    lines = said("hostile")["label"]
    texts = [bytes(b for c in line.split() for b in divmod(int(c), 256)).decode("utf-16-be") for line in lines]
    assert texts == list(HOSTILE[:4])
    note = read_note(case.shipped.read_bytes())
    assert note is not None
    assert note.outputs[0].labels == tuple(" ".join(text.splitlines()) for text in HOSTILE)


def test_a_picture_becomes_the_pixels_of_its_training(said: Callable[[str], Mapping[str, list[str]]]) -> None:
    colors = np.array([[[1, 2, 3], [127, 128, 255]], [[255, 255, 255], [255, 0, 0]]], np.float32)
    scaled = colors.repeat(16 // 2, axis=0).repeat(16 // 2, axis=1)
    np.testing.assert_array_equal(_bits(said("picture")["pixels"][0]), scaled.ravel())


@pytest.mark.parametrize("name", ["floats", "bytes", "stored", "two", "words"])
def test_the_golden_file_holds_what_the_exported_file_gave(name: str, cases: Mapping[str, Case]) -> None:
    case = cases[name]
    source, shipped = read(case.source), read(case.shipped)
    packed = case.shipped.with_suffix(".golden").read_bytes()
    (count,) = struct.unpack_from(">i", packed)
    values = np.frombuffer(packed, ">f4", offset=4).astype(np.float32)
    session = runtimes.isolated(case.source, runtimes.RUNTIMES["litert"])
    place = 0
    for _ in range(count):
        given = {}
        for spec in source.inputs:
            shape = tuple(size or 1 for size in spec.shape)
            given[spec.name] = quantize(values[place : place + np.prod(shape)].reshape(shape), spec)
            place += int(np.prod(shape))
        outputs = session.run(given)
        for spec in source.outputs:
            wanted = dequantize(outputs[spec.name], spec).ravel()
            np.testing.assert_array_equal(values[place : place + wanted.size], wanted)
            place += wanted.size
    session.close()
    assert place == values.size
    dtypes = {"bytes": {"uint8"}, "stored": {"int8"}, "words": {"int32", "float32"}}
    assert {spec.dtype for spec in (*shipped.inputs, *shipped.outputs)} == dtypes.get(name, {"float32"})
    assert not any(None in spec.shape for spec in (*shipped.inputs, *shipped.outputs))


def test_weights_behind_the_flatbuffer_ship_inside(cases: Mapping[str, Case], tmp_path: Path) -> None:
    file = tmp_path / "behind.tflite"
    file.write_bytes(tflite_models.behind(cases["floats"].source.read_bytes()))
    edgeopt.export("android", file, tmp_path / "out", name="floats")
    assets = Path("model/src/main/assets")
    shipped = read(tmp_path / "out" / assets / "floats.tflite")
    assert shipped.outside_bytes == 0
    assert (tmp_path / "out" / assets / "floats.golden").read_bytes() == (
        cases["floats"].output / assets / "floats.golden"
    ).read_bytes()


def test_metadata_say_what_an_app_does_to_a_picture(cases: Mapping[str, Case]) -> None:
    content = cases["picture"].shipped.read_bytes()
    note = read_note(content)
    assert note is not None
    (given,), (result,) = note.inputs, note.outputs
    assert (given.color, result.label_file) == ("rgb", "labels.txt")
    # (x / 255 - mean) / std = (x - 255 mean) / (255 std)
    np.testing.assert_allclose(given.mean, [255 * 0.4, 255 * 0.5, 255 * 0.6], rtol=1e-6)
    np.testing.assert_allclose(given.std, [255 * 0.2, 255 * 0.25, 255 * 0.3], rtol=1e-6)


def test_the_apk_holds_the_model_as_it_is(cases: Mapping[str, Case], tmp_path: Path) -> None:
    android_build.require("aapt2", "zipalign", "apksigner", "keytool")
    if not android_build.FRAMEWORK.exists():
        pytest.skip("needs Android's resources: apt-get install android-framework-res")
    case = cases["picture"]
    for gradle in ("app", "model"):
        assert 'noCompress += "tflite"' in (case.output / gradle / "build.gradle.kts").read_text()
    manifest = tmp_path / "AndroidManifest.xml"
    text = (case.output / "app/src/main/AndroidManifest.xml").read_text()
    manifest.write_text(text.replace("<manifest ", '<manifest package="com.example.picture.app" ', 1))
    linked, aligned, key = tmp_path / "linked.apk", tmp_path / "app.apk", tmp_path / "key.jks"
    # With the dot, as Gradle calls it: without it the model would be compressed.
    android_build.run(
        *("aapt2", "link", "-0", ".tflite", "-I", android_build.FRAMEWORK, "-A", case.shipped.parent),
        *("--min-sdk-version", "24", "--target-sdk-version", "29", "--manifest", manifest, "-o", linked),
    )
    android_build.run("zipalign", "-f", "4", linked, aligned)
    password = ("--ks-pass", "pass:password")
    android_build.run(
        *("keytool", "-genkeypair", "-keystore", key, "-storepass", "password", "-keypass", "password"),
        *("-alias", "throwaway", "-keyalg", "RSA", "-dname", "CN=throwaway", "-validity", "1"),
    )
    android_build.run("apksigner", "sign", "--ks", key, *password, aligned)
    android_build.run("apksigner", "verify", aligned)
    android_build.run("zipalign", "-c", "4", aligned)
    with zipfile.ZipFile(aligned) as apk:
        packed = apk.getinfo("assets/picture.tflite")
        assert packed.compress_type == zipfile.ZIP_STORED
        assert apk.read(packed) == case.shipped.read_bytes()


def test_the_command_writes_a_module_alone(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"kind {i}" for i in range(10)))
    model = runtime_models.models()["int8"]
    arguments = ["export", "android", str(model), "-o", str(tmp_path / "out"), "--classes", str(labels)]
    said = CliRunner().invoke(cli, [*arguments, "--library", "--name", "Größe 1"])
    assert said.exit_code == 0, said.output
    assert "inputs and outputs: float32" in said.output
    assert 'include(":model")' in said.output
    names = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    package = "java/com/example/grosse_1"
    assert names == {
        exporters.MARKER,
        "README.md",
        "model/build.gradle.kts",
        "model/consumer-rules.pro",
        "model/src/main/AndroidManifest.xml",
        "model/src/main/assets/grosse_1.tflite",
        "model/src/main/assets/grosse_1.golden",
        *(
            f"model/src/main/{package}/{n}"
            for n in ("Grosse1Model.java", "Grosse1SelfTest.java", "Grosse1CompiledModel.kt")
        ),
        f"model/src/androidTest/{package}/Grosse1SelfTestOnDevice.java",
    }


@pytest.mark.parametrize(
    "package", ["app", "com.example.", "com.class.x", "com.ex-ample", "com.1st", "com.x;y", "a b.c"]
)
def test_a_package_is_a_java_package(package: str) -> None:
    with pytest.raises(ConfigError, match="Expected a Java package of at least two names as package"):
        Android(package=package)
    assert Android(package="org.example.My_App2").package == "org.example.My_App2"


@pytest.mark.parametrize(("name", "stem"), [("model", "My"), ("compiled", "MyCompiled"), ("a_model", "A")])
def test_no_class_takes_the_name_of_litert_s_own(name: str, stem: str, tmp_path: Path) -> None:
    edgeopt.export("android", runtime_models.models()["two"], tmp_path, name=name, library=True)
    sources = {file.name for file in (tmp_path / "model/src/main/java").rglob("*") if file.is_file()}
    assert sources == {f"{stem}Model.java", f"{stem}SelfTest.java", f"{stem}CompiledModel.kt"}


def test_notes_name_what_an_app_will_meet(tmp_path: Path) -> None:
    models = runtime_models.models()
    stored = edgeopt.export("android", models["int8"], tmp_path / "stored", io="file")
    assert any("MediaPipe Tasks refuses int8" in note for note in stored.notes)
    bytes_ = edgeopt.export("android", models["int8"], tmp_path / "bytes", io="uint8")
    assert any("Kotlin's TensorBuffer has no uint8" in note for note in bytes_.notes)
    ring = edgeopt.export("android", models["ring"], tmp_path / "ring")
    assert any("CompiledModel refuses or never forgets" in note for note in ring.notes)
    assert any("--streaming keeps it until reset()" in note for note in ring.notes)
    with pytest.raises(ConfigError, match=r"Expected a model with a state for streaming, got int8\.tflite"):
        edgeopt.export("android", models["int8"], tmp_path / "none", streaming=True)
    old = edgeopt.export("android", models["int8"], tmp_path / "old", min_sdk=21)
    assert any("LiteRT 1.4.2: its Interpreter and delegates" in note for note in old.notes)
    summed = tmp_path / "summed.tflite"
    summed.write_bytes(rewrite.changed(tflite_models.convert(_steps, "float32"), _newest))
    edgeopt.export("android", summed, tmp_path / "left")
    words = (tmp_path / "left" / "README.md").read_text("utf-8")
    assert "- 1 x `FULLY_CONNECTED`: version 12 of it, the delegate knows 9 at most ([source](https://" in words
    assert "leaves on the CPU" not in (tmp_path / "old" / "README.md").read_text("utf-8")
    free = tmp_path / "free.tflite"
    free.write_bytes(tflite_models.convert(_steps, "float32"))
    freed = edgeopt.export("android", free, tmp_path / "freed")
    assert "free sizes of 'steps', ? x ? x 4, are fixed as the file stores them: better convert fixed ones" in (
        freed.notes
    )
    picture = tmp_path / "picture.tflite"
    picture.write_bytes(tflite_models.convert(tflite_models.cnn, "int8"))
    raw = edgeopt.export("android", picture, tmp_path / "raw", io="uint8", preprocessing=PIXELS)
    assert any("raw pixels into a uint8 input" in note for note in raw.notes)


def test_what_has_no_scale_or_no_java_type_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = runtime_models.models()
    with pytest.raises(ModelError, match="Expected a file quantized to int8 for uint8 inputs and outputs, got"):
        edgeopt.export("android", models["float32"], tmp_path / "a", io="uint8")
    monkeypatch.setattr(files, "SUPPORTED", ("int8",))
    with pytest.raises(
        ModelError, match="Expected inputs and outputs of int8 with one scale, got 'picture' of float32"
    ):
        edgeopt.export("android", models["float32"], tmp_path / "b")


def test_a_rewritten_file_that_computes_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, file = shipped.outputs.expected, runtime_models.models()["int8"]

    def off(source: exporters.Source, runtime: str) -> list[dict[str, np.ndarray]]:
        by = np.float32(source.content != file.read_bytes())
        return [{name: value + by for name, value in one.items()} for one in real(source, runtime)]

    monkeypatch.setattr(shipped.outputs, "expected", off)
    with pytest.raises(ModelError, match="gives another 'kind' on LiteRT: off by up to 1"):
        edgeopt.export("android", file, tmp_path / "out")


# --- what writes text ------------------------------------------------------------------------------------------------


def test_a_decoder_writes_on_the_jvm_what_it_writes_here(writer: Case, classes: android_build.Classes) -> None:
    prompt, count = [7, 250, 3, 0, 99, 12, 13, 14, 15], 24
    found = classes.written(writer.output / "model", "poet", prompt, count)
    expected = list(open_generator(writer.source).generate(prompt, count))
    assert len(expected) == 24 - len(prompt) + 1  # the cache is full then
    # Nothing of the first text is left for the second.
    assert found["wrote"] == [str(expected)] * 2
    assert found["passed"] == ["true"]
    assert found["said"][0].endswith(" of 9 tokens are the same, 4 have to be")
    assert found["refused"] == [
        "Expected a prompt of 1 to 24 tokens, got 0.",
        "Expected tokens from 0 to 259, got -1. Try the tokenizer that the model was trained with.",
        "Expected a prompt of 1 to 24 tokens, got 100000.",
    ]


def test_a_decoder_is_a_project_of_tokens(writer: Case, tmp_path: Path) -> None:
    sources = writer.output / "model/src/main/java/com/example/poet"
    assert {file.name for file in sources.iterdir()} == {"PoetWriter.java", "PoetSelfTest.java"}
    assert writer.shipped.read_bytes() == writer.source.read_bytes()
    assert "`com.google.ai.edge.litertlm:litertlm-android`" in (writer.output / "README.md").read_text("utf-8")
    tokens = np.tile(np.arange(24, dtype=np.int32) * 3, (20, 1))
    edgeopt.export("android", writer.source, tmp_path / "lib", data=tokens, library=True)
    test = next((tmp_path / "lib").rglob("WriterSelfTest.java")).read_text("utf-8")
    assert f"PROMPT = {{{', '.join(str(3 * i) for i in range(16))}}}" in test
    assert not (tmp_path / "lib" / "app").exists()


def test_a_decoder_is_refused_where_nobody_could_call_it(writer: Case, tmp_path: Path) -> None:
    for kind in ("web", "micro"):
        with pytest.raises(
            ModelError, match=r"gives its outputs at once, got writer.tflite, a decoder .*export android"
        ):
            edgeopt.export(kind, writer.source, tmp_path / kind)
    for settings, said in (({"streaming": True}, "streaming"), ({"io": "uint8"}, "io uint8")):
        with pytest.raises(ConfigError, match=f"Expected no {said} for writer.tflite, a decoder that takes tokens"):
            edgeopt.export("android", writer.source, tmp_path / "app", **settings)
    with pytest.raises(
        ModelError, match=r"got the bundle .*poet.litertlm, which LiteRT-LM's own Android library loads"
    ):
        edgeopt.export("android", tmp_path / "poet.litertlm", tmp_path / "app")
