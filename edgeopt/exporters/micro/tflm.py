"""A `.tflite` file goes in, a project around TFLM comes out: the bytes, its operators, its arena, a C interface, a
self-test, and build files for CMake, ESP-IDF, Zephyr, Arduino and PlatformIO.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import files
from edgeopt.exporters import golden, streaming
from edgeopt.exporters.contract import Project, Source
from edgeopt.exporters.micro import fitness, operators, settings_header
from edgeopt.exporters.micro.rendering import project_values, render
from edgeopt.exporters.micro.states import stream_files
from edgeopt.runtimes import tflm
from edgeopt.runtimes.state import variables
from edgeopt.tflite import lifetimes, rewrite
from edgeopt.tflite.signatures import main_alone

if TYPE_CHECKING:
    from edgeopt.exporters.micro import Micro
    from edgeopt.tflite.model import TFLiteModel

_ALIGNMENT_BYTES = 16
# TFLM's names of dtypes.
_TYPES: dict[str, str] = {
    "int8": "kTfLiteInt8",
    "uint8": "kTfLiteUInt8",
    "int16": "kTfLiteInt16",
    "int32": "kTfLiteInt32",
    "int64": "kTfLiteInt64",
    "bool": "kTfLiteBool",
    "float32": "kTfLiteFloat32",
}
_BYTES_A_LINE = 20
_NOTES = ("the arena was measured with TFLM's reference kernels: ESP-NN and other optimized ones may ask for more",)
_NPU_NOTES = (
    "nothing on this machine runs an Ethos-U: the arena is estimated, and the self-test has no outputs to compare",
    "TFLM has to be built with Arm's driver, and the app has to start it; README.md says how",
)
# What TFLM itself reads: where Vela has placed the tensors, and how weights are compressed.
_READ_BY_TFLM = ("OfflineMemoryAllocation", "COMPRESSION_METADATA")
# What the interpreter takes beside the tensors, on a 64-bit host: itself, and for each tensor and operator.
_INTERPRETER_BYTES, _ENTRY_BYTES = 4096, 128
# Path in the project by template; {name} is the model's.
_FILES: dict[str, str] = {
    "tflm/model.h": "src/{name}.h",
    "tflm/model.cpp": "src/{name}.cpp",
    "tflm/data.h": "src/{name}_data.h",
    "tflm/data.cpp": "src/{name}_data.cpp",
    "tflm/selftest.h": "src/{name}_selftest.h",
    "tflm/selftest.cpp": "src/{name}_selftest.cpp",
    "tflm/main.cpp": "selftest/main.cpp",
    "tflm/CMakeLists.txt": "CMakeLists.txt",
    "tflm/idf_component.yml": "idf_component.yml",
    "tflm/zephyr_module.yml": "zephyr/module.yml",
    "tflm/zephyr_CMakeLists.txt": "zephyr/CMakeLists.txt",
    "tflm/zephyr_selftest_CMakeLists.txt": "zephyr/selftest/CMakeLists.txt",
    "tflm/zephyr_prj.conf": "zephyr/selftest/prj.conf",
    "tflm/library.properties": "library.properties",
    "tflm/selftest.ino": "examples/{name}_selftest/{name}_selftest.ino",
    "tflm/library.json": "library.json",
    "tflm/README.md": "README.md",
}


def project(source: Source, settings: Micro) -> Project:
    """Returns the project; `source` has passed `fitness.require_fit`.

    Raises:
        ConfigError: it is to stream and remembers nothing.
        ModelError: TFLM refuses the file, or has no kernel for one of its operators.
        UnavailableError: tflite-micro is not installed.
    """
    registrations = operators.registrations(source.model, source.file.name)
    own = any(code.custom and code.name != operators.NPU for code in source.model.codes)
    remembers = streaming.remembers(source, streaming=settings.streaming, own=own)
    on_npu = any(code.name == operators.NPU for code in source.model.codes)
    expected = [] if on_npu else golden.expected(source, "tflm")
    content = _stripped(source) if on_npu else lean(source, expected)
    minimum = _estimated_arena(source.model) if on_npu else measured_arena(content, source.file.name).minimum
    arena = _aligned(minimum * (1 + settings.arena_margin))
    values: dict[str, Any] = {
        **project_values(source, expected),
        "types": _TYPES,
        "registrations": registrations,
        "size_bytes": len(content),
        "lines": _hexadecimal(content),
        "minimum_bytes": minimum,
        "arena_bytes": arena,
        "margin": f"{settings.arena_margin:.0%}",
        "variables": variables(source.model),
        "remembers": remembers,
        "streaming": settings.streaming,
        "on_npu": on_npu,
    }
    made = {path.format(name=source.name): render(template, **values) for template, path in _FILES.items()}
    header, code = f"src/{source.name}_stream.h", f"src/{source.name}_stream.cpp"
    made |= stream_files(source, values, header=header, code=code, fails=True)
    made[f"src/{settings_header.file_name(source)}"] = settings_header.settings_header(source)
    saved = len(source.content) - len(content)
    return Project(
        made,
        facts={
            "model_bytes": len(content),
            "left_out_bytes": saved,
            "arena_bytes": arena,
            "arena_needed_bytes": minimum,
            "operators": ", ".join(method.removeprefix("Add") for method in registrations),
            "golden_samples": len(expected),
        },
        notes=(*fitness.notes(source), *_old_runtimes(source), *(_NPU_NOTES if on_npu else _NOTES)),
        next_steps=(
            "cmake -S . -B build -DTFLM_INCLUDE_DIR=… -DTFLM_LIBRARY=…/libtensorflow-microlite.a",
            "cmake --build build",
            "ctest --test-dir build",
        ),
    )


def lean(source: Source, expected: list[dict[str, np.ndarray]]) -> bytes:
    """Returns the file without what no device reads: names inside the graph, signatures, metadata, description.

    Of several signatures the main graph's stays.

    Its outputs on TFLM are compared with `expected`, bit for bit; where they differ the file stays as it is.

    Raises:
        ModelError, UnavailableError: see `project`.
    """
    content = _stripped(source)
    outputs = golden.expected(replace(source, content=content), "tflm")
    same = all(np.array_equal(one[k], other[k], equal_nan=True) for one, other in zip(outputs, expected) for k in other)
    return content if same else source.content


def _stripped(source: Source) -> bytes:
    interface = (*source.model.main.inputs, *source.model.main.outputs)
    names = dict(zip(interface, (spec.name for spec in (*source.model.inputs, *source.model.outputs))))

    def strip(model: Any, schema: Any) -> None:
        model.description, model.signatureDefs = None, []
        rewrite.drop_metadata(model, keep=lambda name: name in _READ_BY_TFLM)
        for number, graph in enumerate(model.subgraphs):
            graph.name = None
            for index, tensor in enumerate(graph.tensors):
                tensor.name = names.get(index) if number == 0 else None

    return rewrite.changed(main_alone(source.content), strip)


def _estimated_arena(model: TFLiteModel) -> int:
    """Returns the arena of a file that Vela compiled: its plan of the tensors, and what the interpreter takes."""
    entries = _INTERPRETER_BYTES + _ENTRY_BYTES * (len(model.main.tensors) + len(model.main.operators))
    alive = {life.tensor.index: life.size_bytes for life in lifetimes.lifetimes(model)}
    if "OfflineMemoryAllocation" not in model.metadata:
        return sum(alive.values()) + entries
    # Version, subgraph, count; then an offset for each tensor, -1 where TFLM plans it.
    raw = bytes(model.buffer(model.metadata["OfflineMemoryAllocation"]))
    offsets = [int.from_bytes(raw[i : i + 4], "little", signed=True) for i in range(12, len(raw) - 3, 4)]
    planned = {index: offset for index, offset in enumerate(offsets) if offset >= 0 and index in alive}
    planned_bytes = max((offset + alive[index] for index, offset in planned.items()), default=0)
    return planned_bytes + sum(size for index, size in alive.items() if index not in planned) + entries


def measured_arena(content: bytes, name: str) -> tflm.Arena:
    """Returns the arena that a file called `name` needs; see `runtimes.tflm.measured_arena`."""
    with files.temporary(content, name) as file:
        return tflm.measured_arena(file)


def _old_runtimes(source: Source) -> tuple[str, ...]:
    graph = source.model.main
    for operator in graph.operators:
        weights = graph.operand(operator, 1)
        if operator.name == "FULLY_CONNECTED" and weights is not None and weights.is_per_channel:
            return (
                "FULLY_CONNECTED has a scale per channel here: TFLM of before 29 May 2024 computes that wrongly "
                "without a word, and refuses it until 27 September 2024; run the self-test on the TFLM that ships",
            )
    return ()


def _aligned(size_bytes: float) -> int:
    return math.ceil(size_bytes / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _hexadecimal(content: bytes) -> list[str]:
    rows = (content[i : i + _BYTES_A_LINE] for i in range(0, len(content), _BYTES_A_LINE))
    return [", ".join(f"0x{byte:02x}" for byte in row) for row in rows]
