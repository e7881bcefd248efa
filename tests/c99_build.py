"""Generated C99 on this machine: compiled by gcc with its sanitizers, run through pipes, beside the reference runtime.

Its functions `outputs` and `random_samples` also run in workers.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeopt import c99, runtimes, workers
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import TensorSpec

REFERENCES = {"tflm": "tflm", "xnnpack": "litert"}
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

_DRIVER = """
#include <stdio.h>
#include "{name}.h"

static const size_t in_bytes[] = {{{inputs}}};
static const size_t out_bytes[] = {{{outputs}}};

int main(void) {{
    for (;;) {{
        for (int i = 0; i < {NAME}_INPUTS; i++) {{
            if (fread({name}_input(i), 1, in_bytes[i], stdin) != in_bytes[i]) return 0;
        }}
        {name}_invoke();
        for (int i = 0; i < {NAME}_OUTPUTS; i++) fwrite({name}_output(i), 1, out_bytes[i], stdout);
    }}
}}
"""

Sample = Mapping[str, np.ndarray]


def require_gcc() -> str:
    """Returns gcc, or skips the test."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here: install gcc")
    return compiler


def shape(spec: TensorSpec) -> tuple[int, ...]:
    """Returns a shape with 1 for a free batch."""
    return tuple(size or 1 for size in spec.shape)


def write(library: c99.Library, folder: Path) -> None:
    """Writes the files of a library."""
    for path, text in library.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def run(
    library: c99.Library, samples: Sequence[Sample], flags: Sequence[str] = SANITIZED
) -> list[dict[str, np.ndarray]]:
    """Compiles the library and runs it on each sample."""
    compiler = require_gcc()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(library, folder)
        sizes = [
            ", ".join(str(np.dtype(spec.dtype).itemsize * int(np.prod(shape(spec)))) for spec in specs)
            for specs in (library.inputs, library.outputs)
        ]
        driver = folder / "driver.c"
        driver.write_text(
            _DRIVER.format(name=library.name, NAME=library.name.upper(), inputs=sizes[0], outputs=sizes[1])
        )
        sources = [*sorted((folder / "src").glob("*.c")), driver]
        command = [compiler, *STRICT, *flags, "-I", folder / "include", *sources, "-lm", "-o", folder / "program"]
        built = subprocess.run(command, capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        data = b"".join(np.ascontiguousarray(sample[s.name]).tobytes() for sample in samples for s in library.inputs)
        done = subprocess.run([folder / "program"], input=data, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
    return _split(done.stdout, library.outputs, len(samples))


def _split(data: bytes, specs: Sequence[TensorSpec], count: int) -> list[dict[str, np.ndarray]]:
    results, at = [], 0
    for _ in range(count):
        result = {}
        for spec in specs:
            elements = int(np.prod(shape(spec)))
            result[spec.name] = np.frombuffer(data, spec.dtype, elements, at).reshape(shape(spec))
            at += elements * np.dtype(spec.dtype).itemsize
        results.append(result)
    assert at == len(data)
    return results


def random_samples(content: bytes, count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Returns inputs: every int8 equally likely, floats normal."""
    random = np.random.default_rng(seed)

    def values(spec: TensorSpec) -> np.ndarray:
        if spec.dtype == "float32":
            return random.normal(size=shape(spec)).astype(np.float32)
        return random.integers(-128, 128, shape(spec)).astype(spec.dtype)

    return [{spec.name: values(spec) for spec in read(content).inputs} for _ in range(count)]


def expected(content: bytes, samples: Sequence[Sample], rounding: str) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of the runtime that rounds so, or skips where it is not installed."""
    row = runtimes.RUNTIMES[REFERENCES[rounding]]
    with_it = workers.shared(row.package)
    return list(with_it.call("c99_build:outputs", content, list(samples), row.name))


def outputs(content: bytes, samples: Sequence[Sample], runtime: str) -> list[dict[str, np.ndarray]]:
    """Runs the samples on a runtime in this process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        file.write_bytes(content)
        session = runtimes.open_session(file, runtimes.RUNTIMES[runtime])
        results = [session.run(sample) for sample in samples]
        session.close()
    return results


def check(
    content: bytes, rounding: str, *, samples: Sequence[Sample] | None = None, count: int = 4, pack: str = "auto"
) -> c99.Library:
    """Asserts that the C code gives the runtime's outputs: integers bit for bit, floats within 1e-5 of the largest."""
    taken = samples if samples is not None else random_samples(content, count)
    library = c99.generate(read(content), name="net", rounding=rounding, pack=pack)
    for got, wanted in zip(run(library, taken), expected(content, taken, rounding)):
        for name, value in wanted.items():
            if value.dtype == np.float32:
                scale = max(1.0, float(np.abs(value).max()))
                np.testing.assert_allclose(got[name] / scale, value / scale, atol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(got[name], value, err_msg=f"{name}, {rounding}")
    return library
