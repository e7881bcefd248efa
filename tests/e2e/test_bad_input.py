"""Bad input, through the real command line: one clear message, the right status, and nothing touched.

The commands run two at a time from the first test on; each test waits for its own.
"""

from __future__ import annotations

import functools
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command_line import COMMAND, assert_clean, contents, edgeopt, surroundings, temporary_files

Words = list[str]
INT8 = ["--scheme", "int8"]
RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.random((200, 8, 8, 1), np.float32)
HOLE = PICTURES.copy()
HOLE[3, 2, 1, 0] = np.nan
OBJECTS = np.array([{"a": 1}] * 10, dtype=object)
TEXT = b"hello, this is no model\n" * 50
NOISE = RANDOM.bytes(5000)


@dataclass(frozen=True)
class Case:
    """A mistake: `prepare` puts files into a folder and returns the command; `says` is in its message."""

    name: str
    prepare: Callable[[Path, Path], Words]
    says: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    done: subprocess.CompletedProcess[str]
    before: dict[str, str]
    after: dict[str, str]
    leftovers: list[str]


def convert(model: str, *words: str, output: str = "out.tflite") -> Words:
    return ["convert", model, "-o", output, *words]


def optimize(model: str, *words: str, data: str = "digits", output: str = "out") -> Words:
    return ["optimize", model, "--data", data, "-o", output, *words]


def copied(name: str, *words: str, **options: str) -> Callable[[Path, Path], Words]:
    """Converts one of the Keras files."""

    def prepare(folder: Path, keras: Path) -> Words:
        shutil.copy(keras / name, folder)
        return convert(name, *words, **options)

    return prepare


def cut(name: str) -> Callable[[Path, Path], Words]:
    """Converts the first half of one of the Keras files."""

    def prepare(folder: Path, keras: Path) -> Words:
        content = (keras / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        return convert(name)

    return prepare


def file(name: str, content: bytes, *words: str) -> Callable[[Path, Path], Words]:
    """Runs a command on a file of this content."""

    def prepare(folder: Path, _: Path) -> Words:
        (folder / name).write_bytes(content)
        return list(words)

    return prepare


def data(x: np.ndarray, y: np.ndarray | None = None) -> Callable[[Path, Path], Words]:
    """Converts the float digits model to int8 with these samples."""

    def prepare(folder: Path, keras: Path) -> Words:
        np.savez(folder / "data.npz", x=x, y=np.arange(len(x)) % 10 if y is None else y)
        return copied("float.tflite", *INT8, "--data", "data.npz")(folder, keras)

    return prepare


def cut_data(folder: Path, keras: Path) -> Words:
    words = data(PICTURES)(folder, keras)
    content = (folder / "data.npz").read_bytes()
    (folder / "data.npz").write_bytes(content[: len(content) // 2])
    return words


def empty_folder(folder: Path, keras: Path) -> Words:
    (folder / "pictures").mkdir()
    return copied("float.tflite", *INT8, "--data", "pictures")(folder, keras)


def users_file(folder: Path, keras: Path) -> Words:
    (folder / "out.tflite").write_text("the user's own")
    return copied("digits.keras")(folder, keras)


def users_folder(folder: Path, keras: Path) -> Words:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("the user's own")
    shutil.copy(keras / "digits.keras", folder)
    return optimize("digits.keras")


def under_a_file(words: Callable[..., Words], output: str) -> Callable[[Path, Path], Words]:
    def prepare(folder: Path, keras: Path) -> Words:
        shutil.copy(keras / "digits.keras", folder)
        (folder / "taken").write_text("the user's own")
        return words("digits.keras", output=output)

    return prepare


def wrong_data_for_optimize(folder: Path, keras: Path) -> Words:
    shutil.copy(keras / "float.tflite", folder)
    np.savez(folder / "data.npz", x=PICTURES, y=np.arange(200) % 10 + 1)
    return optimize("float.tflite", data="data.npz")


def wrong_data_for_keras(folder: Path, keras: Path) -> Words:
    np.savez(folder / "data.npz", x=RANDOM.random((200, 28, 28), np.float32), y=np.arange(200) % 10)
    return copied("digits.keras", *INT8, "--data", "data.npz")(folder, keras)


def broken_custom_objects(folder: Path, keras: Path) -> Words:
    (folder / "layers.py").write_text("import no_such_package_of_the_user\n")
    return copied("twice.keras", "--custom-objects", "layers.py")(folder, keras)


CASES = [
    Case("missing model", lambda *_: convert("nope.keras"), ("nope.keras, which does not exist",)),
    Case("missing model, optimize", lambda *_: optimize("nope.keras"), ("nope.keras, which does not exist",)),
    Case("truncated .keras", cut("digits.keras"), ("damaged or truncated .keras archive", "Try copying it again")),
    Case("truncated .h5", cut("keras2.h5"), ("damaged or truncated HDF5 file", "Try copying it again")),
    Case("truncated .tflite", file("m.tflite", b"\x1c\0\0\0TFL3" + NOISE, *convert("m.tflite")), ("corrupt",)),
    Case("text as .tflite", file("m.tflite", TEXT, "inspect", "m.tflite"), ("m.tflite is no .tflite file",)),
    Case("text as .keras", file("m.keras", TEXT, *convert("m.keras")), ("which is a text file",)),
    Case("empty .keras", file("m.keras", b"", *convert("m.keras")), ("which is empty",)),
    Case("random bytes", file("m", NOISE, *convert("m")), ("no model format that is known here",)),
    Case("random .tflite", file("m.tflite", NOISE, "inspect", "m.tflite"), ("m.tflite is no .tflite file",)),
    Case("missing .tflite", lambda *_: ["evaluate", "m.tflite", "--data", "digits"], ("m.tflite", "No such file")),
    Case("one of two missing", lambda *_: ["compare", "a.tflite", "b.tflite", "--data", "digits"], ("a.tflite",)),
    Case("Lambda", copied("lambda.keras"), ("a Lambda layer 'doubled'", "Try --trust if you trust its author")),
    Case("custom layer", copied("twice.keras"), ("custom class 'Twice'", "Try --custom-objects FILE.py")),
    Case("broken custom objects", broken_custom_objects, ("layers.py raised ModuleNotFoundError",)),
    Case("int8 without data", copied("digits.keras", *INT8), ("Try --data FILE", "--scheme dynamic")),
    Case("pickled data", data(OBJECTS), ("pickled objects, which can run code", "Try to re-save it")),
    Case("28x28 for 8x8", wrong_data_for_keras, ("Expected (8, 8, 1)", "Try --resize 8x8")),
    Case("wrong rank", data(RANDOM.random((200, 5), np.float32)), ("Expected (8, 8, 1) per sample", "got (5,)")),
    Case("NaN", data(HOLE), ("Expected finite numbers", "got NaN in 1 of")),
    Case("labels from 1", data(PICTURES, np.arange(200) % 10 + 1), ("labels from 0 to 9", "labels that start at 0")),
    Case("labels from 1, optimize", wrong_data_for_optimize, ("labels from 0 to 9", "labels that start at 0")),
    Case("too few labels", data(PICTURES, np.arange(99)), ("as many labels as samples", "x has 200, y has 99")),
    Case("truncated data", cut_data, ("damaged, truncated or missing file", "Try writing or downloading it again")),
    Case("missing data", copied("digits.keras", *INT8, "--data", "nope.npz"), ("nope.npz, which does not exist",)),
    Case("empty folder as data", empty_folder, ("Expected images", "in pictures, got none")),
    Case(
        "float16 for TFLM",
        copied("digits.keras", "--scheme", "float16", "--runtime", "tflm"),
        ("out.tflite was not written: tflm", "Try another --scheme"),
    ),
    Case(
        "a batch that no memory holds",
        copied("digits.keras", "--batch-size", "100000000"),
        ("out.tflite was not written: litert", "litert refused out.tflite", "when converting. Try another --scheme"),
    ),
    Case("another ending", copied("digits.keras", output="out.bin"), ("ending in .tflite", "Try out.tflite")),
    Case("existing output", users_file, ("out.tflite exists already", "--force to overwrite it")),
    Case("somebody's folder", users_folder, ("holds files that edgeopt did not write", "Try another folder")),
    Case("output under a file", under_a_file(convert, "taken/out.tflite"), ("Could not write taken/out.tflite",)),
    Case("output folder is a file", under_a_file(optimize, "taken"), ("got taken, which is a file",)),
    Case("output folder under a file", under_a_file(optimize, "taken/out"), ("Could not write taken/out",)),
]
if os.path.isdir("/proc/self"):
    CASES.append(Case("output in /proc", under_a_file(convert, "/proc/out.tflite"), ("Could not write /proc/out.tfl",)))


def outcome(case: Case, folder: Path, keras: Path) -> Outcome:
    folder.mkdir()
    words = case.prepare(folder, keras)
    before = contents(folder)
    done = edgeopt(*words, folder=folder)
    return Outcome(done, before, contents(folder), [path.name for path in temporary_files(folder).iterdir()])


@pytest.fixture(scope="module")
def outcomes(keras_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    folder = tmp_path_factory.mktemp("bad")
    with ThreadPoolExecutor(2) as pool:
        yield {
            case.name: pool.submit(outcome, case, folder / f"case-{number}", keras_files)
            for number, case in enumerate(CASES)
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mistakes_are_told_and_change_nothing(case: Case, outcomes: dict[str, Future[Outcome]]) -> None:
    result = outcomes[case.name].result()
    said = " ".join(result.done.stderr.split())
    assert result.done.returncode == 2, said
    assert said.startswith("Error: ")
    for fragment in case.says:
        assert fragment in said
    assert result.done.stdout == ""
    assert_clean(result.done)
    assert result.after == result.before
    assert result.leftovers == []


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 KB: a fifth of the model's float file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (it takes root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    "words", [pytest.param(convert, marks=pytest.mark.slow), optimize], ids=["convert", "optimize"]
)
def test_a_full_disk(words: Callable[..., Words], tiny_disk: Path, digits_model: Path, tmp_path: Path) -> None:
    (tiny_disk / "own.txt").write_text("the user's own")
    place = tmp_path / "place"
    place.mkdir()
    output = {convert: "out.tflite", optimize: "out"}[words]
    done = edgeopt(*words(str(digits_model), output=str(tiny_disk / output)), folder=place)
    assert done.returncode == 2
    assert "No space left on device. Try another output path." in " ".join(done.stderr.split())
    assert_clean(done)
    left = {name for name, content in contents(tiny_disk).items() if content and not name.startswith("out/.edgeopt/")}
    assert left == {"own.txt"}


def test_a_full_folder_of_temporary_files(digits_model: Path, tmp_path: Path) -> None:
    """No file may grow past 4 KB: TensorFlow cannot store its own intermediate files."""
    done = subprocess.run(
        [*COMMAND, *convert(str(digits_model))],
        cwd=tmp_path,
        env=surroundings(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 2, done.stderr
    assert "temporary files cannot be written (File too large). Try TMPDIR=FOLDER" in " ".join(done.stderr.split())
    assert_clean(done)
    assert contents(tmp_path) == {}
