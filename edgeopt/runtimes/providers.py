"""ONNX Runtime's execution providers: a runtime's name goes in; its provider, and what it takes of a file, come out.

What a provider does not take, ONNX Runtime computes on the CPU without a word: the share is that of its own profile.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """A provider.

    Attributes:
        name: ONNX Runtime's own.
        package: the build of ONNX Runtime that has it.
    """

    name: str
    package: str


PROVIDERS: dict[str, Provider] = {
    "onnxruntime": Provider(CPU, "onnxruntime"),
    "onnxruntime-cuda": Provider("CUDAExecutionProvider", "onnxruntime-gpu"),
    "onnxruntime-openvino": Provider("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "onnxruntime-directml": Provider("DmlExecutionProvider", "onnxruntime-directml"),
    "onnxruntime-coreml": Provider("CoreMLExecutionProvider", "onnxruntime on macOS"),
}


def version() -> str:
    """Returns the version of whichever build of ONNX Runtime is installed, "" where none is."""
    for package in dict.fromkeys(provider.package.split()[0] for provider in PROVIDERS.values()):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


@dataclass(frozen=True)
class Taken:
    """What a provider took of a file.

    Attributes:
        share: of its operators, 0 to 1.
        left: kinds of those that the CPU computes.
    """

    share: float
    left: tuple[str, ...]


def taken(events: Iterable[Mapping[str, Any]], operators: int) -> Taken:
    """Returns what a provider took, of ONNX Runtime's profile of a run of a file with so many operators.

    A provider may compute many of them as one: those that the CPU computed are counted, which stay one by one.
    """
    runs = [one["args"] for one in events if one.get("cat") == "Node" and one["name"].endswith("_kernel_time")]
    others = [args for args in runs if args.get("provider") != CPU]
    # Copies to and from a device are ONNX Runtime's, not the file's.
    left = tuple(
        str(args["op_name"]) for args in runs if args.get("provider") == CPU and "Memcpy" not in args["op_name"]
    )
    return Taken(max(0.0, 1 - len(left) / operators) if others and operators else 0.0, left)
