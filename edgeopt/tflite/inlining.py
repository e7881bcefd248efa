"""A file whose buffers lie behind its flatbuffer goes in, one that holds them inside comes out.

Files over 2 GB have to keep them there, and some writers do it from 256 KiB on. A buffer then says an offset from the
start of the file and a size, and has no data; TFLM, and whatever else reads the data alone, finds none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeopt import frameworks
from edgeopt.tflite.model import Broken, Extent

# Offsets in a flatbuffer have 31 bits.
LARGEST_FLATBUFFER = 2**31 - 1
_ALIGNMENT = 16
_TABLE_BYTES = 8
# A table of the schema's Buffer with `data` alone: bytes of this, bytes of the table, where in it the field stands.
_VTABLE = np.array([6, _TABLE_BYTES, 4, 0], "<u2").view(np.uint8)
# The place of `buffers` in the vtable of the schema's Model.
_BUFFERS = 12


def outside(buffer: Any) -> Extent | None:
    """Returns where the bytes of a schema's Buffer lie if that is behind the flatbuffer, None if it is inside."""
    # Offsets of 0 and 1 mean inside.
    return Extent(buffer.Offset(), buffer.Size()) if buffer.Offset() > 1 and buffer.Size() else None


def inlined(content: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the file with all buffers inside its flatbuffer, and how many bytes lay behind it.

    The bytes are `content` itself where nothing lies behind it, and of a file of over 2 GB.

    Raises:
        Broken: a buffer ends behind the file, two of them overlap, or one begins inside of the flatbuffer.
        struct.error, ValueError: the flatbuffer points outside of itself.
    """
    root = frameworks.load("litert_schema").Model.GetRootAs(content.data, 0)
    if root.BuffersLength() * 4 > content.size:
        raise Broken("its parts are longer than itself")
    found = {i: extent for i in range(root.BuffersLength()) if (extent := outside(root.Buffers(i))) is not None}
    if not found:
        return content, 0
    extents = sorted(set(found.values()), key=lambda extent: extent.offset)
    _check(extents, content.size)
    outside_bytes = sum(extent.size for extent in extents)
    if content.size > LARGEST_FLATBUFFER:
        return content, outside_bytes
    # What lies before the first of them is the flatbuffer; where it is longer than that, it now ends too early.
    end = extents[0].offset
    vector = root._tab.Vector(root._tab.Offset(_BUFFERS))
    if vector + 4 * root.BuffersLength() > end:
        raise Broken(f"a buffer behind its flatbuffer begins at byte {end}, inside of it")
    vtable = _aligned(end)
    first = vtable + _VTABLE.size
    places, size = {}, first + _TABLE_BYTES * len(found)
    for extent in extents:
        places[extent] = _aligned(size + 4)  # the length of a vector stands before it
        size = places[extent] + extent.size
    made = np.zeros(size, np.uint8)
    made[:end] = content[:end]
    made[vtable:first] = _VTABLE
    for number, (index, extent) in enumerate(found.items()):
        table = first + _TABLE_BYTES * number
        _put(made, vector + 4 * index, table - (vector + 4 * index))
        _put(made, table, table - vtable)
        _put(made, table + 4, places[extent] - 4 - (table + 4))
    for extent, place in places.items():
        _put(made, place - 4, extent.size)
        made[place : place + extent.size] = content[extent.offset : extent.offset + extent.size]
    return made, outside_bytes


def _check(extents: list[Extent], size: int) -> None:
    for before, extent in zip([None, *extents], extents):
        if extent.offset + extent.size > size:
            raise Broken(f"a buffer ends at byte {extent.offset + extent.size} of {size}")
        if before is not None and before.offset + before.size > extent.offset:
            raise Broken(f"two buffers behind its flatbuffer overlap at byte {extent.offset}")


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


def _put(content: np.ndarray, place: int, value: int) -> None:
    content[place : place + 4] = np.array([value], "<u4").view(np.uint8)
