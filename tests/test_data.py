"""Every source of data: equal batches from each, streaming, seeds, memory, and a clear word for what is wrong."""

from __future__ import annotations

import gzip
import itertools
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeopt import data, frameworks, workers
from edgeopt.data import SOURCES, arrays, tuning
from edgeopt.data import dataset as dataset_module
from edgeopt.errors import ConfigError, DataError
from edgeopt.vocabulary import MetricValue, Preprocessing, Quantization, TensorSpec

CLASSES, PER_CLASS = 10, 6
DIGITS_INPUT = (TensorSpec("serving_default_image:0", (None, 8, 8, 1)),)
DIGITS_OUTPUT = (TensorSpec("scores", (None, CLASSES)),)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Sixty digits sorted by class: x uint8 [60, 8, 8, 1] in 0 to 16, y int64 [60]."""
    whole = data.load("digits").validation.arrays()
    chosen = np.concatenate([np.flatnonzero(whole.labels == c)[:PER_CLASS] for c in range(CLASSES)])
    return (whole.inputs["x"][chosen] * 16).astype(np.uint8), whole.labels[chosen]


# --- writers of the same digits in each format: folder, x, y -> what --data takes -------------------------------------


def write_npz(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    np.savez(folder / "digits.npz", x=x, y=y)
    return folder / "digits.npz"


def write_compressed(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    np.savez_compressed(folder / "digits.npz", x=x.astype(np.float16), y=np.eye(CLASSES)[y])
    return folder / "digits.npz"


def write_npy(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    np.save(folder / "digits.npy", x)
    return str(folder / "digits.npy")


def write_images(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    for number, (image, label) in enumerate(zip(x, y)):
        (folder / f"digit {label}").mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"digit {label}" / f"{number:03}.png")
    (folder / "digit 0" / "notes.txt").write_text("no image")
    return folder


def write_csv(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    lines = [",".join(["label", *(f"pixel{n}" for n in range(64))])]
    lines += [",".join(map(str, [label, *image.ravel()])) for image, label in zip(x, y)]
    (folder / "digits.csv").write_text("\ufeff" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8")
    return folder / "digits.csv"


def write_records(folder: Path, x: np.ndarray, y: np.ndarray, *, compression: str = "") -> Any:
    tf = frameworks.load("tensorflow")
    path = folder / f"digits.tfrecord{'.gz' if compression else ''}"
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for image, label in zip(x, y):
            features = {
                "image": tf.train.Feature(float_list=tf.train.FloatList(value=image.ravel().astype(float))),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return path


def write_compressed_records(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    return write_records(folder, x, y, compression="GZIP")


def write_function(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    return write_module(
        folder,
        x,
        y,
        """
        def samples():
            for start in range(0, len(x), 7):
                yield x[start : start + 7], y[start : start + 7]
        """,
    )


def write_module(folder: Path, x: np.ndarray, y: np.ndarray, code: str) -> str:
    np.savez(folder / "given.npz", x=x, y=y)
    name = f"module_{abs(hash(folder))}"
    head = f"import numpy as np\ngiven = np.load({str(folder / 'given.npz')!r})\nx, y = given['x'], given['y']\n"
    (folder / f"{name}.py").write_text(head + textwrap.dedent(code))
    sys.path.append(str(folder))
    return f"{name}:samples"


def name_digits(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    return "digits"


def give_arrays(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    return x, y


Writer = Callable[[Path, np.ndarray, np.ndarray], Any]
WRITERS: dict[str, tuple[Writer, ...]] = {
    "npz": (write_npz, write_compressed),
    "npy": (write_npy,),
    "images": (write_images,),
    "csv": (write_csv,),
    "tfrecord": (write_records, write_compressed_records),
    "function": (write_function,),
    "digits": (name_digits,),
    "masks": (),  # its labels are a class for each pixel
    "text": (),  # its samples are tokens
    "keras-datasets": (),  # has its own test: it cannot be made to hold other samples
    "arrays": (give_arrays,),
}
EVERY = [pytest.param(name, writer, id=writer.__name__) for name, writers in WRITERS.items() for writer in writers]


def test_the_table_of_sources_costs_no_import() -> None:
    code = "import sys, edgeopt.data; assert edgeopt.data.SOURCES; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        data.nothing  # noqa: B018


def test_every_source_has_a_writer() -> None:
    assert set(WRITERS) == set(SOURCES)


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is held in memory, and the shuffle buffer is small, as for sources of gigabytes."""
    monkeypatch.setattr(dataset_module, "HOLD_BYTES", 0)
    monkeypatch.setattr(dataset_module, "SHUFFLE_BYTES", 16 * 64)


@pytest.fixture(params=["held", "streamed"])
def memory(request: pytest.FixtureRequest) -> str:
    if request.param == "streamed":
        request.getfixturevalue("streaming")
    return str(request.param)


@pytest.mark.parametrize(("name", "write"), EVERY)
def test_contract(name: str, write: Writer, digits: Any, tmp_path: Path, memory: str) -> None:
    x, y = digits
    spec = write(tmp_path, x, y)
    assert data.source_of(spec).name == name
    steps = Preprocessing(scale=1.0 if name == "digits" else 1 / 16)
    loaded = data.bind(data.load(spec, validation_share=1.0, preprocessing=steps), DIGITS_INPUT)
    part = loaded.validation
    if name == "digits":
        part = part.subset(np.concatenate([np.flatnonzero(part.ids() == c)[:PER_CLASS] for c in range(CLASSES)]))
    assert part.specs == (TensorSpec("serving_default_image:0", (8, 8, 1), "float32"),)

    batches = list(part.batches(32))
    assert [len(batch) for batch in batches] == [32, 60 - 32]
    got = part.arrays()
    np.testing.assert_array_equal(got.inputs["serving_default_image:0"], x / np.float32(16))
    assert got.inputs["serving_default_image:0"].dtype == np.float32
    if name == "npy":
        assert not part.has_labels
        assert got.labels is None
    else:
        np.testing.assert_array_equal(got.labels, y)
        np.testing.assert_array_equal(part.ids(), y)
        assert part.classes == CLASSES

    copy = pickle.loads(pickle.dumps(part))
    _require_equal(copy.arrays(), got)
    assert copy.digest() == part.digest()

    numbered = _numbers(part, x, shuffle=True, seed=1)
    assert sorted(numbered) == list(range(60))
    assert numbered == _numbers(part, x, shuffle=True, seed=1)
    assert numbered != _numbers(part, x, shuffle=True, seed=2)
    assert numbered != list(range(60))

    chosen = part.take(20, seed=3)
    assert len(chosen) == 20
    _require_equal(chosen.arrays(), part.take(20, seed=3).arrays())
    if name != "npy":
        assert np.bincount(chosen.arrays().labels).tolist() == [2] * CLASSES
    epochs = itertools.islice(part.batches(50, shuffle=True, repeat=True, drop_remainder=True), 3)
    assert [len(batch) for batch in epochs] == [50, 50, 50]


def _numbers(part: Any, x: np.ndarray, **options: Any) -> list[int]:
    known = {(image / np.float32(16)).tobytes(): number for number, image in enumerate(x)}
    assert len(known) == len(x)
    return [
        known[image.tobytes()]
        for batch in part.batches(7, **options)
        for image in batch.inputs["serving_default_image:0"]
    ]


def _require_equal(one: Any, other: Any) -> None:
    assert list(one.inputs) == list(other.inputs)
    for name, array in one.inputs.items():
        np.testing.assert_array_equal(array, other.inputs[name])
    if other.labels is None:
        assert one.labels is None
    else:
        np.testing.assert_array_equal(one.labels, other.labels)


def test_held_samples_keep_the_order_of_the_part(digits: Any, tmp_path: Path) -> None:
    x, y = digits
    part = data.load(write_compressed(tmp_path, x, y), validation_share=1.0).validation
    order = np.random.default_rng(0).permutation(60)[:31]
    got = part.subset(order).arrays()
    np.testing.assert_array_equal(got.inputs["x"], x[order])
    np.testing.assert_array_equal(got.labels, y[order])


# --- splits -----------------------------------------------------------------------------------------------------------


def test_a_source_without_splits_is_divided_by_class_and_seed(digits: Any) -> None:
    one, other = (data.load(digits, validation_share=0.34, seed=seed) for seed in (0, 1))
    assert np.bincount(one.validation.ids()).tolist() == [2] * CLASSES
    assert np.bincount(one.training.ids()).tolist() == [PER_CLASS - 2] * CLASSES
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint() == data.load(digits, validation_share=0.34, seed=0).fingerprint()
    together = np.concatenate([one.training.arrays().inputs["x"], one.validation.arrays().inputs["x"]])
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in digits[0].astype("f4"))
    assert "divided with seed 0" in one.notes[0]


def test_keras_names_make_splits(digits: Any, tmp_path: Path) -> None:
    x, y = digits
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y[:, None], x_val=x[:5], y_val=y[:5, None], x_test=x[:9],
             y_test=y[:9, None], extra=x, class_names=np.array([f"n{c}" for c in range(CLASSES)]))  # fmt: skip
    loaded = data.load(tmp_path / "d.npz", calibration_samples=30)
    assert [len(part) for part in loaded.parts.values()] == [30, 60, 5, 9]
    assert loaded.validation.ids().shape == (9,)
    assert loaded.validation.class_names[9] == "n9"
    assert loaded.validation.classes == CLASSES
    notes = "; ".join(loaded.notes)
    assert "not used in d.npz: extra" in notes
    assert "tuning: the val split, 5 samples" in notes


@pytest.mark.parametrize("pair", [True, False])
def test_several_inputs_pass_indices_unchanged(pair: bool, tmp_path: Path) -> None:
    left, ids = np.full((6, 4), 100, np.uint8), np.arange(12).reshape(6, 2)
    np.savez(tmp_path / "d.npz", x_train_left=left, x_train_ids=ids, y_train=np.arange(6.0) / 3)
    spec: Any = ({"left": left, "ids": ids}, np.arange(6.0) / 3) if pair else tmp_path / "d.npz"
    loaded = data.load(spec, validation_share=1.0, preprocessing=Preprocessing(scale=0.01))
    inputs = [TensorSpec("serving_default_ids:0", (1, 2), "int32"), TensorSpec("left", (1, 4))]
    got = data.bind(loaded.validation, inputs).arrays()
    np.testing.assert_array_equal(got.inputs["serving_default_ids:0"], ids)
    assert got.inputs["serving_default_ids:0"].dtype == np.int32
    np.testing.assert_array_equal(got.inputs["left"], np.ones((6, 4), np.float32))
    np.testing.assert_allclose(got.labels, np.arange(6) / 3)
    assert loaded.validation.classes is None


def test_separate_files_for_training_calibration_and_validation(digits: Any, tmp_path: Path) -> None:
    x, y = digits
    np.savez(tmp_path / "train.npz", x=x[:40], y=y[:40])
    np.savez(tmp_path / "calibration.npz", x=x[40:50])
    loaded = data.load((x[50:], y[50:]), train=tmp_path / "train.npz", calibration=tmp_path / "calibration.npz")
    assert [len(part) for part in loaded.parts.values()] == [10, 40, 0, 10]
    described = loaded.describe()
    assert [source["role"] for source in described["sources"]] == ["data", "train", "calibration"]
    assert described["samples"] == {"calibration": 10, "training": 40, "tuning": 0, "validation": 10}
    assert described["inputs"] == [{"name": "x", "shape": [8, 8, 1], "dtype": "float32"}]


def test_calibration_data_alone(digits: Any) -> None:
    loaded = data.load(calibration=digits, calibration_samples=20)
    assert [len(part) for part in loaded.parts.values()] == [20, 0, 0, 0]
    assert len(loaded.validation.arrays()) == 0
    assert list(loaded.validation.batches(4, repeat=True)) == []


def test_a_dataset_says_what_it_is_in_one_line(digits: Any) -> None:
    loaded = data.load("digits")
    assert repr(loaded) == "Dataset(digits: 200 calibration, 1438 training, 0 tuning, 359 validation)"
    assert repr(loaded.validation) == "Part(359 samples of x float32[8, 8, 1])"


# --- the tuning part --------------------------------------------------------------------------------------------------


def numbered(**samples: int) -> dict[str, Any]:
    """Returns splits of as many samples, each of which holds a number that no other has, in four classes."""
    arrays, first = {}, 0
    for name, count in samples.items():
        arrays[f"x_{name}"] = np.arange(first, first + count, dtype=np.float32)[:, None]
        arrays[f"y_{name}"] = np.arange(count) ** 2 % 7  # classes 0, 1, 2 and 4, of different sizes
        first += count
    return arrays


def held(part: data.Part) -> set[float]:
    return set(part.arrays().inputs["x"].ravel().tolist())


def test_a_third_of_the_validation_samples_tunes_class_by_class() -> None:
    count = 3 * tuning.LEAST
    loaded = data.load(numbered(train=500, test=count))
    divided = tuning.divided(loaded)
    assert [len(divided.tuning), len(divided.validation)] == pytest.approx([count / 3, 2 * count / 3], abs=3)
    whole, ours = (np.bincount(part.ids()) for part in (loaded.validation, divided.tuning))
    np.testing.assert_allclose(ours, whole / 3, atol=1)
    assert held(divided.tuning) | held(divided.validation) == held(loaded.validation)
    assert not held(divided.tuning) & held(divided.validation)
    assert not held(divided.tuning) & held(divided.training)
    assert divided.fingerprint() == tuning.divided(data.load(numbered(train=500, test=count))).fingerprint()
    assert divided.fingerprint() != tuning.divided(data.load(numbered(train=500, test=count), seed=1)).fingerprint()
    # sqrt(3 / 2) = 1.22
    assert f"{len(divided.tuning)} of the {count} validation samples; choices are" in divided.notes[-1]
    assert "with intervals 22% wider" in divided.notes[-1]
    assert divided.deciding is divided.tuning
    assert len(divided.without_validation().validation) == 0
    assert len(loaded.validation) == count  # what is loaded for scoring alone stays whole


def test_too_few_to_divide_and_none_at_all() -> None:
    few = data.load(numbered(train=50, test=3 * tuning.LEAST - 1))
    divided = tuning.divided(few)
    assert divided.deciding is divided.validation is few.validation
    assert (
        "tuning: none, as a third of 1799 validation samples would not show a loss of one point (600 do). Choices"
        in (divided.notes[-1])
    )
    alone = data.load(calibration=numbered(train=50))
    assert tuning.divided(alone) is alone


@pytest.mark.parametrize("where", ["beside the test split", "beside the train split"])
def test_a_val_split_tunes(where: str) -> None:
    val = numbered(val=2 * tuning.LEAST)
    train, test = numbered(train=20), numbered(test=10)
    loaded = data.load({**test, **val}, train=train) if "test" in where else data.load(test, train={**train, **val})
    assert held(loaded.tuning) == held(data.load(val, validation_share=1.0).validation)
    assert tuning.divided(loaded) is loaded
    few = tuning.divided(data.load({**train, **numbered(val=60), **test}))
    # six of 60 are 10 %
    assert few.notes[-1] == "tuning: a loss of less than 10 points does not show in 60 samples"


def test_a_val_split_without_a_test_split_validates() -> None:
    loaded = data.load({**numbered(train=20), **numbered(val=10)})
    assert (len(loaded.tuning), len(loaded.validation)) == (0, 10)


def test_a_loaded_dataset_is_handed_back(digits: Any) -> None:
    loaded = data.load(digits)
    assert data.load(loaded) is loaded
    with pytest.raises(ConfigError, match="got a loaded Dataset"):
        data.load(loaded, calibration=digits)


def test_fingerprint_follows_content_not_names_or_times(digits: Any, tmp_path: Path) -> None:
    x, y = digits
    (tmp_path / "a").mkdir()
    first = write_npz(tmp_path, x, y)
    second = write_npz(tmp_path / "a", x, y)
    os.utime(second, (1, 1))
    assert data.fingerprint(data.load(first)) == data.fingerprint(data.load(second))
    changed = x.copy()
    changed[7, 0, 0] += 1
    write_npz(tmp_path / "a", changed, y)
    assert data.fingerprint(data.load(first)) != data.fingerprint(data.load(second))
    scaled = data.load(first, preprocessing=Preprocessing(scale=2))
    assert data.fingerprint(data.load(first)) != data.fingerprint(scaled)


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "ids", "classes"),
    [
        (np.array([0, 2, 1, 0]), [0, 2, 1, 0], 3),
        (np.array([[0], [2], [1], [0]], np.uint8), [0, 2, 1, 0], 3),
        (np.eye(4, dtype=np.float32)[[0, 2, 1, 0]], [0, 2, 1, 0], 4),
        (np.array(["dog", "cat", "dog", "eel"]), [1, 0, 1, 2], 3),
        (np.array([True, False, True, True]), [1, 0, 1, 1], 2),
        (np.array([0.0, 1.0, 1.0, 0.0]), [0, 1, 1, 0], 2),
        (np.array([0.5, 1.0, 1.0, 0.0]), None, None),
        (np.array([3.0, 1.0, 1.0, 0.0]), None, None),
        (np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]), None, None),
        (np.zeros((4, 3, 3), np.int64), None, None),
    ],
)
def test_labels_are_recognized(labels: np.ndarray, ids: list[int] | None, classes: int | None) -> None:
    part = data.load((np.arange(12.0).reshape(4, 3), labels), validation_share=1.0).validation
    assert (None if part.ids() is None else part.ids().tolist()) == ids
    assert part.classes == classes
    if ids is None:
        np.testing.assert_array_equal(part.arrays().labels, labels)
        assert part.labels.kind == "values"


def test_labels_of_a_kind_that_was_asked_for() -> None:
    x = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    same = data.load(
        x, labels="inputs", validation_share=1.0, preprocessing=Preprocessing(scale=0.5)
    ).validation.arrays()
    np.testing.assert_array_equal(same.labels, x / 2)
    ages = data.load((x, np.array([30, 41, 7, 99])), labels="values", validation_share=1.0).validation
    assert (ages.classes, ages.arrays().labels.tolist()) == (None, [30, 41, 7, 99])
    counted = data.load((x, np.array([3.0, 1, 0, 2])), labels="classes", validation_share=1.0).validation
    assert counted.ids().tolist() == [3, 1, 0, 2]
    assert not data.load((x, np.zeros(4)), labels="none").validation.has_labels
    with pytest.raises(DataError, match=r"Expected class numbers.*got float64.*--labels values"):
        data.load((x, np.array([0.5, 1, 0, 2])), labels="classes")
    with pytest.raises(ConfigError, match="Did you mean 'classes'"):
        data.load((x, np.zeros(4)), labels="class")


def test_binding_a_part_again_follows_the_model(digits: Any) -> None:
    part = data.bind(data.load(digits).validation, DIGITS_INPUT)
    again = data.bind(part, [TensorSpec("flat", (1, 64), "int8", Quantization((0.1,), (0,)))])
    assert again.specs == (TensorSpec("flat", (64,), "float32"),)
    assert data.match_inputs(part, [TensorSpec("image", (1, 8, 8, 1))]) == {"image": "serving_default_image:0"}


# --- preprocessing ----------------------------------------------------------------------------------------------------


def test_preprocessing_is_parsed_described_and_applied() -> None:
    steps = data.parse_preprocessing(scale="1/255", mean="0.5,0.25,0", std="0.5", resize="4x2")
    assert steps == Preprocessing((4, 2), 1 / 255, (0.5, 0.25, 0.0), (0.5,))
    assert data.describe_preprocessing(steps) == (
        "resize to 4x2 (bilinear), multiply by 0.0039215686, subtract (0.5, 0.25, 0), divide by 0.5, as float32"
    )
    assert data.describe_preprocessing(Preprocessing()) == "values as they are, as float32"
    pixels = np.full((2, 8, 8, 3), 255, np.uint8)
    got = data.preprocess(pixels, steps)
    assert got.shape == (2, 4, 2, 3)
    np.testing.assert_allclose(got[0, 0, 0], [(1 - 0.5) / 0.5, (1 - 0.25) / 0.5, 1 / 0.5], rtol=1e-6)
    assert data.preprocess(np.array([[-3.0, 1.6, 999.0]]), Preprocessing(dtype="uint8")).tolist() == [[0, 2, 255]]
    assert data.parse_preprocessing(resize="96").resize == (96, 96)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "a"}, "Expected a number or a fraction as --scale, got 'a'. Try --scale 1/255"),
        ({"scale": "1/0"}, "as --scale, got '1/0'"),
        ({"mean": "1,,2"}, "as --mean, got ''"),
        ({"std": "1,0"}, "Expected deviations other than 0 as --std"),
        ({"resize": "96x"}, "Expected height and width as --resize, got '96x'. Try --resize 96x96"),
        ({"resize": "0x3"}, "as --resize, got '0x3'"),
        ({"dtype": "int9"}, "as the data's dtype, got 'int9'. Try float32"),
    ],
)
def test_preprocessing_that_cannot_be_read(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        data.parse_preprocessing(**options)
    assert message in str(caught.value)


def test_a_mean_per_channel_must_fit_the_channels() -> None:
    with pytest.raises(DataError, match=r"Expected 1 or 3 values as mean.*got 2. Try --mean with 3 numbers"):
        data.preprocess(np.zeros((1, 2, 2, 3)), Preprocessing(mean=(0.1, 0.2)))


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (8, 3), (40, 7)])
def test_resizing_is_that_of_tensorflow(size: tuple[int, int]) -> None:
    tf = frameworks.load("tensorflow")
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 11, 3), np.uint8)
    got = data.preprocess(images, Preprocessing(resize=size))
    np.testing.assert_allclose(got, tf.image.resize(images, size).numpy(), atol=1e-3)


# --- images -----------------------------------------------------------------------------------------------------------


def test_images_in_split_folders_upright_and_in_the_colours_asked_for(tmp_path: Path) -> None:
    pixels = np.zeros((6, 4, 3), np.uint8)
    pixels[0] = (200, 100, 50)
    for split, name in (("train", "b"), ("train", "a"), ("Validation", "a")):
        (tmp_path / split / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / split / name / "1.png")
    turned = Image.fromarray(np.rot90(pixels))
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to show"
    turned.save(tmp_path / "train" / "a" / "0.png", exif=exif)
    (tmp_path / "train" / "empty").mkdir()
    loaded = data.load(tmp_path)
    assert loaded.training.class_names == ("a", "b", "empty")
    got = loaded.training.arrays()
    assert got.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(got.inputs["x"], np.stack([pixels] * 3))
    assert len(loaded.validation) == 1

    grey = data.bind(loaded, [TensorSpec("x", (None, 6, 4, 1))]).training.arrays().inputs["x"]
    weighed = round(200 * 0.299 + 100 * 0.587 + 50 * 0.114)
    assert grey[0, 0, 0, 0] == pytest.approx(weighed, abs=1)
    asked = data.load(tmp_path, color="grayscale", preprocessing=Preprocessing(resize=(3, 2)))
    assert asked.training.specs[0].shape == (3, 2, 1)
    assert asked.training.arrays().inputs["x"].shape == (3, 3, 2, 1)


def test_sixteen_bit_images_keep_their_upper_bits(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 256 * 200 + 17]], np.uint16)).save(tmp_path / "deep.png")
    loaded = data.load(tmp_path, validation_share=1.0)
    assert not loaded.validation.has_labels
    assert loaded.validation.arrays().inputs["x"].ravel().tolist() == [0, 200]


def test_only_images_are_opened_whatever_a_file_is_called(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    os.mkfifo(tmp_path / "1.png")  # reading it would wait for ever
    assert len(data.load(tmp_path, validation_share=1.0).validation) == 1
    # Pillow would hand this to Ghostscript.
    (tmp_path / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match=r"Expected an image, got .*0.png, which cannot be decoded"):
        data.load(tmp_path)


def test_images_that_are_damaged_missing_or_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected images .* got none. Try a folder with one folder per class"):
        data.load(tmp_path)
    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "0.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "a" / "1.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "stray.png")
    loaded = data.load(tmp_path, validation_share=1.0)
    assert "not used: 1 images outside the class folders (stray.png" in loaded.notes[0]
    with pytest.raises(DataError, match=r"Expected 4x4 pixels as in the first image, got 4x5 in .*1.png. Try --resize"):
        loaded.validation.arrays()
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"Expected an image, got .*1.png, which cannot be decoded"):
        data.load(tmp_path, validation_share=1.0).validation.arrays()
    with pytest.raises(ConfigError, match=r"as --color, got 'gray'. Did you mean 'grayscale'"):
        data.load(tmp_path, color="gray")


def write_masks(folder: Path, masks: list[np.ndarray]) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, mask in enumerate(masks):
        Image.new("RGB", mask.shape[::-1], (10 * number, 0, 0)).save(folder / "images" / f"{number}.jpg", quality=100)
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def test_masks_are_class_numbers_of_their_pictures(tmp_path: Path) -> None:
    masks = [np.full((4, 6), number, np.uint8) for number in range(3)]
    masks[2][:, 3:] = 255
    write_masks(tmp_path / "train", masks)
    write_masks(tmp_path / "test", masks[:1])
    palette = Image.fromarray(masks[1], "P")
    palette.putpalette([9, 9, 9, 200, 0, 0] + [7] * 750)  # colours that say nothing of the number
    palette.save(tmp_path / "train" / "masks" / "1.png")
    loaded = data.load(tmp_path)
    assert loaded.origins[0].kind == "masks"
    got = loaded.training.arrays()
    np.testing.assert_array_equal(got.labels, masks)
    assert got.inputs["x"].shape == (3, 4, 6, 3)
    assert [round(float(x) / 10) for x in got.inputs["x"][:, 0, 0, 0]] == [0, 1, 2]
    assert data.check(loaded, [TensorSpec("x", (None, 4, 6, 3))], [TensorSpec("y", (None, 4, 6, 5))]) is not None
    resized = data.load(tmp_path, preprocessing=Preprocessing(resize=(8, 3))).training.arrays()
    assert resized.inputs["x"].shape == (3, 8, 3, 3)
    np.testing.assert_array_equal(resized.labels[2], np.repeat([[2, 255, 255]], 8, axis=0))


def test_masks_of_an_array_are_resized_with_their_pictures() -> None:
    x, y = np.zeros((2, 4, 4, 3), np.float32), np.arange(2 * 4 * 4).reshape(2, 4, 4)
    got = data.load((x, y), preprocessing=Preprocessing(resize=(2, 8)), validation_share=1.0).validation.arrays()
    np.testing.assert_array_equal(got.labels, np.repeat(y[:, 1::2], 2, axis=2))


def test_black_and_white_masks_say_yes_and_no(tmp_path: Path) -> None:
    white = np.array([[0, 255], [255, 255]], np.uint8)
    write_masks(tmp_path, [white, white[::-1]])
    loaded = data.load(tmp_path, validation_share=1.0)
    np.testing.assert_array_equal(loaded.validation.arrays().labels[0], [[0, 1], [1, 1]])
    assert "masks: 0 and 255 are read as the classes 0 and 1" in loaded.notes


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    mask = np.ones((4, 6), np.uint8)
    write_masks(tmp_path, [mask] * 20)

    def read() -> Any:
        return data.load(tmp_path, validation_share=1.0).validation.arrays()

    file = tmp_path / "masks" / "1.png"
    for content, words in (
        (Image.fromarray(mask[1:]), r"Expected a mask of 4x6 pixels as its picture, got 3x6 in .*masks/1.png. Try one"),
        (Image.new("RGB", (6, 4)), r"Expected a palette or grey picture .* got RGB colours in .*masks/1.png. Try sav"),
        (Image.fromarray(np.full((4, 6), 300, np.uint16)), r"class numbers from 0 to 255 in .*1.png, got 300 to 300"),
    ):
        content.save(file)
        with pytest.raises(DataError, match=words):
            read()
    file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"Expected an image, got .*masks/1.png, which cannot be decoded"):
        read()
    file.unlink()
    with pytest.raises(DataError, match=r"Expected a mask for each picture, got none for .*images/1.jpg. Try adding"):
        read()
    Image.fromarray(mask).save(file)
    Image.fromarray(mask).save(tmp_path / "masks" / "1.bmp")
    with pytest.raises(DataError, match=r"Expected one mask called 1 in .*masks, got two. Try removing one"):
        read()
    (tmp_path / "masks" / "1.bmp").unlink()
    for number in range(20):
        Image.fromarray(mask * 255).save(tmp_path / "masks" / f"{number}.png")
    Image.fromarray(mask).save(tmp_path / "masks" / "12.png")  # not among those that are looked at first
    with pytest.raises(DataError, match=r"Expected 0 and 255 alone in .*12.png, as in other masks, got 1. Try masks"):
        read()
    for picture in (tmp_path / "images").iterdir():
        picture.unlink()
    with pytest.raises(DataError, match=r"Expected pictures in images/ of .*, got none. Try a PNG"):
        read()


# --- CSV, TFRecord ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "ids", "names"),
    [
        ("a,b,class\n1,2,dog\n3,4,cat\n", None, [1, 0], ("cat", "dog")),
        ("1.5;2;0\n3;4;1", "2", [0, 1], ()),
        ("1.5\t2\t1\n3\t4\t0\n", "-1", [1, 0], ()),
        ('"a","kind","b"\n1,"x,y",2\n3,"z",4\n', "kind", [0, 1], ("x,y", "z")),
        ("a,b\n1,2\n3,4\n", None, None, ()),
        ("1\n3\n", None, None, ()),
    ],
)
def test_csv_dialects(tmp_path: Path, text: str, column: str | None, ids: Any, names: tuple[str, ...]) -> None:
    (tmp_path / "d.csv").write_text(text)
    part = data.load(tmp_path / "d.csv", labels_column=column, validation_share=1.0).validation
    assert (None if part.ids() is None else part.ids().tolist()) == ids
    assert part.class_names == names
    assert part.arrays().inputs["x"][:, 0].tolist() == [1.5 if "1.5" in text else 1, 3]


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        (b"", None, "got an empty file"),
        (b"\n\n", None, "got an empty file"),
        (b"a,b\n", None, "got only a header"),
        (b"label\n1\n", None, "got one column"),
        (b"\xff\xfe\x00\n1,2\n", None, "Expected lines of text"),
        (b"a,b\n1,2\n", "c", "Expected a column of .* as --labels-column, got 'c'. Known: a, b"),
        (b"1,2\n", "7", "got '7'. Try a number from 0 to 1"),
        (b"a,b\n1,2\n3,x\n5,6\n", None, "line 3 of .*could not convert string 'x'"),
        (b"a,b\n1,2\n3,\n", None, "line 3 of"),
        (b"a,b\n1,2\n\n3,4\n", None, r"line 3 of .*an empty line"),
        (b"a,b\n1,2\n3\n", None, "line 3 of"),
        (b'a,label\n1,2\n3,"4\n5,6\n', None, r"line 3 of .*a quote that is not closed"),
        (b'"' + b"a" * 200_000 + b'",b\n1,2\n', None, r"in the first line of .*field larger than field limit"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path: Path, content: bytes, column: str | None, message: str) -> None:
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load(tmp_path / "d.csv", labels_column=column, validation_share=1.0).validation.arrays()


def test_records_of_images_in_shards_of_two_splits(tmp_path: Path) -> None:
    tf = frameworks.load("tensorflow")
    pictures = np.arange(5 * 4 * 6 * 3, dtype=np.uint8).reshape(5, 4, 6, 3)

    def feature(value: Any) -> Any:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    for shard, numbers in {"train.tfrecord-00000-of-00002": [0, 1], "train.tfrecord-00001-of-00002": [2],
                           "test.tfrecord": [3, 4]}.items():  # fmt: skip
        with tf.io.TFRecordWriter(str(tmp_path / shard)) as writer:
            for number in numbers:
                features = {
                    "image/encoded": feature(tf.io.encode_png(pictures[number]).numpy()),
                    "image/height": feature(4),
                    "image/class/label": feature(number),
                    "image/class/text": feature(b"thing"),
                }
                features_message = tf.train.Features(feature=features)
                writer.write(tf.train.Example(features=features_message).SerializeToString())
    loaded = data.load(tmp_path)
    np.testing.assert_array_equal(loaded.training.arrays().inputs["image"], pictures[:3])
    assert loaded.validation.arrays().labels.tolist() == [3, 4]
    assert "not used in the records: image/class/text, image/height" in loaded.notes
    small = data.load(tmp_path, preprocessing=Preprocessing(resize=(2, 3)), color="grayscale").validation
    assert small.arrays().inputs["image"].shape == (2, 2, 3, 1)
    with pytest.raises(
        DataError, match=r"Expected a feature of .* as --labels-column, got 'image/class/lable'. Did you"
    ):
        data.load(tmp_path, labels_column="image/class/lable")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected records in .* got none"),
        (b"not a record at all, but text", "Expected readable data.*holds no records"),
        (b"\x03" + bytes(11) + b"abc" + bytes(4), "Expected tf.train.Example records"),
    ],
)
def test_records_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "d.tfrecord").write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load(tmp_path / "d.tfrecord")


def test_a_compressed_record_that_claims_to_be_huge(tmp_path: Path) -> None:
    (tmp_path / "d.tfrecord.gz").write_bytes(gzip.compress(struct.pack("<QI", 2**62, 0) + bytes(1000)))
    with pytest.raises(DataError, match=r"claims to have 4,611,686,018,427,387,904 bytes, more than 1,073,741,824"):
        data.load(tmp_path / "d.tfrecord.gz")


def test_truncated_records(digits: Any, tmp_path: Path) -> None:
    path = write_records(tmp_path, *digits)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="ends in the middle of a record"):
        data.load(path)


# --- functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "def samples(): return x, y",
        "def samples(): return {'x_train': x, 'y_train': y}",
        "def samples():\n    for one, label in zip(x, y): yield one, label",
        "def samples():\n    for one in x: yield [one[None]]",
        "def samples():\n    for one, label in zip(x, y): yield {'x': one[None]}, np.eye(10)[label][None]",
        "def samples():\n    import tensorflow as tf\n    return tf.data.Dataset.from_tensor_slices((x, y)).batch(9)",
    ],
)
def test_what_a_function_may_give(digits: Any, tmp_path: Path, code: str) -> None:
    x, y = digits
    part = data.load(write_module(tmp_path, x, y, code), validation_share=1.0).validation
    got = part.arrays()
    np.testing.assert_array_equal(got.inputs["x"], x)
    assert got.labels is None if "[one[None]]" in code else got.labels.tolist() == y.tolist()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def other(): pass", "Expected a function samples in .* got none"),
        ("def samples(): raise KeyError('gone')", "got KeyError: 'gone'. Try calling it yourself, without arguments"),
        ("def samples(): return 3", "got int. Try returning"),
        ("def samples():\n    yield x[:3], y[:2]", r"got shapes .*\(3, 8, 8, 1\).* and labels \(2,\)"),
        ("def samples():\n    yield x[:3]\n    raise OSError('disk')", "got OSError at item 1: disk"),
        ("def samples(): return iter(())", "Expected samples from .* got none"),
        ("import nothing_of_this_name", "got ModuleNotFoundError"),
        ("seen = []\ndef samples():\n    seen.append(1)\n    yield x[: 9 - len(seen)]", "Expected 8 samples .* got 7"),
    ],
)
def test_a_function_that_gives_no_data(digits: Any, tmp_path: Path, code: str, message: str, streaming: None) -> None:
    with pytest.raises(DataError, match=message):
        data.load(write_module(tmp_path, *digits, code), validation_share=1.0).validation.arrays()


@pytest.mark.parametrize("labels", ["y", "np.eye(10)[y]", "x"], ids=["classes", "one-hot", "masks"])
def test_a_function_that_gives_another_order_at_each_call(digits: Any, tmp_path: Path, labels: str) -> None:
    """The class numbers that are kept would be those of other samples, and training would see those of validation."""
    code = (
        "drawn = np.random.default_rng(0)\ndef samples():\n    order = drawn.permutation(len(x))\n"
        f"    for rows in np.array_split(order, 3): yield x[rows], ({labels})[rows]"
    )
    found = data.load(write_module(tmp_path, *digits, code))
    with pytest.raises(DataError, match=r"in one order at every call, got another label .* without shuffle\(\)"):
        found.training.arrays()


def test_a_function_may_vary_its_samples(digits: Any, tmp_path: Path) -> None:
    code = "drawn = np.random.default_rng(0)\ndef samples():\n    yield x * drawn.uniform(0.5, 1), y"
    name = write_module(tmp_path, *digits, code)
    found = [data.load(name, validation_share=1.0) for _ in "ab"]
    assert found[0].validation.arrays().labels.tolist() == digits[1].tolist()
    assert found[0].validation.digest() == found[1].validation.digest()
    warned = data.check(found[0], [TensorSpec("x", (None, *digits[0].shape[1:]))])
    assert any("The samples vary from call to call of the function that gives them" in words for words in warned)


def test_the_digest_of_a_function_that_gives_the_same_is_of_what_it_gives(digits: Any, tmp_path: Path) -> None:
    parts = []
    for number, code in enumerate(("yield x, y", "yield x, y  # the same", "yield 2 * x, y")):
        folder = tmp_path / str(number)
        folder.mkdir()
        name = write_module(folder, *digits, f"def samples(): {code}")
        parts.append(data.load(name, validation_share=1.0).validation)
    assert not any(part.table.varies for part in parts)
    same, alike, other = (part.digest() for part in parts)
    assert same == alike != other


def test_a_missing_module_is_named() -> None:
    with pytest.raises(DataError, match=r"Expected a Python module no.such_module.*set PYTHONPATH"):
        data.load("no.such_module:samples")


# --- bad files --------------------------------------------------------------------------------------------------------


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}, print], dtype=object))
    with pytest.raises(DataError, match=r"pickled objects, which can run code .* re-save it with plain arrays"):
        data.load(tmp_path / "d.npz")


@pytest.mark.parametrize("compressed", [True, False])
def test_truncated_archives(compressed: bool, digits: Any, tmp_path: Path) -> None:
    path = (write_compressed if compressed else write_npz)(tmp_path, *digits)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"got a damaged, truncated or missing file: .*digits.npz"):
        data.load(path)


def test_damage_inside_a_compressed_array_is_found_when_it_is_read(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((100, 50)).astype(np.float32)
    np.savez_compressed(tmp_path / "d.npz", x=x)
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[5000:5100] = bytes(100)
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match="got a damaged, truncated or missing file"):
        data.load(tmp_path / "d.npz", validation_share=1.0).validation.arrays()


def npy(shape: str, descr: str = "<f4") -> bytes:
    """Returns the bytes of an array before its values."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("(-4, 8)"), r"Expected an array as d.npy in d.npy, got other bytes \(its shape is \(-4, 8\)\)"),
        (npy("(4, 8").replace(b"}", b" "), "got other bytes .its header cannot be read"),
        (npy("(" * 200 + ")" * 200), "got other bytes"),
    ],
)
def test_headers_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "d.npy").write_bytes(content + bytes(128))
    with pytest.raises(DataError, match=message):
        data.load(tmp_path / "d.npy")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": (2, 1001)}, "Expected at most 1,000 bytes as one sample of x in d.npz, got 1,001"),
        ({"x": (2, 10), "y": (2, 1001)}, r"Expected at most 2,000 bytes as y in d.npz, got 2,002"),
        ({"x": (2, 10), "y": (2, 3, 500)}, "Expected at most 1,000 bytes as one sample of y in d.npz, got 1,500"),
        ({"x": (2, 10), "class_names": (17 << 20,)}, "Expected at most 16,777,216 bytes of class_names in d.npz"),
    ],
)
def test_a_small_archive_does_not_unpack_into_all_of_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    monkeypatch.setattr(arrays, "LARGEST_SAMPLE_BYTES", 1000)
    monkeypatch.setattr(arrays, "LARGEST_LABELS_BYTES", 2000)
    np.savez_compressed(tmp_path / "d.npz", **{name: np.zeros(shape, np.uint8) for name, shape in shapes.items()})
    assert (tmp_path / "d.npz").stat().st_size < 50_000
    with pytest.raises(DataError, match=message):
        data.load(tmp_path / "d.npz")


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8), }"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content + bytes(64))
    with pytest.raises(DataError, match=r"Expected 32000000000000 bytes of samples in x.npy in d.npz, got 64"):
        data.load(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3), "b": np.zeros(3)}, "Expected arrays named x_train, .* got a, b. Try numpy.savez"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "different lengths: x has 3, y has 4"),
        ({"y_train": np.zeros(4)}, r"Expected samples beside the labels y_train.* got none\. Try adding x_train\."),
        ({"left": np.zeros((4, 2)), "right": np.zeros((4, 3)), "y": np.zeros(4)},
         r"got only left, right\. Try adding x, or, where they are inputs of the model, calling them x_left …"),
        ({"x": np.zeros(4), "y": np.zeros(4), "y_a": np.zeros(4)}, "one array of labels per split .* got y and y_a"),
        ({"x": np.zeros((0, 3))}, r"got none: its shape is \(0, 3\)"),
        ({"x": np.float32(3)}, "got a single number"),
        ({"x": np.array(["a", "b"])}, "as x in .*got <U1. .* of a model that reads texts give the layers"),
        ({"x": np.zeros((2, 2), complex)}, "got complex128"),
        ({"x_train": np.zeros((3, 2)), "x_test": np.zeros((3, 4))}, "Expected samples of one shape in all splits"),
        ({"x_train": np.zeros(3), "y_train": np.zeros(3), "x_test": np.zeros(3), "y_test": np.zeros((3, 2))},
         "Expected labels of one shape"),
        ({"x": np.zeros(2), "y": np.zeros(2, complex)}, "Expected numbers or texts as labels, got complex128"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("in_file", [True, False])
def test_arrays_that_do_not_go_together(arrays: dict[str, Any], message: str, in_file: bool, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        data.load(tmp_path / "d.npz" if in_file else arrays)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (([[1, 2], [3]],), "Expected an array as x"),
        ((1, 2, 3, 4), "got a tuple of 4. Try"),
        (object(), "got object objects"),
    ],
)
def test_arrays_that_are_none(spec: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.load(spec)


def test_what_is_no_data_at_all(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_text("hello")
    (tmp_path / "data.xyz").write_text("hello")
    (tmp_path / "data.npy").write_text("hello")
    with pytest.raises(DataError, match="got a damaged, truncated or missing file"):
        data.load(tmp_path / "data.npz")
    with pytest.raises(DataError, match=r"Expected a data file ending in .npz, .*data.xyz. Try numpy.savez"):
        data.load(tmp_path / "data.xyz")
    with pytest.raises(DataError, match=r"Expected an array as data.npy"):
        data.load(tmp_path / "data.npy")
    with pytest.raises(DataError, match=r"datta.npz, which does not exist. Try another path. Did you mean 'data.npz'"):
        data.load(tmp_path / "datta.npz")
    with pytest.raises(DataError, match=r"or one of digits, mnist, .* got mnits"):
        data.load("mnits")
    with pytest.raises(ConfigError, match=r"Expected data, got none. Try --data FILE.npz"):
        data.load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_share": 2}, "Expected a share from 0 to 1"),
        ({"calibration_samples": 0}, "Expected at least 1 as --calibration-samples"),
    ],
)
def test_options_out_of_range(digits: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data.load(digits, **options)
    with pytest.raises(ConfigError, match=r"Expected a batch size of at least 1, got 0. Try 32"):
        next(data.load(digits).training.batches(0))


def test_fortran_order_and_foreign_byte_order(tmp_path: Path) -> None:
    x = np.asfortranarray(np.arange(24, dtype=">f4").reshape(6, 4))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "d.npz", x=x)
        part = data.load(tmp_path / "d.npz", validation_share=1.0).validation
        np.testing.assert_array_equal(part.arrays().inputs["x"], x)


def test_keras_datasets_without_a_network(tmp_path: Path) -> None:
    code = """
        from edgeopt import data
        from edgeopt.errors import DataError
        try:
            data.load("fashion_mnist")
        except DataError as error:
            print("told:", error)
    """
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "no_proxy": "", "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=120
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("told:")]
    assert told, done.stderr[-2000:]
    assert "Expected fashion_mnist in Keras' cache or a network to download it, got neither" in done.stdout
    assert "Try --data FILE.npz" in done.stdout


# --- binding and checks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "wanted", "remedy"),
    [
        ((28, 28, 1), (32, 32, 1), "Try --resize 32x32"),
        ((32, 32, 1), (32, 32, 3), r"Try data in colour \(RGB\)"),
        ((32, 32, 3), (32, 32, 1), "Try data in grayscale"),
        ((32, 32, 3), (32, 32, 4), "Try data with 4 channels"),
        ((2, 5), (5,), "Try an array with one sample per first index"),
        ((10,), (11,), "Try data made for this model"),
    ],
)
def test_shapes_that_do_not_fit_the_model(shape: tuple[int, ...], wanted: tuple[int, ...], remedy: str) -> None:
    loaded = data.load(np.ones((4, *shape), np.float32))
    with pytest.raises(
        DataError, match=rf"Expected \({wanted[0]},.*per sample as input 'in', got \({shape[0]},.*{remedy}"
    ):
        data.bind(loaded, [TensorSpec("in", (None, *wanted))])


def test_free_dimensions_and_single_channels_fit() -> None:
    loaded = data.load(np.ones((10, 7, 5), np.float32))
    assert data.bind(loaded, [TensorSpec("in", (None, None, 5))]).training.specs[0].shape == (7, 5)
    assert data.bind(loaded, [TensorSpec("in", (None, 7, 5, 1))]).training.specs[0].shape == (7, 5, 1)


def test_inputs_without_data_and_numbers_that_do_not_fit() -> None:
    loaded = data.load({"x_a": np.ones((4, 2)), "x_b": np.full((4, 2), 0.5)})
    with pytest.raises(
        DataError, match=r"inputs a, c, got a, b: nothing feeds c. Try naming the arrays x_train_a, x_train_c"
    ):
        data.match_inputs(loaded.training, [TensorSpec("a", (None, 2)), TensorSpec("c", (None, 2))])
    part = data.bind(loaded.training, [TensorSpec("b", (None, 2), "uint8")])
    with pytest.raises(
        DataError, match=r"Expected whole numbers that fit uint8 as input 'b', got values from 0.5 to 0.5"
    ):
        part.arrays()


def _images(count: int, *, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((count, 4, 4, 1)) * scale).astype(np.float32)


IMAGE_INPUT = (TensorSpec("in", (None, 4, 4, 1)),)
TEN = (TensorSpec("out", (None, 10)),)


def test_check_is_silent_on_good_data() -> None:
    assert data.check(data.load("digits"), DIGITS_INPUT, DIGITS_OUTPUT) == ()


def test_check_raises_on_what_makes_a_run_useless() -> None:
    y = np.arange(200) % 10
    x = _images(200)
    with pytest.raises(
        DataError, match=r"validation labels from 0 to 9, .*10 values, got 10 \(sample \d+\). Try labels that"
    ):
        data.check(data.load((x, y + 1)), IMAGE_INPUT, TEN)
    with pytest.raises(
        DataError, match=r"labels from 0 to 1, as the model's output has 1 value, got .*--labels values"
    ):
        data.check(data.load((x, y)), IMAGE_INPUT, [TensorSpec("out", (None, 1))])
    with pytest.raises(DataError, match=r"labels from 0.* got -1"):
        data.check(data.load((x, y - 1)), IMAGE_INPUT, TEN)
    with pytest.raises(
        DataError, match=r"Expected validation labels \(10,\) per sample, as the model's output, got \(3,\)"
    ):
        data.check(data.load((x, np.random.default_rng(0).random((200, 3)))), IMAGE_INPUT, TEN)
    bad = x.copy()
    bad[:, 0, 0, 0] = np.nan
    with pytest.raises(
        DataError, match=r"Expected finite numbers in input 'in' of the calibration data, got NaN in 160 of the 160"
    ):
        data.check(data.load((bad, y)), IMAGE_INPUT, TEN)
    bad[:, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match="got infinite values"):
        data.check(data.load((bad, y)), IMAGE_INPUT, TEN)
    with pytest.raises(DataError, match=r"Expected finite numbers in the labels of the .* data, got NaN"):
        data.check(data.load((x, np.full(200, np.nan))), IMAGE_INPUT, [TensorSpec("out", (None, 1))])
    with pytest.raises(DataError, match=r"on the scale of the training data, .* in input 'in', got .* to 254"):
        data.check(data.load((x, y), calibration=_images(200, scale=255)), IMAGE_INPUT, TEN)
    with pytest.raises(DataError, match=r"Expected \(5, 5, 1\) per sample"):
        data.check(data.load((x, y)), [TensorSpec("in", (None, 5, 5, 1))], TEN)


@pytest.mark.parametrize(
    ("low", "is_share", "is_refuted"),
    # Half-way from one of ten to all: (0.1 + 1) / 2.
    [(0.56, True, True), (0.54, True, False), (0.99, False, False)],
)
def test_a_good_score_refutes_that_pixels_are_on_a_wrong_scale(low: float, is_share: bool, is_refuted: bool) -> None:
    raw, y = np.rint(_images(500, scale=255)), np.arange(500) % 10
    loaded = data.load((raw, y))
    (warned,) = [one for one in data.check(loaded, IMAGE_INPUT) if "use --scale 1/255" in one]
    scored = MetricValue("top1", low + 0.01, low, low + 0.02, 100, True, is_share)
    assert data.refuted(loaded, IMAGE_INPUT, scored) == ((warned,) if is_refuted else ())


def test_a_score_that_one_answer_to_all_reaches_is_doubted() -> None:
    names = np.array(["cat", "dog", "fox", "owl"])
    part = data.load((_images(100), names[np.repeat([0, 1, 2, 3], (40, 20, 20, 20))])).validation
    share = 40 / 100
    for low, name, doubted in ((share, "top1", True), (share + 0.01, "top1", False), (share, "f1", False)):
        found = data.guessing(part, MetricValue(name, low + 0.05, low, low + 0.1, 100, True, True))
        assert len(found) == doubted
        for text in found:
            assert "answers one class to every sample (40.0% right)" in text
            assert "look at the order of the classes (here cat, dog, fox …), and at --scale" in text
    for labels in (np.zeros(100, int), np.linspace(0, 1, 100)):  # a single class, values
        part = data.load((_images(100), labels)).validation
        assert data.guessing(part, MetricValue("top1", 0.0, 0.0, 0.1, 100, True, True)) == ()


def test_check_warns() -> None:
    x, y = _images(500), np.arange(500) % 10

    def warnings(loaded: Any, outputs: Any = TEN, **options: Any) -> str:
        return " ".join(data.check(loaded, IMAGE_INPUT, outputs, **options))

    assert warnings(data.load((x, y))) == ""
    assert "Only 50 calibration samples" in warnings(data.load((x, y), calibration_samples=50))
    assert "All validation samples are of one class (0)" in warnings(data.load((x, np.zeros(500, int))))
    assert "Every value of input 'in' in the 400 training samples looked at is 1." in warnings(
        data.load((np.ones_like(x), y))
    )
    assert "differ from the training data in input 'in'" in warnings(
        data.load((x, y), calibration=_images(200, scale=0.3, seed=1))
    )
    assert "200 of 200 calibration samples are among the validation" in warnings(data.load((x, y), calibration=x[:200], validation_share=1.0))  # fmt: skip  # noqa: E501
    raw = np.rint(_images(500, scale=255))
    assert "use --scale 1/255" in warnings(data.load((raw, y)))
    assert "use --scale 1/255" not in warnings(data.load((raw, y)), rescaling=["Rescaling"])
    # Pictures made smaller have fractions, and are as bright; what is of another kind has some large values.
    smaller = np.clip(_images(500, scale=255) - 0.3, 0, None)
    assert "use --scale 1/255" in warnings(data.load((smaller, y)))
    spectra = np.where(np.arange(500).reshape(-1, 1, 1, 1) % 10 == 0, smaller, smaller / 4)
    assert "use --scale 1/255" not in warnings(data.load((spectra, y)))
    # A model that makes 0 to 1 of pixels, and gets 0 to 1.
    twice = "holds values from 0.00019 to 0.9996 and the model rescales them once more (Rescaling)"
    assert twice in warnings(data.load((x, y)), rescaling=["Rescaling"])
    for kinds in ((), ("Normalization",), ("Rescaling", "Normalization")):
        assert twice not in warnings(data.load((x, y)), rescaling=kinds)
    assert "use --scale 1/255" not in warnings(data.load((raw, y), preprocessing=Preprocessing(scale=1 / 255)))
    assert "The labels name 10 classes, the model tells 12 apart" in warnings(
        data.load((x, y)), [TensorSpec("o", (None, 12))]
    )
    assert warnings(data.load(x, labels="inputs"), [TensorSpec("o", (None, 4, 4, 1))]) == ""
    masks = np.zeros((500, 4, 4), np.int64)
    assert warnings(data.load((x, masks)), [TensorSpec("o", (None, 4, 4, 3))]) == ""


def test_check_warns_of_a_sorted_stream(tmp_path: Path, streaming: None) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=_images(500), y=np.arange(500) // 50)
    assert "sorted by class" in " ".join(data.check(data.load(tmp_path / "d.npz"), IMAGE_INPUT, TEN))


# --- worker processes and memory --------------------------------------------------------------------------------------


def test_large_arrays_travel_to_a_worker_through_a_file() -> None:
    x = np.arange(5_000_000, dtype=np.float32).reshape(1000, 5000)
    loaded = data.load(x, validation_share=1.0)
    assert len(pickle.dumps(loaded)) < 100_000
    with workers.Worker() as worker:
        remote = worker.create("edgeopt.data:load", loaded)
        assert remote.call("fingerprint") == loaded.fingerprint()
        got = worker.create("copy:copy", loaded.validation.subset(np.array([999, 3]))).call("arrays")
    np.testing.assert_array_equal(got.inputs["x"], x[[999, 3]])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_peak_memory_stays_far_under_the_size_of_the_data(tmp_path: Path, compression: int) -> None:
    rows, width, step = 50_000, 4096, 1000
    with zipfile.ZipFile(tmp_path / "big.npz", "w", compression, compresslevel=1) as archive:
        with archive.open("x.npy", "w") as member:
            np.lib.format.write_array_header_1_0(
                member, {"descr": "|u1", "fortran_order": False, "shape": (rows, width)}
            )
            for start in range(0, rows, step):
                block = np.zeros((step, width), np.uint8)
                block[:, :4] = np.arange(start, start + step, dtype="<u4")[:, None].view(np.uint8)
                member.write(block.tobytes())
        with archive.open("y.npy", "w") as member:
            np.lib.format.write_array(member, np.arange(rows) % 10)
    code = """
        import resource, sys
        import numpy as np
        from edgeopt import data
        from edgeopt.data import binding, checks, dataset, loading, npz
        from edgeopt.vocabulary import TensorSpec

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        def numbers(batches):
            powers = 256 ** np.arange(4)
            return np.concatenate([batch.inputs["x"][:, :4].astype(np.int64) @ powers for batch in batches])

        before = peak()
        loaded = data.load(sys.argv[1], validation_share=0.5)
        data.check(loaded, [TensorSpec("x", (None, 4096))], [TensorSpec("y", (None, 10))])
        loaded.fingerprint()
        assert len(loaded.calibration.arrays()) == 200
        whole = data.load(sys.argv[1], validation_share=1.0).validation
        assert (numbers(whole.batches(100)) == np.arange(50_000)).all()
        mixed = numbers(whole.batches(100, shuffle=True))
        assert (mixed != np.arange(50_000)).any() and (np.sort(mixed) == np.arange(50_000)).all()
        print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "big.npz")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) < rows * width / 2


# --- the sample in calibration_data/ ----------------------------------------------------------------------------------

REPOSITORY = Path(__file__).parents[1]


def test_the_shipped_sample_is_what_its_script_makes(tmp_path: Path) -> None:
    script = REPOSITORY / "calibration_data" / "make.py"
    made = subprocess.run(
        [sys.executable, str(script), "-o", str(tmp_path / "digits.npz")], capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    shipped = REPOSITORY / "calibration_data" / "digits.npz"
    assert shipped.stat().st_size < 40_000
    with np.load(shipped, allow_pickle=False) as one, np.load(tmp_path / "digits.npz", allow_pickle=False) as other:
        assert one.files == other.files == ["x", "y"]
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
        assert np.bincount(one["y"]).tolist() == [30] * CLASSES
    loaded = data.load("digits", calibration=shipped)
    assert data.check(loaded, DIGITS_INPUT, DIGITS_OUTPUT) == ()


def test_a_sample_of_ones_own_data(digits: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_images(tmp_path / "mine", *digits)
    script = [sys.executable, str(REPOSITORY / "calibration_data" / "make.py"), "--data", str(tmp_path / "mine")]
    target = tmp_path / "sample.npz"
    made = subprocess.run([*script, "--samples", "20", "-o", str(target)], capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    assert "x (20, 8, 8, 1) uint8" in made.stdout
    assert np.bincount(np.load(target)["y"]).tolist() == [2] * CLASSES
    again = subprocess.run([*script, "-o", str(target)], capture_output=True, text=True, timeout=120)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "shape", "samples"),
    [("fsdd_logmel", (49, 40, 1), (2700, 300)), ("cifar10_jpeg_12k", (32, 32, 3), (10000, 2000))],
)
def test_real_benchmark_data(shared: Path, name: str, shape: tuple[int, ...], samples: tuple[int, int]) -> None:
    loaded = data.load(shared / "data" / f"{name}.npz")
    assert (len(loaded.training), len(loaded.validation)) == samples
    assert loaded.training.specs == (TensorSpec("x", shape, "float32"),)
    warnings = data.check(loaded, [TensorSpec("in", (None, *shape))], TEN)
    assert [("--scale 1/255" in w) for w in warnings] == ([True] if name.startswith("cifar") else [])
