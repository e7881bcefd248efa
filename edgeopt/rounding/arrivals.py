"""A file and some of its tensors go in; the real values that they have on samples come out, batch by batch.

The file is cut behind what is asked for, so that nothing else is computed and the cut file runs as any file does.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.errors import ModelError
from edgeopt.runtimes import RUNTIMES, Session, open_session
from edgeopt.runtimes.numbers import dequantize, quantize
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed, drop_unused_buffers

BATCH = 32
_RUNTIME = RUNTIMES["litert"]


class Arrivals:
    """Some tensors of a file, as samples make them.

    Args:
        session: the file cut behind `wanted`, opened.
        model: the whole file.
        wanted: indices of tensors of its main graph.
    """

    def __init__(self, session: Session, model: TFLiteModel, wanted: Sequence[int]) -> None:
        self._session, self._model, self._wanted = session, model, tuple(wanted)
        self._names = [spec.name for spec in model.inputs]
        self._batched = session.resize(BATCH)
        if not self._batched and not session.resize(1):
            raise ModelError(
                f"Expected a file that takes samples one by one, got one that takes {session.inputs[0].shape}. "
                "Try converting it with --batch-size 1."
            )

    def values(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns what each wanted tensor is on a batch, as real numbers, float32 [N, ...]."""
        specs = self._session.inputs
        # By the names of signatures; a file that was made elsewhere may have others in the same order.
        names = self._names if set(inputs) == set(self._names) else list(inputs)
        stored = {spec.name: quantize(inputs[name], spec) for name, spec in zip(names, specs)}
        size = BATCH if self._batched else 1
        pieces = []
        count = len(next(iter(stored.values())))
        for start in range(0, count, size):
            piece = {name: array[start : start + size] for name, array in stored.items()}
            short = min(size, count - start)
            if short < size:
                piece = {name: np.resize(array, (size, *array.shape[1:])) for name, array in piece.items()}
            pieces.append([value[:short] for value in self._of(piece)])
        return [np.concatenate(each) for each in zip(*pieces)]

    def _of(self, stored: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns the wanted tensors of what may be run at once."""
        given = dict(zip(self._model.main.inputs, stored.values()))
        made = list(self._session.run(stored).values())
        computed = iter(made)
        tensors = self._model.main.tensors
        found = [given[index] if index in given else next(computed) for index in self._wanted]
        return [dequantize(array, tensors[index].spec).astype(np.float32) for index, array in zip(self._wanted, found)]


@contextlib.contextmanager
def arrivals(content: bytes, wanted: Sequence[int]) -> Iterator[Arrivals]:
    """Opens a file for some tensors of its main graph, each once.

    Raises:
        ModelError: the runtime refuses the file, or it takes no single samples.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cut.tflite"
        path.write_bytes(cut(content, wanted))
        session = open_session(path, _RUNTIME)
        try:
            yield Arrivals(session, read(content), wanted)
        finally:
            session.close()


def cut(content: bytes, wanted: Sequence[int]) -> bytes:
    """Returns a file that takes the same inputs and gives the wanted tensors of its main graph, and no others.

    Inputs among them are not given; where nothing is left to give, the first operator's output is.
    """
    model = read(content)
    graph = model.main
    outputs = [index for index in wanted if index not in graph.inputs] or list(graph.operators[0].outputs[:1])
    needed, kept = set(outputs), []
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs) or not operator.outputs:
            needed.update(operator.inputs)
            kept.append(operator.index)
    # No operator reads the scales of blocks.
    needed.update(tensor.block_scales for tensor in graph.tensors if tensor.index in needed)

    def change(parsed: Any, schema: Any) -> None:
        main = parsed.subgraphs[0]
        main.operators = [main.operators[index] for index in sorted(kept)]
        main.outputs = np.array(outputs, np.int32)
        # They name outputs that are none any more.
        parsed.signatureDefs = None
        for index, tensor in enumerate(main.tensors):
            if index not in needed and index not in main.inputs:
                tensor.buffer = 0
            # A name may be there twice, and outputs are told by it.
            tensor.name = str(index)
        drop_unused_buffers(parsed)

    return changed(content, change)
