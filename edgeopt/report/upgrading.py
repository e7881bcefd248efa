"""A report as an earlier version of its layout has it goes in, the same one as the present version has it comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# What a variant of version 1 said of its one file, a `.tflite`.
_FILE = ("file", "sha256", "size_bytes", "gzip_bytes")


def upgraded(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns plain JSON of version 1 as that of version 2; what is of any other version stays as it is.

    Nothing is checked here: what is missing or of another type is for the reader to say.
    """
    if value["schema_version"] != 1:
        return value
    return {**_each(_each(value, "steps", _step), "variants", _variant), "schema_version": 2}


def _each(value: Mapping[str, Any], key: str, change: Callable[[Mapping[str, Any]], Any]) -> Mapping[str, Any]:
    """Returns `value` with the objects in its list `key` changed."""
    items = value.get(key)
    if not isinstance(items, list):
        return value
    return {**value, key: [change(item) if isinstance(item, Mapping) else item for item in items]}


def _step(step: Mapping[str, Any]) -> Mapping[str, Any]:
    return _each(step, "promises", _promise)


def _promise(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a promise that was told in words, which its note keeps: nothing is read out of them."""
    words = f"promised {told.get('promised')}, measured {told.get('measured') or 'nothing'}"
    return {"kind": told.get("what"), "kept": told.get("kept"), "note": words}


def _variant(variant: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a variant with its file as an artifact, which is what its runtimes ran."""
    rest = {key: item for key, item in variant.items() if key not in _FILE}
    file = variant.get("file")
    if file is None:
        return rest
    artifact = {"format": "tflite", **{key: variant[key] for key in _FILE if key in variant}}
    return {**_each(rest, "runtimes", lambda row: {**row, "artifact": file}), "artifacts": [artifact]}
