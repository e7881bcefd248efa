"""A report as an earlier version of its layout has it goes in, the same one as the present version has it comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def upgraded(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns plain JSON of version 1 as that of version 2; what is of any other version stays as it is."""
    if value["schema_version"] != 1:
        return value
    steps = [{**step, "promises": list(map(_promise, step.get("promises", ())))} for step in value.get("steps", ())]
    return {**value, "schema_version": 2, "steps": steps}


def _promise(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a promise that was told in words, which its note keeps: nothing is read out of them."""
    words = f"promised {told.get('promised')}, measured {told.get('measured') or 'nothing'}"
    return {"kind": told.get("what"), "kept": told.get("kept"), "note": words}
