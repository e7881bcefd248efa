"""The only door to TensorFlow, the two Keras, tfmot, LiteRT and the other heavy packages: lazy and quiet.

A name goes in, the imported module comes out, or an UnavailableError that says what to install.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeopt import imports
from edgeopt.errors import UnavailableError, suggestion
from edgeopt.native_log import native_log


@dataclass(frozen=True)
class Framework:
    """An importable package.

    Attributes:
        module: what is imported.
        distribution: its name for pip.
        extra: the extra of edgeopt that installs it; "" for the core.
        note: what else must hold for it to work here.
    """

    module: str
    distribution: str
    extra: str = ""
    note: str = ""


FRAMEWORKS: dict[str, Framework] = {
    "tensorflow": Framework("tensorflow", "tensorflow"),
    # The parts of TFLiteConverter that quantize a float file which is there already.
    "tf_lite_convert": Framework("tensorflow.lite.python.convert", "tensorflow"),
    "tf_calibrator": Framework("tensorflow.lite.python.optimize.calibrator", "tensorflow"),
    # The only door to DYNAMIC_UPDATE_SLICE.
    "tf_xla_ops": Framework("tensorflow.compiler.tf2xla.ops.gen_xla_ops", "tensorflow"),
    "tf_op_registry": Framework("tensorflow.python.framework.op_def_registry", "tensorflow"),
    "tf_saved_model_proto": Framework("tensorflow.core.protobuf.saved_model_pb2", "tensorflow"),
    "tf_keras": Framework("tf_keras", "tf-keras"),
    "tf_keras_metadata_proto": Framework("tf_keras.protobuf.saved_metadata_pb2", "tf-keras"),
    "tf_keras_convnext": Framework("tf_keras.src.applications.convnext", "tf-keras"),
    "keras": Framework("keras", "keras"),
    "tfmot": Framework("tensorflow_model_optimization", "tensorflow-model-optimization"),
    "ai_edge_quantizer": Framework("ai_edge_quantizer.quantizer", "ai-edge-quantizer"),
    "litert": Framework("ai_edge_litert.interpreter", "ai-edge-litert"),
    "litert_compiled_model": Framework("ai_edge_litert.compiled_model", "ai-edge-litert"),
    "litert_schema": Framework("ai_edge_litert.schema_py_generated", "ai-edge-litert"),
    "tflite_runtime": Framework(
        "tflite_runtime.interpreter",
        "tflite-runtime",
        note="it has wheels for Python up to 3.11 and NumPy 1 only; elsewhere ai-edge-litert serves alone",
    ),
    "tflite_micro": Framework("tflite_micro", "tflite-micro", extra="micro"),
    "vela": Framework("ethosu.vela", "ethos-u-vela", extra="ethos-u"),
    "onnx": Framework("onnx", "onnx", extra="onnx"),
    "onnxruntime": Framework("onnxruntime", "onnxruntime", extra="onnx"),
    "ort_quantization": Framework("onnxruntime.quantization", "onnxruntime", extra="onnx"),
    "ort_nbits": Framework("onnxruntime.quantization.matmul_nbits_quantizer", "onnxruntime", extra="onnx"),
    "ort_float16": Framework("onnxruntime.transformers.float16", "onnxruntime", extra="onnx"),
    "ort_onnx_model": Framework("onnxruntime.transformers.onnx_model", "onnxruntime", extra="onnx"),
    "tf2onnx": Framework("tf2onnx", "tf2onnx", extra="onnx"),
    "tf2onnx_tfonnx": Framework("tf2onnx.tfonnx", "tf2onnx", extra="onnx"),
    "tvm": Framework("tvm", "apache-tvm", extra="tvm"),
    "tvm_ffi": Framework("tvm_ffi", "apache-tvm-ffi", extra="tvm"),
    "tvm_relax": Framework("tvm.relax", "apache-tvm", extra="tvm"),
    "tvm_cpu_passes": Framework("tvm.relax.backend.cpu_generic.pipeline", "apache-tvm", extra="tvm"),
    "tvm_s_tir": Framework("tvm.s_tir", "apache-tvm", extra="tvm"),
    "tvm_schedule": Framework("tvm.s_tir.schedule.schedule", "apache-tvm", extra="tvm"),
    "tvm_tirx": Framework("tvm.tirx", "apache-tvm", extra="tvm"),
    "tvm_from_tflite": Framework("tvm.relax.frontend.tflite", "apache-tvm", extra="tvm"),
    "tvm_from_onnx": Framework("tvm.relax.frontend.onnx", "apache-tvm", extra="tvm"),
    "tflite_schema": Framework("tflite", "tflite", extra="tvm"),
    "optuna": Framework("optuna", "optuna", extra="search"),
    "sqlalchemy": Framework("sqlalchemy", "sqlalchemy", extra="search"),
    "ray": Framework("ray", "ray", extra="ray"),
    "tensorrt": Framework(
        "tensorrt",
        "tensorrt",
        extra="tensorrt",
        note="from https://pypi.nvidia.com, for Linux with an NVIDIA GPU and its driver",
    ),
    "cuda": Framework("cuda.bindings.runtime", "cuda-bindings", extra="tensorrt"),
    "sklearn": Framework("sklearn", "scikit-learn"),
    "tokenizers": Framework("tokenizers", "tokenizers", extra="language"),
    "litert_lm_builder": Framework("litert_lm_builder", "litert-lm-builder", extra="language"),
    "litert_lm_metadata": Framework(
        "litert_lm_builder.runtime.proto.llm_metadata_pb2", "litert-lm-builder", extra="language"
    ),
    "netron": Framework("netron", "netron", extra="view"),
}
# Distributions that are TensorFlow or import it.
_IMPORT_TENSORFLOW = {"tensorflow", "tf-keras", "keras", "tensorflow-model-optimization"}
# What Keras imports for wrappers that make a model an estimator.
_NEEDLESS = ("sklearn",)


def load(name: str) -> Any:
    """Imports the framework called `name` (a key of FRAMEWORKS) with its log lines silenced.

    Raises:
        UnavailableError: it is not installed, or its import failed.
    """
    framework = FRAMEWORKS[name]
    if framework.module in sys.modules:
        return sys.modules[framework.module]
    _quiet_environment()
    needless = _NEEDLESS if framework.distribution in _IMPORT_TENSORFLOW else ()
    try:
        with _deep_binding(name), _quiet_import(framework), imports.sparing(*needless):
            module = importlib.import_module(framework.module)
    except ImportError as error:
        raise UnavailableError(
            f"{framework.distribution} is needed here but {_why(error, framework)}. Try: {install_command(name)}."
        ) from error
    if name in ("tensorflow", "tf_keras", "tfmot"):
        _quiet_tensorflow()
    return module


def installed_version(name: str) -> str | None:
    """Returns the installed version of a framework without importing it, or None."""
    if name not in FRAMEWORKS:
        raise UnavailableError(f"No framework is called {name!r}.{suggestion(name, FRAMEWORKS)}")
    try:
        return importlib.metadata.version(FRAMEWORKS[name].distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def install_command(name: str, *, upgrade: bool = False) -> str:
    """Returns what to type to get a framework, and what else must hold."""
    framework = FRAMEWORKS[name]
    what = f"'edgeopt[{framework.extra}]'" if framework.extra else framework.distribution
    command = "pip install --upgrade" if upgrade else "pip install"
    return f"{command} {what}" + (f" ({framework.note})" if framework.note else "")


def _why(error: ImportError, framework: Framework) -> str:
    # Another missing module is a package that it needs itself.
    missing = (
        isinstance(error, ModuleNotFoundError) and framework.module.split(".")[0] == (error.name or "").split(".")[0]
    )
    return "is not installed" if missing else f"cannot be imported ({error})"


def _quiet_environment() -> None:
    # Read once, when the native libraries load: set before the import or never.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if os.environ.get("EDGEOPT_VERBOSE") else "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def _quiet_import(framework: Framework) -> contextlib.AbstractContextManager[object]:
    # TensorFlow writes its first lines before it has read TF_CPP_MIN_LOG_LEVEL; no other import writes any.
    if framework.distribution not in _IMPORT_TENSORFLOW or os.environ.get("EDGEOPT_VERBOSE"):
        return contextlib.nullcontext()
    return native_log()


def _quiet_tensorflow() -> None:
    import logging

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="tensorflow.*|tf_keras.*|keras.*|tensorflow_model_optimization.*")
    logger = logging.getLogger("absl")
    logger.setLevel(logging.ERROR)


@contextlib.contextmanager
def _deep_binding(name: str) -> Iterator[None]:
    """Lets tflite-runtime find its own symbols first.

    Without it, a process that has imported TensorFlow gives tflite-runtime TensorFlow's symbols of the same names,
    and its Interpreter raises `vector::reserve` or `bad_alloc`.
    """
    if name != "tflite_runtime" or not hasattr(os, "RTLD_DEEPBIND"):
        yield
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        yield
    finally:
        sys.setdlopenflags(flags)
