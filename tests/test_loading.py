"""Loading any model file: formats told by content, the proof, and everything that must be refused."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from functools import partial

import h5py
import numpy as np
import pytest

from edgeopt import frameworks, graph
from edgeopt.api.models import as_path
from edgeopt.errors import ModelError
from edgeopt.loading import LoadedModel, formats, load_model, proof, safety, save_keras3
from edgeopt.loading.archiving import archive

tf = frameworks.load("tensorflow")
keras = frameworks.load("keras")
tf_keras = frameworks.load("tf_keras")

LAYER_FILE = """
import keras

class Scale(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    def call(self, x):
        return x * self.factor

class Whole(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)
"""


def small(library, *, name="small"):
    """An image classifier with a nested backbone, of either Keras."""
    layers = library.layers
    image = library.Input((8, 8, 3), name="image")
    inner = library.Sequential([layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()], name="backbone")
    inner.build((None, 8, 8, 3))
    x = layers.GlobalAveragePooling2D()(inner(image))
    return library.Model(image, layers.Dense(3, activation="softmax", name="classes")(x), name=name)


def random_weights(model):
    """Gives biases and statistics values that no initializer would, and keeps a deep network's outputs finite."""
    generator = np.random.default_rng(5)
    for weight in model.weights:
        value = np.asarray(weight)
        if value.ndim == 1:
            positive = any(part in weight.name for part in ("gamma", "variance"))
            low, high = (0.8, 1.2) if positive else (-0.1, 0.1)
            weight.assign(generator.uniform(low, high, value.shape).astype(value.dtype))
    return model


def converted(loaded: LoadedModel, folder, batch_size=1):
    """Returns a session on the file that the inference function becomes."""
    function = loaded.inference_function(batch_size)
    module = tf.Module()
    module.kept = list(function.variables)
    tf.saved_model.save(module, str(folder / "lowered"), signatures={"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "lowered"), signature_keys=["serving_default"])
    return tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Model files of every format, and the models they hold."""
    folder = tmp_path_factory.mktemp("models")
    models = {"keras3": random_weights(small(keras)), "keras2": random_weights(small(tf_keras))}
    models["keras3"].compile("adam", "categorical_crossentropy")
    models["keras3"].save(folder / "three.keras")
    models["keras3"].save(folder / "three.h5")
    models["keras3"].export(folder / "three_exported", verbose=False)
    models["keras2"].compile("adam", "categorical_crossentropy")
    models["keras2"].save(folder / "two.keras")
    models["keras2"].save(folder / "two.h5")
    models["keras2"].save(folder / "two_saved")
    (folder / "layers.py").write_text(LAYER_FILE)
    return folder, models


FORMATS = [
    ("three.keras", "keras3", "keras3"),
    ("three.h5", "keras3-h5", "keras3"),
    ("two.keras", "keras2", "keras2"),
    ("two.h5", "keras2-h5", "keras2"),
    ("two_saved", "savedmodel", "keras2"),
]


@pytest.mark.parametrize(("file", "source_format", "which"), FORMATS)
def test_every_format_becomes_a_flat_tf_keras_model_with_the_same_outputs(folder, file, source_format, which):
    path, models = folder
    loaded = load_model(path / file)
    assert loaded.source_format == source_format
    assert [(spec.name, spec.shape, spec.dtype) for spec in loaded.inputs] == [("image", (None, 8, 8, 3), "float32")]
    assert [(spec.name, spec.shape) for spec in loaded.outputs] == [("classes", (None, 3))]
    assert graph.is_flat(loaded.keras)
    assert isinstance(loaded.keras, tf_keras.Model)
    assert loaded.unbridged == ()
    assert "flattened nested model 'backbone'" in loaded.notes
    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(loaded.keras(x), models[which](x), atol=1e-6)


def test_notes_say_who_wrote_it_and_what_was_dropped(folder):
    notes = load_model(folder[0] / "three.keras").notes
    assert notes[0] == f"read from Keras {keras.__version__}"
    assert notes[1:3] == ("optimizer dropped, losses kept", f"bridged from Keras 3 to tf_keras {tf_keras.__version__}")


@pytest.mark.parametrize(("file", "other"), [("three.keras", "m.h5"), ("two.h5", "m.keras"), ("two.keras", "model")])
def test_the_content_tells_the_format_and_a_wrong_extension_is_said(folder, tmp_path, file, other):
    (tmp_path / other).write_bytes((folder[0] / file).read_bytes())
    loaded = load_model(tmp_path / other)
    assert loaded.keras is not None
    assert f"{other} holds a Keras " in loaded.notes[0]
    assert "whatever its extension says" in loaded.notes[0]


def test_real_inputs_can_be_the_proof(folder):
    x = np.random.default_rng(0).random((3, 8, 8, 3)).astype("float32")
    assert load_model(folder[0] / "three.keras", probe={"image": x}).keras is not None
    with pytest.raises(ModelError, match=r"Expected samples for every input, got none for \['image'\]"):
        load_model(folder[0] / "three.keras", probe={"pictures": x})


@pytest.mark.parametrize("file", ["three.keras", "three_exported"])
def test_the_inference_function_converts_by_names_with_a_fixed_batch(folder, tmp_path, file):
    loaded = load_model(folder[0] / file)
    runner = converted(loaded, tmp_path, batch_size=2)
    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
    values = runner(**{loaded.inputs[0].name: x})
    assert list(values) == [loaded.outputs[0].name]
    np.testing.assert_allclose(values[loaded.outputs[0].name], folder[1]["keras3"](x), atol=1e-5)


def test_an_exported_saved_model_keeps_its_graph_and_says_why(folder):
    loaded = load_model(folder[0] / "three_exported")
    assert loaded.keras is None
    assert loaded.original is not None
    assert "a SavedModel holds a graph of operations, not layers" in loaded.unbridged[0][1]


def test_a_module_without_keras_is_kept(tmp_path):
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable(np.arange(8, dtype="float32").reshape(4, 2))

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def __call__(self, x):
            return {"product": x @ self.kernel}

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "signed"), signatures=module.__call__.get_concrete_function())
    tf.saved_model.save(module, str(tmp_path / "bare"))
    x = np.ones((1, 4), "float32")
    for name in ("signed", "bare"):
        loaded = load_model(tmp_path / name)
        assert [spec.name for spec in (*loaded.inputs, *loaded.outputs)] == ["x", "product"]
        values = loaded.inference_function()(tf.constant(x))
        np.testing.assert_array_equal(values["product"], x @ module.kernel.numpy())


def test_a_saved_model_that_serves_nothing(tmp_path):
    module = tf.Module()
    module.variable = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=r"Expected a SavedModel with a signature, got .*nothing, which has none"):
        load_model(tmp_path / "nothing")


def test_a_float_tflite_has_no_layers(folder, tmp_path):
    content = tf.lite.TFLiteConverter.from_keras_model(folder[1]["keras2"]).convert()
    (tmp_path / "model.tflite").write_bytes(content)
    loaded = load_model(tmp_path / "model.tflite")
    assert (loaded.source_format, loaded.keras, loaded.original) == ("tflite", None, None)
    assert loaded.inputs[0].shape == (None, 8, 8, 3)
    with pytest.raises(ModelError, match=r"conversion starts from its bytes"):
        loaded.inference_function()
    converter = tf.lite.TFLiteConverter.from_keras_model(folder[1]["keras2"])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.ones((1, 8, 8, 3), "float32")] for _ in range(2))
    (tmp_path / "int8.tflite").write_bytes(converter.convert())
    with pytest.raises(ModelError, match=r"Expected a float .tflite, got .*int8.tflite, in which \d+ tensors"):
        load_model(tmp_path / "int8.tflite")


# --- Sequential, fixed batches, precision ---------------------------------------------------------------------------


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras3", "keras2"])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_sequential_model_that_got_its_input_from_its_first_call(library, suffix, tmp_path):
    model = library.Sequential([library.layers.Dense(3, activation="relu"), library.layers.Dense(2)])
    model(np.zeros((2, 5), "float32"))
    model.save(tmp_path / f"m.{suffix}")
    loaded = load_model(tmp_path / f"m.{suffix}")
    assert loaded.inputs[0].shape == (None, 5)
    x = np.random.default_rng(0).random((4, 5)).astype("float32")
    np.testing.assert_allclose(loaded.keras(x), model(x), atol=1e-6)


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras3", "keras2"])
def test_a_sequential_model_that_never_got_an_input(library, tmp_path):
    library.Sequential([library.layers.Dense(3)]).save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"Expected a model that knows its input shape, got .*m.keras, a Sequential"):
        load_model(tmp_path / "m.keras")


def test_a_fixed_batch_is_kept_and_another_refused(tmp_path):
    x = keras.Input(batch_shape=(4, 5))
    keras.Model(x, keras.layers.Dense(2)(x)).save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    assert loaded.inference_function(4).inputs[0].shape == (4, 5)
    with pytest.raises(ModelError, match=r"takes batches of 1, got one whose batch is fixed at 4. Try --batch-size 4"):
        loaded.inference_function(1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras3", "keras2"])
def test_mixed_precision_becomes_float32(library, policy, tmp_path):
    library.mixed_precision.set_global_policy(policy)
    try:
        x = library.Input((8, 8, 3))
        y = library.layers.BatchNormalization()(library.layers.Conv2D(4, 3, activation="relu")(x))
        model = library.Model(x, library.layers.Dense(2, dtype="float32")(library.layers.Flatten()(y)))
    finally:
        library.mixed_precision.set_global_policy("float32")
    random_weights(model).save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    assert {layer.compute_dtype for layer in loaded.keras.layers} == {"float32"}
    assert any(note.startswith(f"{policy} policy made float32 (outputs move by ") for note in loaded.notes)


def test_a_model_that_keras_quantized_is_refused(tmp_path):
    x = keras.Input((8,))
    model = keras.Model(x, keras.layers.Dense(2)(x))
    model.quantize("int8")
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"Expected a float model, got .*Try the model before model.quantize"):
        load_model(tmp_path / "m.keras")


# --- the user's own layers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(folder):
    """A model with the layer of `layers.py`, and the subclassed model, saved; then forgotten by this process."""
    path, _ = folder
    space: dict = {"__name__": "someones_layers"}
    exec(LAYER_FILE, space)
    x = keras.Input((6,))
    model = random_weights(keras.Model(x, keras.layers.Dense(2)(space["Scale"](name="scale")(x))))
    model.save(path / "custom.keras")
    whole = space["Whole"](name="whole")
    whole(np.zeros((2, 5), "float32"))
    whole.save(path / "whole.keras")
    return path, model, whole


def test_a_custom_layer_comes_from_the_users_file(own):
    path, model, _ = own
    with pytest.raises(ModelError, match=r"custom class 'Scale' of someones_layers.*Try --custom-objects FILE.py"):
        load_model(path / "custom.keras")
    loaded = load_model(path / "custom.keras", custom_objects=path / "layers.py")
    assert "layer 'scale' (Scale) stays a Keras 3 layer inside tf_keras" in loaded.notes
    x = np.random.default_rng(0).random((3, 6)).astype("float32")
    np.testing.assert_allclose(loaded.keras(x), model(x), atol=1e-6)


def test_a_subclassed_model_stays_itself_and_still_converts(own, tmp_path):
    path, _, whole = own
    loaded = load_model(path / "whole.keras", custom_objects=path / "layers.py")
    assert loaded.keras is None
    assert loaded.unbridged == (("whole", "Whole is a subclassed model: its graph is in its code"),)
    assert loaded.inputs[0].shape == (None, 5)
    x = np.random.default_rng(0).random((1, 5)).astype("float32")
    (values,) = converted(loaded, tmp_path)(**{loaded.inputs[0].name: x}).values()
    np.testing.assert_allclose(values, whole(x), atol=1e-6)


def test_a_custom_layer_may_be_of_a_package_that_the_users_file_imports(tmp_path, monkeypatch):
    (tmp_path / "hub_of_layers.py").write_text(
        "import keras\n@keras.saving.register_keras_serializable(package='hub')\nclass Third(keras.layers.Layer):\n"
        "    def call(self, x):\n        return x / 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import hub_of_layers

    x = keras.Input((3,))
    keras.Model(x, hub_of_layers.Third()(x)).save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"custom class 'Third' of hub_of_layers.*Try --custom-objects FILE.py"):
        load_model(tmp_path / "m.keras")
    own, empty = tmp_path / "own.py", tmp_path / "empty.py"
    own.write_text("import hub_of_layers\n")
    empty.write_text("import math\n")
    loaded = load_model(tmp_path / "m.keras", custom_objects=own)
    np.testing.assert_allclose(loaded.keras(np.ones((1, 3))), np.full((1, 3), 1 / 3), rtol=1e-6)
    with pytest.raises(
        ModelError, match=r"Expected layers in .*empty.py, got a file that defines no class .*importing"
    ):
        load_model(tmp_path / "m.keras", custom_objects=empty)


def test_a_custom_layer_of_keras_2(tmp_path):
    (tmp_path / "own.py").write_text(
        "import tf_keras\nclass Half(tf_keras.layers.Layer):\n    def call(self, x):\n        return x / 2\n"
    )
    space: dict = {"__name__": "someones_layers"}
    exec((tmp_path / "own.py").read_text(), space)
    x = tf_keras.Input((3,))
    model = tf_keras.Model(x, space["Half"]()(x))
    model.save(tmp_path / "m.h5")
    with pytest.raises(ModelError, match=r"could not be read: Unknown layer: 'Half'.*Try --custom-objects FILE.py"):
        load_model(tmp_path / "m.h5")
    loaded = load_model(tmp_path / "m.h5", custom_objects=tmp_path / "own.py")
    np.testing.assert_array_equal(loaded.keras(np.ones((1, 3))), np.full((1, 3), 0.5))


def test_a_custom_layer_in_a_saved_model_keeps_the_graph(tmp_path):
    class Third(tf_keras.layers.Layer):
        def call(self, x):
            return x / 3

    x = tf_keras.Input((3,))
    tf_keras.Model(x, Third(name="third")(x)).save(tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert loaded.keras is None
    assert [layer for layer, _ in loaded.unbridged] == ["third"]
    assert loaded.unbridged[0][1] == "the code of its class Third is not at hand; try --custom-objects FILE.py"
    (third,) = loaded.inference_function()(tf.ones((1, 3))).values()
    np.testing.assert_array_equal(third, np.full((1, 3), np.float32(1 / 3)))


def test_a_custom_layer_without_a_config_leaves_the_model_as_it_is(tmp_path):
    (tmp_path / "own.py").write_text(
        "import tf_keras\n"
        "class Shift(tf_keras.layers.Layer):\n"
        "    def __init__(self, by=1.0, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.by = by\n"
        "    def call(self, x):\n"
        "        return x + self.by\n"
        "    def get_config(self):\n"
        "        return {**super().get_config(), 'amount': self.by}\n"
        "    @classmethod\n"
        "    def from_config(cls, config):\n"
        "        if 'amount' in config and config.pop('amount') > 1:\n"
        "            raise KeyError('by')\n"
        "        return cls(2.0, **config)\n"
    )
    space: dict = {"__name__": "someones_layers"}
    exec((tmp_path / "own.py").read_text(), space)
    x = tf_keras.Input((3,))
    tf_keras.Model(x, space["Shift"](name="shift")(x)).save(tmp_path / "m.h5")
    loaded = load_model(tmp_path / "m.h5", custom_objects=tmp_path / "own.py")
    assert loaded.keras is None
    assert loaded.unbridged == (("shift", "it cannot be made anew from its config: 'by'."),)
    np.testing.assert_array_equal(loaded.inference_function()(tf.ones((1, 3)))["shift"], np.full((1, 3), 3.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 / 0", r"bad.py raised ZeroDivisionError: division by zero. Try running it with Python alone"),
        ("import os", r"Expected layers in .*bad.py, got a file that defines no class or function"),
    ],
)
def test_a_custom_objects_file_that_does_not_serve(folder, tmp_path, content, message):
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(ModelError, match=message):
        load_model(folder[0] / "two.h5", custom_objects=tmp_path / "bad.py")
    with pytest.raises(ModelError, match=r"Expected a Python file for --custom-objects, got .*none.py"):
        load_model(folder[0] / "two.h5", custom_objects=tmp_path / "none.py")


# --- back to Keras 3 ------------------------------------------------------------------------------------------------


def test_a_tf_keras_model_is_saved_for_plain_keras_3(folder, tmp_path):
    path, models = folder
    save_keras3(load_model(path / "two.h5").keras, tmp_path / "back.keras")
    read = keras.saving.load_model(tmp_path / "back.keras")
    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(read(x), models["keras2"](x), atol=1e-6)
    with pytest.raises(ModelError, match=r"Expected a file name that ends in .keras, got back.h5. Try back.keras"):
        save_keras3(models["keras2"], tmp_path / "back.h5")


# --- the proof ------------------------------------------------------------------------------------------------------


def test_a_model_that_came_through_wrong_is_refused_with_the_layer():
    model = random_weights(small(tf_keras))
    flat = graph.flatten(model)
    convolution = flat.layers[1]
    kernel, bias = convolution.get_weights()
    convolution.set_weights([kernel, bias + 0.5])
    name = convolution.name
    with pytest.raises(ModelError, match=rf"within 1e-05 of their range, got a difference of .* 'classes'.*'{name}'"):
        proof.prove(model, flat)


def test_generated_inputs_fit_embeddings_masks_and_free_sizes():
    words, mask = keras.Input((None,), dtype="int32"), keras.Input((4,), dtype="bool")
    image = keras.Input((None, None, 3))
    x = keras.layers.Embedding(3, 2)(words)
    model = keras.Model([words, mask, image], [x, keras.ops.cast(mask, "float32"), image * 2])
    ids, mask, image = proof.generated_inputs(model, image_size=32, length=9)
    assert ids.shape == (2, 9)
    assert set(np.unique(ids)) <= {0, 1, 2}
    assert mask.dtype == bool
    assert image.shape == (2, 32, 32, 3)


def test_tokens_of_an_input_of_floats_are_whole_numbers(tmp_path):
    """As Input((9,)) makes it, and the bridged embedding refuses a number that it has not."""
    words, image = keras.Input((9,)), keras.Input((9,))
    tokens = keras.layers.Embedding(3, 2, mask_zero=True)(keras.layers.Reshape((9,))(words))
    model = keras.Model([words, image], [keras.layers.LSTM(2)(tokens), keras.layers.Dense(2)(image)])
    ids, values = proof.generated_inputs(model)
    assert set(np.unique(ids)) <= {0, 1, 2}
    assert len(np.unique(values)) == values.size
    model.save(tmp_path / "m.keras")
    assert load_model(tmp_path / "m.keras").keras is not None


def test_a_model_that_does_not_run_is_said(tmp_path):
    x = keras.Input((None, 4))
    y = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Reshape((3, 4))(x)))
    keras.Model(x, y, name="stiff").save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"Expected a model that runs, got an error from 'stiff' itself"):
        load_model(tmp_path / "m.keras")


# --- files that are no models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"Expected a Keras model .*, got .*m.keras, which does not exist"),
        (b"", r"m.keras, which is empty"),
        (b"hello\n", r"m.keras, which is a text file. Try the file that model.save\(\) wrote"),
        (bytes(range(256)) * 9, r"m.keras, which is no model format that is known here"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"which is a Git LFS pointer"),
        (b"PK\x03\x04" + os.urandom(400), r"is a damaged or truncated .keras archive"),
        (b"\x89HDF\r\n\x1a\n" + os.urandom(400), r"is a damaged or truncated HDF5 file"),
        (b"\x10\0\0\0TFL3" + os.urandom(400), r"m.keras .*truncated or corrupt"),
    ],
)
def test_what_is_no_model_is_said(tmp_path, content, message):
    if content is not None:
        (tmp_path / "m.keras").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "m.keras")


@pytest.mark.parametrize("file", ["three.keras", "two.keras", "three.h5", "two.h5"])
def test_truncated_files(folder, tmp_path, file):
    content = (folder[0] / file).read_bytes()
    for share in (0.3, 0.9):
        (tmp_path / file).write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ModelError, match=r"damaged or truncated"):
            load_model(tmp_path / file)


def test_folders_without_a_model(folder, tmp_path):
    with pytest.raises(ModelError, match=r"Expected a SavedModel folder, got .*, which holds no saved_model.pb"):
        load_model(tmp_path)
    with zipfile.ZipFile(folder[0] / "three.keras") as archive:
        archive.extractall(tmp_path / "unpacked")
    with pytest.raises(ModelError, match=r"which is an unpacked .keras archive. Try the .keras file itself"):
        load_model(tmp_path / "unpacked")
    (tmp_path / "saved_model.pb").write_bytes(os.urandom(100))
    with pytest.raises(ModelError, match=r"saved_model.pb is damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize("which", ["keras3", "keras2"])
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_files_of_weights_only(folder, tmp_path, which, suffix):
    if (which, suffix) == ("keras3", ".h5"):
        pytest.skip("Keras 3 writes weights under .weights.h5 only")
    folder[1][which].save_weights(tmp_path / f"m{suffix}")
    with pytest.raises(ModelError, match=r"which holds weights only, not the network they belong to"):
        load_model(tmp_path / f"m{suffix}")


def test_archives_and_containers_that_are_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"a zip file without metadata.json and config.json"):
        load_model(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "n.keras", "w") as archive:
        archive.writestr("metadata.json", "[]")
        archive.writestr("config.json", "{}")
    with pytest.raises(ModelError, match=r"its config is no object"):
        load_model(tmp_path / "n.keras")
    with h5py.File(tmp_path / "m.h5", "w") as content:
        content["x"] = 1
    with pytest.raises(ModelError, match=r"which holds no Keras model"):
        load_model(tmp_path / "m.h5")
    with h5py.File(tmp_path / "n.h5", "w") as content:
        content.attrs["model_config"] = "{"
    with pytest.raises(ModelError, match=r"holds a damaged model config"):
        load_model(tmp_path / "n.h5")


# --- files that would do more than hold a model ---------------------------------------------------------------------


def rewritten(source, target, change):
    """Copies a .keras archive with `change(config)` made to its config."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            copy.writestr(name, content)


@pytest.fixture(scope="module")
def lambdas(tmp_path_factory):
    """Files whose Lambda layer leaves a mark when it runs."""
    folder = tmp_path_factory.mktemp("lambdas")
    mark = folder / "it_ran"
    for library, files in ((keras, ["three.keras", "three.h5"]), (tf_keras, ["two.keras", "two.h5", "two_saved"])):
        x = library.Input((3,))
        leaves_a_mark = eval(f"lambda y: (open({str(mark)!r}, 'w').close(), y * 2)[1]")
        touch = library.layers.Lambda(leaves_a_mark, (3,), name="touch")
        model = library.Model(x, library.layers.Dense(2)(touch(x)))
        for file in files:
            model.save(folder / file)
    mark.unlink()
    return folder, mark


@pytest.mark.parametrize("file", ["three.keras", "three.h5", "two.keras", "two.h5", "two_saved"])
def test_a_lambda_is_refused_and_never_runs(lambdas, file):
    folder, mark = lambdas
    with pytest.raises(ModelError, match=rf"{file} contains a Lambda layer 'touch': .* Try --trust if you trust its"):
        load_model(folder / file)
    assert not mark.exists()


@pytest.mark.parametrize("file", ["three.keras", "two.keras", "two.h5"])
def test_a_lambda_of_a_trusted_author_is_bridged(lambdas, file):
    folder, mark = lambdas
    loaded = load_model(folder / file, trust=True)
    assert [type(layer).__name__ for layer in loaded.keras.layers] == ["InputLayer", "Lambda", "Dense"]
    mark.unlink()


def test_a_lambda_that_calls_a_function_of_the_users_file_is_no_code(tmp_path):
    own = tmp_path / "my_functions.py"
    own.write_text("def apart(pair):\n    x, y = pair\n    return (x - y) * (x - y)\n")
    functions = {}
    exec(own.read_text(), functions)
    a, b = keras.Input((3,)), keras.Input((3,))
    apart = keras.layers.Lambda(functions["apart"], output_shape=(3,), name="apart")([a, b])
    model = keras.Model([a, b], keras.layers.Dense(2)(apart))
    model.save(tmp_path / "m.keras")
    with pytest.raises(
        ModelError, match=r"Lambda layer 'apart' that calls the function apart, of which it holds no cod"
    ):
        load_model(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", custom_objects=own)
    x = [np.float32([[1, 2, 3]]), np.float32([[3, 2, 0]])]
    np.testing.assert_allclose(loaded.keras(x), model(x), atol=1e-6)
    save_keras3(loaded.keras, tmp_path / "again.keras")  # nor does what is made of it hold any
    np.testing.assert_allclose(load_model(tmp_path / "again.keras", custom_objects=own).keras(x), model(x), atol=1e-6)


@pytest.mark.parametrize("file", ["three.keras", "two.keras"])
def test_a_config_that_names_other_modules_imports_none(folder, tmp_path, file):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")

    def evil(config):
        config["config"]["layers"][-1].update(module="evil_module", class_name="Evil", registered_name=None)

    rewritten(folder[0] / file, tmp_path / "m.keras", evil)
    with pytest.raises(ModelError, match=r"needs the custom class 'Evil' of evil_module, which is not Keras's"):
        load_model(tmp_path / "m.keras")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"class_name": "Lambda", "config": {"name": "deep"}}, r"contains a Lambda layer 'deep'"),
        (
            {
                "class_name": "Lambda",
                "config": {"name": "l", "function": {"class_name": "function", "module": "os", "config": "system"}},
            },
            r"Lambda layer 'l': Python code",
        ),
        (
            {"class_name": "Lambda", "config": {"name": "l", "function": "known", "function_type": "function"}},
            r"Lambda layer 'l': Python code",
        ),
        ({"class_name": "__lambda__", "config": {"value": ""}}, r"contains a Lambda layer '__lambda__'"),
        (
            {"class_name": "function", "module": "os", "config": "system", "registered_name": "function"},
            r"needs the custom function 'system' of os",
        ),
        (
            {"class_name": "function", "module": "keras.utils", "config": "get_file"},
            r"needs the custom function 'get_file' of keras.utils",
        ),
        ({"class_name": "TFOpLambda", "config": {"name": "w", "function": "io.write_file"}}, r"'w' that calls tf.io"),
        ({"class_name": "TFOpLambda", "config": {"name": "w", "function": "py_function"}}, r"calls tf.py_function"),
        (
            {"class_name": "TensorFlowOpLayer", "config": {"name": "w", "node_def": {"op": "WriteFile"}}},
            r"operation 'WriteFile', which may do more than compute",
        ),
    ],
)
def test_code_hidden_anywhere_in_a_config_is_found(tmp_path, part, message):
    config = {"class_name": "Functional", "config": {"layers": [{"class_name": "Dense", "config": {"x": [part]}}]}}
    check = safety.check_config if "needs the custom" not in message else partial(safety.check_known, known=())
    with pytest.raises(ModelError, match=message):
        check(config, tmp_path / "m.keras")


@pytest.mark.parametrize("function", ["math.add", "__operators__.getitem", "reshape", "nn.relu", "compat.v1.transpose"])
def test_functions_that_only_compute_pass(tmp_path, function):
    part = {"class_name": "TFOpLambda", "config": {"name": "f", "function": function}}
    safety.check_config(part, tmp_path / "m.keras")


def test_a_saved_model_that_touches_files_is_refused(tmp_path):
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1], tf.float32, name="x")])
        def __call__(self, x):
            with tf.control_dependencies([tf.io.write_file(str(tmp_path / "written"), "x")]):
                return x + 1

    tf.saved_model.save(Module(), str(tmp_path / "writes"))
    with pytest.raises(ModelError, match=r"operations that run Python or touch files \(WriteFile\). Try --trust"):
        load_model(tmp_path / "writes")
    assert load_model(tmp_path / "writes", trust=True).original is not None
    assert not (tmp_path / "written").exists()


def test_archives_that_leave_their_folder_or_swell(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "path.keras", "w") as archive:
        archive.writestr("../../outside", "x")
    with pytest.raises(ModelError, match=r"holds the entry '../../outside', which points out of the archive"):
        load_model(tmp_path / "path.keras")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"\0" * 120_000_000)
    with pytest.raises(ModelError, match=r"would swell from 0.1 MB to 120 MB"):
        load_model(tmp_path / "bomb.keras")


def test_hdf5_files_that_point_elsewhere_or_claim_too_much(tmp_path):
    with h5py.File(tmp_path / "link.h5", "w") as content:
        content["stolen"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(ModelError, match=r"points to data in another file \(/etc/passwd\)"):
        load_model(tmp_path / "link.h5")
    with h5py.File(tmp_path / "outside.h5", "w") as content:
        content.create_dataset("w", (4,), "f4", external=[("/etc/passwd", 0, 16)])
    with pytest.raises(ModelError, match=r"keeps /w in another file"):
        load_model(tmp_path / "outside.h5")
    with h5py.File(tmp_path / "huge.h5", "w") as content:
        content.create_dataset("w", (10**6, 10**5), "f4", chunks=(1000, 1000))
    with pytest.raises(ModelError, match=r"claims 400000 MB of weights"):
        load_model(tmp_path / "huge.h5")


def test_who_gives_an_onnx_file_is_told_what_takes_it(tmp_path):
    (tmp_path / "m.onnx").write_bytes(bytes(range(256)))
    with pytest.raises(ModelError, match=r"got .*m.onnx.* Try the model that it was exported from; a PyTorch one .*"):
        load_model(tmp_path / "m.onnx")


def test_a_pickle_under_a_models_name_is_not_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "m.keras").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=r"is no model format that is known here"):
        load_model(tmp_path / "m.keras")
    assert not (tmp_path / "exploded").exists()


def test_every_format_has_words_and_an_extension():
    assert all(said.startswith("a ") and extensions for said, extensions in formats.FORMATS.values())


# --- whole families -------------------------------------------------------------------------------------------------

SLOW = pytest.mark.slow
FAMILIES = [
    pytest.param("MobileNet", {"alpha": 0.25}, 32, id="MobileNet"),
    pytest.param("MobileNetV2", {"alpha": 0.35}, 32, id="MobileNetV2"),
    pytest.param("MobileNetV3Small", {}, 32, id="MobileNetV3Small", marks=SLOW),
    pytest.param("MobileNetV3Large", {}, 32, id="MobileNetV3Large", marks=SLOW),
    pytest.param("EfficientNetB0", {}, 32, id="EfficientNetB0", marks=SLOW),
    pytest.param("EfficientNetV2B0", {}, 32, id="EfficientNetV2B0", marks=SLOW),
    pytest.param("ResNet50", {}, 32, id="ResNet50", marks=SLOW),
    pytest.param("ResNet50V2", {}, 32, id="ResNet50V2", marks=SLOW),
    pytest.param("DenseNet121", {}, 32, id="DenseNet121", marks=SLOW),
    pytest.param("NASNetMobile", {}, 32, id="NASNetMobile", marks=SLOW),
    pytest.param("InceptionV3", {}, 75, id="InceptionV3", marks=SLOW),
    pytest.param("Xception", {}, 71, id="Xception", marks=SLOW),
    pytest.param("VGG16", {"include_top": False, "pooling": "avg"}, 32, id="VGG16", marks=SLOW),
    pytest.param("ConvNeXtTiny", {}, 32, id="ConvNeXtTiny", marks=SLOW),
]


def application(library, name, options, size):
    options = {"classes": 10, **options}
    if not options.get("include_top", True):
        del options["classes"]
    return random_weights(getattr(library.applications, name)(weights=None, input_shape=(size, size, 3), **options))


@pytest.mark.parametrize(("name", "options", "size"), FAMILIES)
def test_applications_from_keras_3(name, options, size, tmp_path):
    model = application(keras, name, options, size)
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    own = {type(layer).__name__ for layer in loaded.keras.layers if type(layer).__module__.startswith("edgeopt")}
    assert "KerasLayer" not in own, "only standard layers, activations and operations"
    assert loaded.keras.count_params() == model.count_params()


@pytest.mark.parametrize(("name", "options", "size"), FAMILIES)
def test_applications_from_keras_2_and_on_to_keras_3(name, options, size, tmp_path):
    model = application(tf_keras, name, options, size)
    model.save(tmp_path / "m.h5")
    loaded = load_model(tmp_path / "m.h5")
    save_keras3(loaded.keras, tmp_path / "three.keras")
    read = keras.saving.load_model(tmp_path / "three.keras")
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    expected = np.asarray(model(x))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(read(x), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_applications_from_archives_of_keras_2(name, tmp_path):
    model = application(tf_keras, name, {}, 32)
    model.save(tmp_path / "m.keras")
    assert load_model(tmp_path / "m.keras").keras.count_params() == model.count_params()


@pytest.mark.shared
def test_the_autoencoder_of_mlperf_tiny(shared):
    loaded = load_model(shared / "models" / "ad01.h5")
    assert loaded.source_format == "keras2-h5"
    assert (loaded.inputs[0].shape, loaded.outputs[0].shape) == ((None, 640), (None, 640))


def test_an_operation_that_hdf5_cannot_hold_is_no_layer_of_its_authors(tmp_path):
    steps = keras.Input((6, 4))
    keras.Model(steps, keras.layers.Dense(2)(steps[:, 0])).save(tmp_path / "sliced.h5")
    with pytest.raises(
        ModelError, match=r"Keras 3 cannot read operations .* from HDF5\. Try saving it as \.keras"
    ) as e:
        load_model(tmp_path / "sliced.h5")
    assert "author" not in str(e.value)


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_a_model_is_archived_as_the_same_bytes_whenever_it_is_the_same(library, tmp_path, monkeypatch):
    model = small(library)
    for name, now in (("one", 1e9), ("two", 1.5e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        archive(model, tmp_path / f"{name}.keras")
    one, two = ((tmp_path / f"{name}.keras").read_bytes() for name in ("one", "two"))
    assert one == two
    assert formats.identify(tmp_path / "two.keras").format == ("keras3" if library is keras else "keras2")
    model.set_weights([value + 1 for value in model.get_weights()])
    archive(model, tmp_path / "other.keras")
    assert (tmp_path / "other.keras").read_bytes() != one


def test_a_model_at_hand_may_have_any_name(tmp_path):
    for name in ("math", "string", "a b"):
        with as_path(small(keras, name=name)) as path:
            assert load_model(path).keras is not None
