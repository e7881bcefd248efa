"""A `.tflite` file goes in, a project of plain C99 comes out: its library, a self-test, and a CMake build."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt import c99, frameworks
from edgeopt.exporters import golden
from edgeopt.exporters.contract import Project, Source
from edgeopt.exporters.micro import fitness, settings_header
from edgeopt.exporters.micro.proof import prove
from edgeopt.exporters.micro.rendering import project_values, render
from edgeopt.exporters.micro.states import stream_files
from edgeopt.runtimes import RUNTIMES
from edgeopt.tflite.stored_weights import layers, stored_weights, with_weights

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
    library = c99.generate(source.model, name=source.name, rounding=settings.rounding, pack=settings.pack)
    reference = _reference(settings.rounding)
    expected = golden.expected(_readable(source, reference), reference.runtime)
    cost = _packed(library, source, settings)
    values: dict[str, Any] = {
        **project_values(source, expected),
        "library": library,
        **cost,
        "reference": reference.called,
        "steps": reference.steps,
        "bit_exact": all(spec.dtype != "float32" for spec in source.model.outputs),
        "needs_math": "<math.h>" in library.files[f"src/{source.name}.c"],
    }
    files: dict[str, bytes | str] = dict(library.files)
    files |= {path.format(name=source.name): render(template, **values) for template, path in _FILES.items()}
    header, code = f"include/{source.name}_stream.h", f"src/{source.name}_stream.c"
    files |= stream_files(source, values, header=header, code=code, fails=False)
    files[f"include/{settings_header.file_name(source)}"] = settings_header.settings_header(source)
    return Project(
        files,
        facts={
            "arena_bytes": library.arena_bytes,
            "scratch_bytes": library.scratch_bytes,
            "weights_bytes": library.weights_bytes,
            "peak_operator": library.peak_operator,
            "rounding": library.rounding,
            **cost,
            "golden_samples": len(source.samples),
            "self_test": prove(files, source.name),
        },
        notes=(*fitness.notes(source), *_left(library), *_doubts(reference)),
        next_steps=("cmake -S . -B build", "cmake --build build", "ctest --test-dir build"),
    )


def _reference(rounding: str) -> _Reference:
    reference = _REFERENCES[rounding]
    if reference.runtime == "tflm" and frameworks.installed_version(RUNTIMES["tflm"].package) is None:
        return _WITHOUT_TFLM
    return reference


def _readable(source: Source, reference: _Reference) -> Source:
    """Returns the file with the same weights in 8 bits where the reference is not LiteRT, whose kernels read fewer.

    TFLM has no int2, and int4 in some of its kernels only; what its kernels compute with is the same either way.
    """
    narrow = {
        layer.weight.index: replace(stored, bits=8)
        for layer in layers(source.model)
        if (stored := stored_weights(source.model, layer)) is not None and stored.bits < 8
    }
    if reference.runtime == "litert" or not narrow:
        return source
    return replace(source, content=with_weights(source.content, narrow))


def _packed(library: c99.Library, source: Source, settings: Micro) -> dict[str, Any]:
    """What packing saves and costs; nothing where it did nothing."""
    if not library.packed:
        return {}
    plain = c99.generate(source.model, name=source.name, rounding=settings.rounding, pack="never")
    return {
        "packed_operators": len(library.packed),
        "packed_saves_bytes": plain.weights_bytes - library.weights_bytes,
        "packed_more_arena_bytes": library.arena_bytes - plain.arena_bytes,
        "packed_more_instructions": f"about {library.more_instructions:.0%}",
    }


def _left(library: c99.Library) -> tuple[str, ...]:
    if not library.left:
        return ()
    saved = sum(row.saved_bytes - _saved(library, name) for name, row in library.left.items())
    names = list(library.left)
    some = ", ".join(names if len(names) < 4 else [*names[:2], f"and {len(names) - 2} more"])
    return (
        f"not packed, or in more bits, because looking weights up takes long there: {some}; "
        f"--pack always saves {saved:,} more bytes",
    )


def _saved(library: c99.Library, name: str) -> int:
    return library.packed[name].saved_bytes if name in library.packed else 0


def _doubts(reference: _Reference) -> tuple[str, ...]:
    if not reference.steps:
        return ()
    return (
        f"the self-test compares with {reference.called}, within {reference.steps} quantization steps: tflite-micro, "
        "which gives these integers bit for bit, is not installed (pip install 'edgeopt[micro]', then export anew)",
    )
