"""The layout of report.json: nothing goes in; the JSON Schema, and the page of documentation made from it, come out."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from typing import Any

_PAGE = """# report.json

<!-- Written by edgeopt.report.schema.reference_page from edgeopt/report/report.schema.json: edit that file. -->

{introduction}

The layout is a JSON Schema (draft 2020-12) that ships with the package: `edgeopt.report.schema.load_schema()`. It is
version {version} of the layout; readers should refuse a newer one. edgeopt reads those of older versions too.
"""


def load_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of report.json."""
    text = importlib.resources.files("edgeopt.report").joinpath("report.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def reference_page() -> str:
    """Returns docs/report-schema.md: every key with its type and meaning."""
    schema = load_schema()
    version = schema["properties"]["schema_version"]["const"]
    page = _PAGE.format(introduction=schema["description"], version=version)
    parts = [page, "## The report\n", *_table(schema)]
    for name, definition in schema["$defs"].items():
        parts += [f"\n## {name}\n", f"{definition['description']}\n", *_table(definition)]
    return "\n".join(parts) + "\n"


def _table(definition: dict[str, Any]) -> Iterator[str]:
    yield "| key | type | meaning |"
    yield "|:--|:--|:--|"
    for key, value in definition["properties"].items():
        yield f"| `{key}` | {_type(value)} | {value['description']} |"


def _type(value: dict[str, Any]) -> str:
    """Returns a type in words, with links to the other tables."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"])
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in value["enum"])
    names = value["type"] if isinstance(value["type"], list) else [value["type"]]
    return " or ".join(_container(name, value) for name in names)


def _container(name: str, value: dict[str, Any]) -> str:
    if name == "array":
        return f"array of {_type(value['items'])}"
    if name == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"object of {_type(value['additionalProperties'])} by name"
    return name
