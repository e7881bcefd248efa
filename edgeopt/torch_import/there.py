"""Runs in the environment that has PyTorch, and imports nothing of edgeopt: a function's name goes in, files come out.

    python there.py MODULE:FUNCTION FOLDER last|first

FOLDER receives model.tflite; samples.npz with `in0`, `in1`, … and `out0`, … [samples, …] as the file takes and gives
them; answer.json with `error`, the `stage` where it happened, and `notes`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def main(function: str, folder: Path, order: str) -> None:
    """Writes what the module's docstring says."""
    told: dict[str, Any] = {"error": "", "stage": "function", "notes": []}
    try:
        _convert(function, folder, order == "last", told)
    except Exception as error:  # whatever a user's module or a converter raises
        traceback.print_exc()
        told["error"] = f"{type(error).__name__}: {_one_line(error)}"
    (folder / "answer.json").write_text(json.dumps(told))


def _convert(function: str, folder: Path, channels_last: bool, told: dict[str, Any]) -> None:
    import litert_torch
    import numpy as np
    import torch

    sys.path.insert(0, os.getcwd())
    name, _, attribute = function.partition(":")
    module, inputs = getattr(importlib.import_module(name), attribute)()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"a {type(module).__name__} in place of a module")
    samples = [one if isinstance(one, (tuple, list)) else (one,) for one in inputs]
    if not samples:
        raise ValueError("no inputs")
    if module.training:
        told["notes"].append("the module was in training mode: exported in that of inference")
    module.eval()

    told["stage"] = "run"
    with torch.no_grad():
        results = [_several(module(*one)) for one in samples]
    turned_inputs = [i for i, tensor in enumerate(samples[0]) if channels_last and tensor.ndim == 4]
    turned_outputs = [i for i, tensor in enumerate(results[0]) if channels_last and tensor.ndim == 4]

    told["stage"] = "convert"
    taken = module
    if turned_inputs or turned_outputs:
        taken = litert_torch.to_channel_last_io(module, args=turned_inputs, outputs=turned_outputs)
        told["notes"].append("channels last: inputs and outputs of four dimensions are [N, height, width, channels]")
    shown = [tuple(_last(tensor) if i in turned_inputs else tensor for i, tensor in enumerate(one)) for one in samples]
    litert_torch.convert(taken.eval(), shown[0]).export(str(folder / "model.tflite"))
    arrays = {f"in{i}": np.stack([one[i].numpy() for one in shown]) for i in range(len(shown[0]))}
    for i in range(len(results[0])):
        rows = [_last(result[i]) if i in turned_outputs else result[i] for result in results]
        arrays[f"out{i}"] = np.stack([row.numpy() for row in rows])
    np.savez(folder / "samples.npz", **arrays)
    told["notes"].append(f"made by litert-torch {litert_torch.__version__} from PyTorch {torch.__version__}")


def _several(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _last(tensor: Any) -> Any:
    return tensor.permute(0, 2, 3, 1).contiguous()


def _one_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return " ".join(lines[0].split())[:300]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
