"""Brings op_versions.json up to date: LiteRT's table of versions and the installed package go in, the file comes out.

Run it after installing a new ai-edge-litert:

    python -m edgeopt.tflite.op_versions_update runtime_version.cc

`runtime_version.cc` is LiteRT's `tflite/converter/tools/versioning/runtime_version.cc`: for each operator version the
first TensorFlow Lite that has it. What a release of ai-edge-litert has is asked of the release itself.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeopt import frameworks

TABLE = Path(__file__).with_name("op_versions.json")
_HIGHEST_TRIED = 16
# Entries of that file that releases contradict: TRANSPOSE 7 is said to be of 2.14.4, but ai-edge-litert 1.1, which
# has all else of 2.19, refuses it.
_CORRECTIONS = {("TRANSPOSE", "7"): "2.20.0"}
_ENTRY = re.compile(r'\{\{BuiltinOperator_(\w+),\s*(\d+)\},\s*"([\d.]+)"\}')


def probe(interpreter: Callable[..., Any]) -> dict[str, int]:
    """Asks a runtime's Interpreter class which operator versions it has: operator name → highest version.

    Interpreters look up every entry of a file's operator table when they are built, so a model with one entry and
    an empty graph is enough.
    """
    operators = vars(frameworks.load("litert_schema").BuiltinOperator)
    highest: dict[str, int] = {}
    for name, code in operators.items():
        if name.startswith("_"):
            continue
        for version in range(1, _HIGHEST_TRIED + 1):
            try:
                interpreter(model_content=model_that_names(code, version))
            except ValueError:
                continue
            highest[name] = version
    return highest


def model_that_names(code: int, version: int) -> bytes:
    """Returns a `.tflite` file with an empty graph whose operator table holds one builtin operator."""
    import flatbuffers

    schema = frameworks.load("litert_schema")
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode, operator_code.version = code, version
    operator_code.deprecatedBuiltinCode = min(code, 127)
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], []
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [operator_code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def update(runtime_version_source: str) -> dict[str, Any]:
    """Returns the table with the operator versions of `runtime_version_source` and the installed ai-edge-litert."""
    table: dict[str, Any] = json.loads(TABLE.read_text())
    first: dict[str, dict[str, str]] = {}
    for name, version, runtime in _ENTRY.findall(runtime_version_source):
        first.setdefault(name, {})[version] = _CORRECTIONS.get((name, version), runtime)
    table["tflite"] = {name: first[name] for name in sorted(first)}
    release, known = frameworks.installed_version("litert"), {}
    for row in table["litert"].values():
        known.update(row)
    if release and release not in table["litert"]:
        now = probe(frameworks.load("litert").Interpreter)
        table["litert"][release] = {name: v for name, v in sorted(now.items()) if known.get(name) != v}
    return table


def write(table: dict[str, Any]) -> None:
    """Writes the table, one operator or release a line."""
    sections = []
    for section, rows in table.items():
        text = json.dumps(rows)
        if isinstance(rows, dict):
            text = "{\n" + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n  }"
        sections.append(f"  {json.dumps(section)}: {text}")
    TABLE.write_text("{\n" + ",\n".join(sections) + "\n}\n")


if __name__ == "__main__":
    write(update(Path(sys.argv[1]).read_text()))
