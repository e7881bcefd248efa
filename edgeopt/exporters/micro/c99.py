"""A `.tflite` file goes in, a project of plain C99 comes out: its library, a self-test, and a CMake build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt import c99, frameworks
from edgeopt.exporters import golden
from edgeopt.exporters.contract import Project, Source
from edgeopt.exporters.micro import fitness, settings_header
from edgeopt.exporters.micro.proof import prove
from edgeopt.exporters.micro.rendering import project_values, render
from edgeopt.runtimes import RUNTIMES

if TYPE_CHECKING:
    from edgeopt.exporters.micro import Micro


@dataclass(frozen=True)
class _Reference:
    """What the golden outputs come from, and by how many quantization steps it may differ from what is exported."""

    runtime: str
    called: str
    steps: int = 0


# By rounding.
_REFERENCES: dict[str, _Reference] = {
    "tflm": _Reference("tflm", "TensorFlow Lite Micro"),
    "xnnpack": _Reference("litert", "LiteRT with XNNPACK"),
}
# Where tflite-micro is not installed. On real int8 models the two families differ by up to 0.03 of 256 steps.
_WITHOUT_TFLM = _Reference("litert-reference", "LiteRT's reference kernels", steps=8)
# Path in the project by template; {name} is the model's.
_FILES: dict[str, str] = {
    "c99/CMakeLists.txt": "CMakeLists.txt",
    "c99/README.md": "README.md",
    "c99/main.c": "selftest/main.c",
    "c99/selftest.h": "selftest/{name}_selftest.h",
    "c99/selftest.c": "selftest/{name}_selftest.c",
}


def project(source: Source, settings: Micro) -> Project:
    """Returns the project; `source` has passed `fitness.require_fit`.

    Raises:
        ModelError: the C99 engine lacks an operator of the file, the runtime of the golden outputs refuses it, or the
            generated C computes something else, compiled and run here.
        UnavailableError: that runtime is not installed, or the C compiler that is does not compile.
    """
    library = c99.generate(source.model, name=source.name, rounding=settings.rounding)
    reference = _reference(settings.rounding)
    expected = golden.expected(source, reference.runtime)
    values: dict[str, Any] = {
        **project_values(source, expected),
        "library": library,
        "reference": reference.called,
        "steps": reference.steps,
        "bit_exact": all(spec.dtype != "float32" for spec in source.model.outputs),
        "needs_math": "<math.h>" in library.files[f"src/{source.name}.c"],
    }
    files: dict[str, bytes | str] = dict(library.files)
    files |= {path.format(name=source.name): render(template, **values) for template, path in _FILES.items()}
    files[f"include/{settings_header.file_name(source)}"] = settings_header.settings_header(source)
    return Project(
        files,
        facts={
            "arena_bytes": library.arena_bytes,
            "scratch_bytes": library.scratch_bytes,
            "weights_bytes": library.weights_bytes,
            "peak_operator": library.peak_operator,
            "rounding": library.rounding,
            "golden_samples": len(source.samples),
            "self_test": prove(files, source.name),
        },
        notes=(*fitness.notes(source), *_doubts(reference)),
        next_steps=("cmake -S . -B build", "cmake --build build", "ctest --test-dir build"),
    )


def _reference(rounding: str) -> _Reference:
    reference = _REFERENCES[rounding]
    if reference.runtime == "tflm" and frameworks.installed_version(RUNTIMES["tflm"].package) is None:
        return _WITHOUT_TFLM
    return reference


def _doubts(reference: _Reference) -> tuple[str, ...]:
    if not reference.steps:
        return ()
    return (
        f"the self-test compares with {reference.called}, within {reference.steps} quantization steps: tflite-micro, "
        "which gives these integers bit for bit, is not installed (pip install 'edgeopt[micro]', then export anew)",
    )
