"""Compilers: an artifact goes in; the one that a device runs instead, and what it will cost, come out.

Every compiler is one module with `compile_content(content, settings)`; the table below is all that is known of it
elsewhere, and a target's data say which one it has, with which settings.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edgeopt import frameworks
from edgeopt.compilers.contract import Compiled
from edgeopt.errors import UnavailableError
from edgeopt.schemes import BLOCKS


@dataclass(frozen=True)
class Compiler:
    """A row of COMPILERS.

    Attributes:
        name: as in a target's `compiler`, and in an artifact's `made_by`.
        title: what it is called in sentences.
        hardware: what it compiles for, in words.
        module: where `compile_content(content, settings)` is, which gives a Compiled or raises a ConversionError.
        takes, makes: keys of `formats.FORMATS`; what models are made in on the way to it comes first.
        suffix: of what it makes, with that of the format at its end.
        needs: key of `frameworks.FRAMEWORKS`.
        settings: what it has to be told, all of it.
        marks: operators that stand in what it made, and in no other file.
        sources: for a scheme that it makes the scheme of the file that it starts from; empty where it changes none.
        asks: what the compiler before it is told, where it takes no converter's file.
        summary: one line for docs.
    """

    name: str
    title: str
    hardware: str
    module: str
    takes: tuple[str, ...]
    makes: str
    suffix: str
    needs: str
    settings: tuple[str, ...]
    marks: frozenset[str]
    summary: str
    sources: Mapping[str, str] = field(default_factory=dict)
    asks: Mapping[str, str] = field(default_factory=dict)


COMPILERS: dict[str, Compiler] = {
    row.name: row
    for row in (
        Compiler(
            "vela",
            "Vela",
            "an Ethos-U",
            "edgeopt.compilers.vela",
            takes=("tflite",),
            makes="tflite",
            suffix=".vela.tflite",
            needs="vela",
            settings=("accelerator", "system", "memory_mode"),
            marks=frozenset({"ethos-u"}),
            summary="Arm's compiler for Ethos-U NPUs, and its model of their time and memory",
        ),
        Compiler(
            "tf2onnx",
            "tf2onnx",
            "ONNX Runtime",
            "edgeopt.compilers.onnx",
            takes=("tflite",),
            makes="onnx",
            suffix=".onnx",
            needs="tf2onnx",
            settings=("scheme", "calibration", "symmetric", "samples", "opset"),
            marks=frozenset(),
            summary="from TensorFlow Lite to ONNX, with the same integers and scales",
            sources={
                **{name: name for name in ("float32", "int8", "int8-float-io", "int8-per-tensor")},
                **dict.fromkeys(("float16", "dynamic", *(f"int4-block{size}" for size in BLOCKS)), "float32"),
            },
        ),
        Compiler(
            "tvm",
            "TVM",
            "a processor",
            "edgeopt.compilers.tvm",
            takes=("tflite", "onnx"),
            makes="tvm",
            suffix=".so",
            needs="tvm",
            settings=("processor", "tune"),
            marks=frozenset(),
            summary="a shared library of machine code, for this machine or another processor",
            sources={name: name for name in ("float32", "int8", "int8-float-io", "int8-per-tensor")},
        ),
        Compiler(
            "tensorrt",
            "TensorRT",
            "an NVIDIA GPU",
            "edgeopt.compilers.tensorrt",
            takes=("onnx",),
            makes="tensorrt",
            suffix=".engine",
            needs="tensorrt",
            settings=(),
            marks=frozenset(),
            summary="an engine for the NVIDIA GPU of this machine, by way of ONNX",
            sources={name: name for name in ("float32", "float16", "int8-float-io")},
            # TensorRT's integers have their zero at 0.
            asks={"calibration": "minmax", "symmetric": "yes"},
        ),
    )
}


def require(compiler: Compiler) -> None:
    """Raises UnavailableError where a compiler is not installed: to be asked before anything is made for it."""
    if frameworks.installed_version(compiler.needs) is None:
        package = frameworks.FRAMEWORKS[compiler.needs].distribution
        raise UnavailableError(
            f"{package} is needed here but is not installed. Try: {frameworks.install_command(compiler.needs)}."
        )


def compile_content(content: bytes, compiler: Compiler, settings: Mapping[str, str]) -> Compiled:
    """Returns what a compiler makes of a file.

    Args:
        content: of the file, in the format that it takes.
        compiler: a row of COMPILERS.
        settings: a value for each of its `settings`.

    Raises:
        UnavailableError: it is not installed.
        ConversionError: it refuses the file or dies on it; the message holds its last words.
    """
    require(compiler)
    compiled: Compiled = importlib.import_module(compiler.module).compile_content(content, settings)
    return compiled


# The scheme that is calibrated anew: a float model becomes one of integers with float inputs and outputs.
CALIBRATED = "int8-float-io"
# How ONNX Runtime can set the ranges of int8 activations, in place of what the `.tflite` has.
CALIBRATIONS = ("minmax", "entropy", "percentile")


def starts_from(compiler: Compiler, scheme: str, *, calibration: str = "") -> str:
    """Returns the scheme of the converter's file that a compiler's file of a scheme is made of, through others or not.

    Args:
        compiler, scheme: the scheme is one of its `sources`.
        calibration: one of CALIBRATIONS, where ranges are found anew.
    """
    if "tflite" not in compiler.takes:
        before = maker_of(compiler.takes[0])
        assert before is not None
        return starts_from(before, compiler.sources[scheme], calibration=compiler.asks.get("calibration", ""))
    anew = calibration and "calibration" in compiler.settings and scheme == CALIBRATED
    return "float32" if anew else compiler.sources[scheme]


def maker_of(form: str) -> Compiler | None:
    """Returns the compiler that makes files of a format in any scheme of its own, None for what converters write."""
    return next((row for row in COMPILERS.values() if row.makes == form and row.sources), None)


def compiled_by(operators: Iterable[str]) -> Compiler | None:
    """Returns the compiler that has been over a file already, by the names of its operators; None for none of them."""
    names = set(operators)
    return next((row for row in COMPILERS.values() if row.marks & names), None)
