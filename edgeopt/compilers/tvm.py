"""TVM: a `.tflite` or `.onnx` goes in, a shared library with its code comes out, for this machine or another.

Integer files are imported as what they stand for: each operator reads integers, computes in float32 and rounds again.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeopt import formats, frameworks, trust, workers
from edgeopt.compilers import tvm_schedules
from edgeopt.compilers.contract import Compiled
from edgeopt.errors import ConversionError, UnavailableError
from edgeopt.formats.contract import FileFacts
from edgeopt.formats.sealed import Library, Tuning, sealed
from edgeopt.tflite.model import printable
from edgeopt.tflite.rewrite import without_sparsity
from edgeopt.tflite.simulating import in_floats
from edgeopt.vocabulary import TensorSpec

_CUT_OFF = ("AVERAGE_POOL_2D",)
# Architecture → the linker of its libraries, and what installs it.
LINKERS = {"aarch64": ("aarch64-linux-gnu-gcc", "apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross")}


def compile_content(content: bytes, settings: Mapping[str, str]) -> Compiled:
    """Returns a file as a shared library, which says in its tail what it computes.

    Args:
        content: of a `.tflite` or `.onnx` whose sizes are fixed; a batch that is free is 1 in the code.
        settings: `processor` as TRIPLE/CPU of LLVM, "aarch64-linux-gnu/cortex-a72"; "" for this machine's. `tune`: the
            seconds in which faster kernels are searched for, on this machine's alone; "" for none.

    Raises:
        ConversionError: TVM has no such operators, or dies on the file.
        UnavailableError: no linker for that processor is here.
    """
    try:
        found: bytes = workers.shared("tvm").call(
            "edgeopt.compilers.tvm:built", content, settings["processor"], float(settings["tune"] or 0)
        )
    except workers.WorkerCrashed as crash:
        raise ConversionError(f"TVM died on the file: {crash.reason}. Try a .tflite for LiteRT.") from None
    trust.trust(found)
    return Compiled(found)


def built(content: bytes, processor: str, tune_s: float = 0) -> bytes:
    """As `compile_content`, in this process."""
    tvm = frameworks.load("tvm")
    triple, cpu = wanted_processor(tvm, processor)
    linker = _linker(triple)
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        source = Path(folder) / ("model.tflite" if content[4:8] == b"TFL3" else "model.onnx")
        source.write_bytes(content)
        facts = _of_one(formats.facts(source))
        module = _imported(content, facts)
        target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
        library = Path(folder) / "model.so"
        try:
            kernels, tuning = _through(module, target, "library_dispatch_passes", "legalize_passes"), None
            if tune_s:
                kernels, tuning = tvm_schedules.tuned(kernels, target, tune_s)
            else:
                kernels = tvm_schedules.scheduled(kernels)
            lowered = _through(kernels, target, "dataflow_lower_passes", "finalize_passes")
            tvm.compile(lowered, target=target, relax_pipeline=None).export_library(str(library), cc=linker)
        except Exception as error:  # of every kind
            raise _refusal(f"one on which TVM fails ({_words(error)})") from error
        return sealed(library.read_bytes(), _library(facts, triple, cpu, tuning))


def _through(module: Any, target: Any, *names: str) -> Any:
    """Returns a module after some stages of TVM's own pipeline for processors."""
    stages = frameworks.load("tvm_cpu_passes")
    with target:
        passes = [one for name in names for one in getattr(stages, name)(target)]
        return frameworks.load("tvm").transform.Sequential(passes)(module)


def wanted_processor(tvm: Any, text: str) -> tuple[str, str]:
    """Returns the triple and the CPU that "TRIPLE/CPU" means, those of this machine for ""."""
    own = tvm.target.codegen.llvm_get_system_triple(), tvm.target.codegen.llvm_get_system_cpu()
    if not text:
        return own
    triple, _, cpu = text.partition("/")
    return triple, cpu or own[1]


def _imported(content: bytes, facts: FileFacts) -> Any:
    """Returns the file as TVM's own module.

    Raises:
        ConversionError: TVM has no counterpart of an operator.
    """
    try:
        if facts.format == "onnx":
            model = frameworks.load("onnx").ModelProto.FromString(content)
            found = frameworks.load("tvm_from_onnx").from_onnx(
                model, {spec.name: list(spec.shape) for spec in facts.inputs}
            )
        else:
            model = frameworks.load("tflite_schema").Model.GetRootAsModel(_prepared(content), 0)
            found = frameworks.load("tvm_from_tflite").from_tflite(model)
    except Exception as error:  # of every kind
        raise _refusal(_unknown(error, facts)) from error
    return found


def _prepared(content: bytes) -> bytes:
    """Returns a `.tflite` in a form that TVM computes rightly: it cuts integer means off where LiteRT rounds them."""
    return in_floats(without_sparsity(content), _CUT_OFF)


def _unknown(error: Exception, facts: FileFacts) -> str:
    """Says which operators TVM does not know, with the layer of the first, or what it says itself."""
    names = set(re.findall(r"'(\w+)'", str(error)))
    found = [operator for operator in facts.operators if operator.name in names]
    if not found:
        return f"one on which TVM fails ({_words(error)})"
    if facts.format == "tflite" and "dynamic range" in str(error):
        return f"dynamic range in {found[0].name} {found[0].layer!r}, of which TVM has no kernels"
    counted = ", ".join(f"{count} {name}" for name, count in Counter(one.name for one in found).items())
    return f"{counted} ({found[0].layer!r}), which TVM cannot import"


def _of_one(facts: FileFacts) -> FileFacts:
    """Returns the facts of a file with a free batch as 1.

    Raises:
        ConversionError: more is free, which TVM would have to know.
    """
    for spec in facts.inputs:
        if None in spec.shape[1:]:
            sizes = ", ".join("any" if size is None else str(size) for size in spec.shape)
            raise ConversionError(
                f"Expected a file whose sizes are fixed, as TVM compiles for them, got [{sizes}] as {spec.name!r}. "
                "Try converting the model with --shape."
            )

    def fixed(specs: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(replace(spec, shape=(*(n or 1 for n in spec.shape[:1]), *spec.shape[1:])) for spec in specs)

    return replace(facts, inputs=fixed(facts.inputs), outputs=fixed(facts.outputs))


def _linker(triple: str) -> str:
    """Returns the program that links libraries of a triple.

    Raises:
        UnavailableError: it is not here.
    """
    architecture = triple.split("-")[0]
    name, install = ("cc", "apt-get install gcc") if architecture == platform.machine() else LINKERS[architecture]
    if shutil.which(name) is None:
        raise UnavailableError(f"{name} is needed to link code for {architecture} but is not here. Try: {install}.")
    return name


def _library(facts: FileFacts, triple: str, cpu: str, tuning: Tuning | None) -> Library:
    in_floats = facts.is_quantized
    operators = tuple(
        replace(operator, weights=(), float_arithmetic=operator.float_arithmetic or (in_floats and operator.macs > 0))
        for operator in facts.operators
    )
    return Library(
        facts.inputs,
        facts.outputs,
        operators,
        facts.macs,
        facts.parameters,
        facts.is_quantized,
        f"{facts.computes}, each operator in float32" if in_floats else facts.computes,
        triple,
        cpu,
        facts.format,
        frameworks.installed_version("tvm") or "",
        tuning=tuning,
    )


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1] if lines else type(error).__name__)


def _refusal(what: str) -> ConversionError:
    return ConversionError(
        f"Expected a file of operators that TVM has as well, got {what}. Try a .tflite for LiteRT, or the model "
        "without that layer."
    )
