"""tf2onnx: a `.tflite` goes in, the same network as an `.onnx` comes out.

Integers and scales stay what they are, as QuantizeLinear and DequantizeLinear around each operator (QDQ): what was
calibrated and repaired for one runtime serves the other. What ONNX Runtime does otherwise is made from the float file:
float16 computes in float16, and dynamic range is its own kind of it.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt import frameworks, workers
from edgeopt.compilers import CALIBRATED
from edgeopt.compilers.contract import Compiled
from edgeopt.compilers.onnx_operators import add_to, prepared, strange
from edgeopt.errors import ConversionError
from edgeopt.formats.onnx import OPSET, QUANTIZATION
from edgeopt.schemes import BLOCKS
from edgeopt.tflite.model import Operator, Subgraph, TFLiteModel, printable
from edgeopt.tflite.reader import read

_CALIBRATED_AT_A_TIME = 16
# Of LiteRT's dtypes those that tf2onnx.tflite_utils.TFLITE_TO_ONNX_DTYPE lacks: it fails with the dtype's number.
_UNKNOWN = frozenset({"int2", "int4", "uint4", "bfloat16"})


def compile_content(content: bytes, settings: Mapping[str, str]) -> Compiled:
    """Returns the file as ONNX, with the names of its signature.

    Args:
        content: of a `.tflite`.
        settings: `scheme`: what of DERIVED it is turned into on the way, or any other name, which changes nothing.
            `calibration`: one of CALIBRATIONS, with `samples`, the path of an `.npz` of the inputs in their order
            [samples, …], and `symmetric`, whether zero has to be 0; "" for none. `opset`: the operator set, OPSET
            for "".

    Raises:
        ConversionError: ONNX has no such operators.
    """
    try:
        found: bytes = workers.shared("tf2onnx").call("edgeopt.compilers.onnx:translated", content, settings)
    except workers.WorkerCrashed as crash:
        raise ConversionError(f"tf2onnx died on the file: {crash.reason}. Try --scheme float32.") from None
    return Compiled(found)


def translated(content: bytes, settings: Mapping[str, str]) -> bytes:
    """As `compile_content`, in this process."""
    scheme = settings["scheme"]
    frameworks.load("tensorflow")  # quietly, before tf2onnx does it
    tf2onnx, onnx = frameworks.load("tf2onnx"), frameworks.load("onnx")
    add_to(frameworks.load("tf2onnx_tfonnx").handler)
    model = read(content)
    _require_known(model)
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(prepared(content))
        try:
            made, _ = tf2onnx.convert.from_tflite(str(path), opset=int(settings["opset"] or OPSET))
        except Exception as error:  # of every kind
            raise _refusal(f"one on which tf2onnx fails ({printable(' '.join(str(error).split()))})") from error
        _require_translated(onnx, made, model)
        _rename(made.graph, [spec.name for spec in model.inputs], [spec.name for spec in model.outputs])
        made.producer_name = "edgeopt"
        scales = {
            spec.name: (spec.quantization.scales[0], spec.quantization.zero_points[0])
            for spec in (*model.inputs, *model.outputs)
            if spec.quantization is not None and spec.dtype.startswith(("int", "uint"))
        }
        if scales:
            onnx.helper.set_model_props(made, {QUANTIZATION: json.dumps(scales)})
        if scheme == CALIBRATED and settings["calibration"]:
            changed = _calibrated(made, Path(folder), settings)
        else:
            changed = DERIVED[scheme](made, Path(folder)) if scheme in DERIVED else made
    onnx.checker.check_model(changed)
    return bytes(changed.SerializeToString())


def _half(model: Any, folder: Path) -> Any:
    """Returns the model in float16 throughout, inputs and outputs as they were."""
    half = frameworks.load("ort_float16").convert_float_to_float16(model, keep_io_types=True)
    # The casts of inputs come last, where no reader looks for them.
    frameworks.load("ort_onnx_model").OnnxModel(half).topological_sort()
    return half


def _dynamic(model: Any, folder: Path) -> Any:
    """Returns the model with int8 weights, activations quantized at each inference, a scale per channel."""
    onnx = frameworks.load("onnx")
    quantization = frameworks.load("ort_quantization")
    onnx.save(model, folder / "float.onnx")
    quantization.quantize_dynamic(
        str(folder / "float.onnx"),
        str(folder / "dynamic.onnx"),
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    return onnx.load(folder / "dynamic.onnx")


def _in_blocks(model: Any, folder: Path, *, size: int) -> Any:
    """Returns the model with the weights of its matrix products in int4, a scale for each block of `size`."""
    made = frameworks.load("ort_nbits").MatMulNBitsQuantizer(_products(model), block_size=size, is_symmetric=True)
    made.process()
    if not any(node.op_type == "MatMulNBits" for node in made.model.model.graph.node):
        raise ConversionError(
            f"Expected Dense layers whose weights int4 can be, got a model in which ONNX Runtime finds none of {size} "
            "weights in a row. Try --scheme int8."
        )
    return made.model.model


def _products(model: Any) -> Any:
    """Returns the model with Gemm as the MatMul and Add that it stands for: no other kernel has weights in blocks."""
    onnx = frameworks.load("onnx")
    stored, nodes = {tensor.name: tensor for tensor in model.graph.initializer}, []
    for node in model.graph.node:
        said = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = not said.get("transA") and said.get("alpha", 1) == said.get("beta", 1) == 1
        if node.op_type != "Gemm" or not plain or node.input[1] not in stored:
            nodes.append(node)
            continue
        weights = node.input[1]
        if said.get("transB"):
            turned = onnx.numpy_helper.to_array(stored[weights]).T.copy()
            weights = f"{weights}_turned"
            model.graph.initializer.append(onnx.numpy_helper.from_array(turned, weights))
        product = f"{node.output[0]}_product" if len(node.input) > 2 else node.output[0]
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], weights], [product], name=node.name))
        if len(node.input) > 2:
            nodes.append(onnx.helper.make_node("Add", [product, node.input[2]], node.output, name=f"{node.name}_bias"))
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    return model


def _calibrated(model: Any, folder: Path, settings: Mapping[str, str]) -> Any:
    """Returns the float model with integers inside, their ranges found on samples by onnxruntime's own calibration."""
    onnx, quantization = frameworks.load("onnx"), frameworks.load("ort_quantization")
    methods = quantization.CalibrationMethod
    names = [value.name for value in model.graph.input]

    class Samples(quantization.CalibrationDataReader):  # type: ignore[name-defined]  # of a package loaded late
        def __init__(self) -> None:
            with np.load(settings["samples"]) as kept:
                arrays = [kept[str(i)] for i in range(len(names))]
            self._rows = zip(*arrays)

        def get_next(self) -> Any:
            row = next(self._rows, None)
            return None if row is None else {name: one[np.newaxis] for name, one in zip(names, row)}

    onnx.save(model, folder / "float.onnx")
    quantization.quantize_static(
        str(folder / "float.onnx"),
        str(folder / "int8.onnx"),
        Samples(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method={
            "minmax": methods.MinMax,
            "entropy": methods.Entropy,
            "percentile": methods.Percentile,
        }[settings["calibration"]],
        extra_options={
            "ActivationSymmetric": bool(settings["symmetric"]),
            # Histograms are made of so many samples' activations at a time.
            "CalibMaxIntermediateOutputs": _CALIBRATED_AT_A_TIME,
        },
    )
    return onnx.load(folder / "int8.onnx")


# Scheme → what is made of the float model.
DERIVED: dict[str, Callable[[Any, Path], Any]] = {
    "float16": _half,
    "dynamic": _dynamic,
    **{f"int4-block{size}": partial(_in_blocks, size=size) for size in BLOCKS},
}


def _rename(graph: Any, inputs: list[str], outputs: list[str]) -> None:
    """Gives inputs and outputs the names that the `.tflite` knows them by."""
    given = [value for value in graph.input if value.name not in {tensor.name for tensor in graph.initializer}]
    new = {value.name: name for value, name in zip((*given, *graph.output), (*inputs, *outputs))}
    inner = {name for node in graph.node for name in (*node.input, *node.output)} - set(new)
    for old, name in list(new.items()):
        while name in inner or list(new.values()).count(name) > 1:  # a tensor inside, or an input that is an output too
            name = new[old] = f"{name}_"
    for value in (*graph.input, *graph.output):
        value.name = new.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]


def _require_known(model: TFLiteModel) -> None:
    """Raises ConversionError where tf2onnx has no translation of an operator: it would say so of a tensor only."""
    tables = frameworks.load("tf2onnx_tfonnx").handler.tf_op.get_opsets().values()
    known = {name for versions in tables for table in versions for name in table}
    found = [(graph, operator) for graph in model.subgraphs for operator in graph.operators]
    known.add("TFL_DENSIFY")  # see `prepared`
    if unknown := [(graph, operator) for graph, operator in found if f"TFL_{operator.name}" not in known]:
        raise _refusal(f"{_counted(unknown)}, which has no translation")
    for graph, operator in found:
        if words := strange(operator):
            raise _refusal(f"{_counted([(graph, operator)])} {words}, which has no translation")
    kinds = Counter(tensor.dtype for graph in model.subgraphs for tensor in graph.tensors if tensor.dtype in _UNKNOWN)
    if kinds:
        some = ", ".join(f"{count} in {dtype}" for dtype, count in kinds.items())
        raise ConversionError(
            f"Expected a file of floats or of integers of at least 8 bits, got tensors that tf2onnx cannot translate: "
            f"{some}. Try the float model with --scheme int8, or with int4-block32 for Dense layers in four bits."
        )


def _require_translated(onnx: Any, made: Any, model: TFLiteModel) -> None:
    """Raises ConversionError where tf2onnx left an operator as it was: it goes on after an error, and only logs it."""
    found = ((graph, operator) for graph in model.subgraphs for operator in graph.operators)
    makers = {graph.tensors[index].name: (graph, one) for graph, one in found for index in one.outputs}
    for node in made.graph.node:
        if onnx.defs.has(node.op_type, node.domain):
            continue
        names = (name.removesuffix("_prequant") for name in node.output)
        origin = next((makers[name] for name in names if name in makers), None)
        what = f"{node.op_type} ({node.name!r})" if origin is None else _counted([origin])
        raise _refusal(f"{what} in a form that tf2onnx cannot translate")


def _counted(found: Sequence[tuple[Subgraph, Operator]]) -> str:
    """Returns operators by name, each with the layer of its first use: "2 GELU ('dense', …)"."""
    layers: dict[str, list[str]] = {}
    for graph, operator in found:
        result = graph.result(operator)
        layers.setdefault(operator.name, []).append("" if result is None else result.name)
    return ", ".join(
        f"{len(names)} {name} ({names[0]!r}{', …' if len(names) > 1 else ''})" for name, names in layers.items()
    )


def _refusal(what: str) -> ConversionError:
    return ConversionError(
        f"Expected a file of operators that ONNX has as well, got {what}. Try a .tflite for LiteRT, or the model "
        "without that layer."
    )
