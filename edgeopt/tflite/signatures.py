"""Files of one network in several sizes go in, one with a signature for each, which share its weights, comes out.

And back: a file of several signatures goes in, one of them alone comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgeopt.errors import ConfigError, ModelError, suggestion
from edgeopt.tflite.model import printable
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed, drop_unused_buffers, forget_unused_codes, objects_of


def merged(files: Mapping[str, bytes]) -> bytes:
    """Returns one file with a signature for the main graph of each; the first one's is the main graph of it.

    What is stored alike in several of them is stored once, and only the first one's metadata are kept.

    Args:
        files: by the signature's name.

    Raises:
        ModelError: see `rewrite.changed`.
    """
    (first, content), *others = files.items()

    def change(model: Any, schema: Any) -> None:
        model.signatureDefs = [_signature(schema, content, first, 0)]
        gathered = _Gathered(model)
        for key, other in others:
            model.signatureDefs.append(_signature(schema, other, key, len(model.subgraphs)))
            gathered.take(objects_of(other))
        drop_unused_buffers(model)

    return changed(content, change)


def alone(content: bytes, name: str) -> bytes:
    """Returns the file with one of its signatures alone, whose graph is the main one.

    Raises:
        ConfigError: it has no such signature.
        ModelError: see `rewrite.changed`.
    """
    model = read(content)
    one = next((signature for signature in model.signatures if signature.key == name), None)
    if one is None:
        known = [signature.key for signature in model.signatures]
        raise ConfigError(
            f"Expected one of the signatures {', '.join(known) or '(it has none)'}, got {name!r}."
            f"{suggestion(name, known)}"
        )

    def change(parsed: Any, schema: Any) -> None:
        wanted = _reached(parsed.subgraphs, one.subgraph)
        places = {old: new for new, old in enumerate(wanted)}
        parsed.signatureDefs = [_signature_of(parsed.signatureDefs, name)]
        parsed.subgraphs = [parsed.subgraphs[index] for index in wanted]
        _redirect(parsed.subgraphs, lambda index: places[index])
        forget_unused_codes(parsed)
        drop_unused_buffers(parsed)

    return changed(content, change)


def main_alone(content: bytes) -> bytes:
    """Returns the file without what only other signatures than its main graph's use; unchanged where there are none.

    Raises:
        ModelError: see `rewrite.changed`.
    """
    signatures = read(content).signatures
    main = next((one for one in signatures if one.subgraph == 0), None)
    if main is None or all(one.subgraph == 0 for one in signatures):
        return content
    return alone(content, main.key)


class _Gathered:
    """A parsed file that takes the graphs of others in."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._codes = {_code(code): index for index, code in enumerate(model.operatorCodes)}
        self._buffers = {data: index for index, buffer in enumerate(model.buffers) if (data := _data(buffer))}

    def take(self, other: Any) -> None:
        """Appends all graphs of another parsed file."""
        offset = len(self._model.subgraphs)
        codes = [self._code_of(code) for code in other.operatorCodes]
        buffers = [self._buffer_of(index, buffer) for index, buffer in enumerate(other.buffers)]
        for graph in other.subgraphs:
            for tensor in graph.tensors:
                tensor.buffer = buffers[tensor.buffer]
            for operator in graph.operators:
                operator.opcodeIndex = codes[operator.opcodeIndex]
        _redirect(other.subgraphs, lambda index: index + offset)
        self._model.subgraphs += other.subgraphs

    def _code_of(self, code: Any) -> int:
        if _code(code) not in self._codes:
            self._codes[_code(code)] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        return self._codes[_code(code)]

    def _buffer_of(self, index: int, buffer: Any) -> int:
        """Returns the place of a buffer's bytes; one without any is that of a variable, and nobody else's."""
        if index == 0:
            return 0
        data = _data(buffer)
        if not data or data not in self._buffers:
            self._model.buffers.append(buffer)
            if not data:
                return len(self._model.buffers) - 1
            self._buffers[data] = len(self._model.buffers) - 1
        return self._buffers[data]


def _code(code: Any) -> tuple[Any, ...]:
    return code.builtinCode, code.deprecatedBuiltinCode, code.customCode, code.version


def _data(buffer: Any) -> bytes:
    return b"" if buffer.data is None else bytes(buffer.data)


def _signature_of(signatures: Sequence[Any], name: str) -> Any:
    """Returns the parsed signature of a name, for the main graph."""
    found = next(one for one in signatures if printable(one.signatureKey) == name)
    found.subgraphIndex = 0
    return found


def _signature(schema: Any, content: bytes, key: str, subgraph: int) -> Any:
    """Returns a signature of the main graph of a file, under the names that it has there."""
    model, found = read(content), schema.SignatureDefT()
    found.signatureKey, found.subgraphIndex = key, subgraph
    found.inputs = [_entry(schema, s.name, i) for s, i in zip(model.inputs, model.main.inputs)]
    found.outputs = [_entry(schema, s.name, i) for s, i in zip(model.outputs, model.main.outputs)]
    return found


def _entry(schema: Any, name: str, tensor: int) -> Any:
    found = schema.TensorMapT()
    found.name, found.tensorIndex = name, tensor
    return found


def _reached(graphs: Sequence[Any], start: int) -> list[int]:
    """Returns a graph and those that its operators call, in the order in which they are met."""
    found = [start]
    for index in found:
        called = (getattr(options, name) for options, name in _calls(graphs[index]))
        found += [one for one in dict.fromkeys(called) if one not in found]
        if unknown := [one for one in found if not 0 <= one < len(graphs)]:
            raise ModelError(
                f"Expected operators that call one of {len(graphs)} graphs, got one that calls number {unknown[0]}. "
                "Try converting the model again."
            )
    return found


def _redirect(graphs: Iterable[Any], place: Callable[[int], int]) -> None:
    """Lets the operators of parsed graphs call the others at their new places."""
    for graph in graphs:
        for options, name in list(_calls(graph)):
            setattr(options, name, place(getattr(options, name)))


def _calls(graph: Any) -> Iterator[tuple[Any, str]]:
    """Yields where the operators of a parsed graph say which others they call: options, and the name there."""
    for operator in graph.operators:
        for options in (operator.builtinOptions, operator.builtinOptions2):
            for name in vars(options) if options is not None else ():
                if name.endswith("SubgraphIndex"):
                    yield options, name
