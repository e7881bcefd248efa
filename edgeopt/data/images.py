"""A folder of image files goes in, in class folders or flat, also under train/, test/ and val/; tables come out."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgeopt.data.naming import SPLIT_WORDS
from edgeopt.data.preprocessing import resize_bilinear
from edgeopt.data.table import Options, Splits, Table, combined, content_hash, reading
from edgeopt.errors import DataError
from edgeopt.vocabulary import Batch, TensorSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# What these are, as Pillow calls it. It would also take a PostScript program under such a name, and run it.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
CHANNELS = {"grayscale": 1, "rgb": 3}


def open_source(spec: str, options: Options) -> Splits:
    """Lists the images of a folder; none is decoded but the first.

    Each folder is a class, in alphabetical order, an empty one too; images that lie in no class folder have no labels.

    Raises:
        DataError: there is no image, or the first one cannot be read.
    """
    root = Path(spec).resolve()
    with reading(root):
        roots = split_folders(root)
        names = sorted({f.name for split in roots.values() for f in _folders(split)})
        listed = {split: _listed(root, folder, names) for split, folder in roots.items()}
    found = {split: (files, ids) for split, (files, ids) in listed.items() if files}
    if not found:
        raise DataError(
            f"Expected images ({' '.join(SUFFIXES)}) in {spec}, got none. Try a folder with one folder per class."
        )
    first = next(iter(found.values()))[0][0]
    height, width, channels = decode(root / first, CHANNELS.get(options.color or "")).shape
    shape = (*(options.resize or (height, width)), channels)
    tables = {split: ImageTable(str(root), files, ids, shape, options.resize) for split, (files, ids) in found.items()}
    stray = [file for folder in roots.values() for file in image_files(root, folder.iterdir())] if names else []
    notes = (f"not used: {len(stray)} images outside the class folders ({stray[0]} …)",) if stray else ()
    return Splits(tables, tuple(names), notes)


@dataclass(frozen=True, eq=False)
class ImageTable(Table):
    """Image files, decoded by some threads as they are needed, uint8 (float32 where they were resized).

    Attributes:
        root: the folder.
        files: paths below it.
        ids: class numbers, int64 [N], or None.
        shape: height, width, channels.
        size: what each image is resized to; None where all must have the shape of the first.
    """

    root: str
    files: tuple[str, ...]
    ids: np.ndarray | None
    shape: tuple[int, int, int]
    size: tuple[int, int] | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:  # type: ignore[override]
        """One input, `x`."""
        return (TensorSpec("x", self.shape, "float32" if self.size else "uint8"),)

    def __len__(self) -> int:
        return len(self.files)

    def rows(self, numbers: np.ndarray) -> Batch:
        images = list(pool().map(self._image, (self.files[n] for n in numbers)))
        return Batch({"x": np.stack(images)}, None if self.ids is None else self.ids[numbers])

    def targets(self, output: str = "") -> np.ndarray | None:
        return self.ids

    def fitted(self, name: str, shape: tuple[int | None, ...]) -> Table | None:
        channels = shape[2] if len(shape) == 3 else None
        if channels is None or channels not in CHANNELS.values() or channels == self.shape[2]:
            return None
        return replace(self, shape=(*self.shape[:2], channels))

    def digest(self) -> str:
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        return combined(content_hash(self.root), *self.files, str(self.shape), str(self.size))

    def _image(self, file: str) -> np.ndarray:
        where = Path(self.root, file)
        return sized(decode(where, self.shape[2]), where, shape=self.shape, size=self.size)


def decode(file: Path | BinaryIO, channels: int | None, *, name: str = "") -> np.ndarray:
    """Returns an image upright as uint8 [height, width, channels]; 16-bit grey values are brought to 8 bits.

    Args:
        channels: 1 or 3; None takes what the image has.
        name: what to call it in a message, where it is no file.

    Raises:
        DataError: it cannot be decoded; the message names it.
    """
    from PIL import Image, ImageOps

    with decoding(name or file), Image.open(file, formats=FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            # Pillow clips 16 bits where decoders of training pipelines drop the lower eight.
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        channels = channels or (1 if upright.mode in ("1", "L", "LA", "F") else 3)
        pixels = np.asarray(upright.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def sized(pixels: np.ndarray, file: Path, *, shape: tuple[int, int, int], size: tuple[int, int] | None) -> np.ndarray:
    """Returns a picture resized to `size`, float32, or as it is where that is None.

    Raises:
        DataError: it has not the shape of the first one, and is not resized.
    """
    if size:
        return resize_bilinear(pixels[np.newaxis], size)[0]
    if pixels.shape != shape:
        raise DataError(
            f"Expected {shape[0]}x{shape[1]} pixels as in the first image, got {pixels.shape[0]}x{pixels.shape[1]} in "
            f"{file}. Try --resize {shape[0]}x{shape[1]}."
        )
    return pixels


@contextlib.contextmanager
def decoding(what: object) -> Iterator[None]:
    """Turns what goes wrong while an image is decoded into a DataError that says which."""
    from PIL import Image

    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"Expected an image, got {what}, which cannot be decoded ({error}). Try removing it."
        ) from error


def _listed(root: Path, folder: Path, names: list[str]) -> tuple[tuple[str, ...], np.ndarray | None]:
    if not names:
        return tuple(image_files(root, folder.iterdir())), None
    files: list[str] = []
    ids: list[int] = []
    for number, name in enumerate(names):
        found = image_files(root, (folder / name).rglob("*")) if (folder / name).is_dir() else []
        files += found
        ids += [number] * len(found)
    return tuple(files), np.asarray(ids, np.int64)


def image_files(root: Path, paths: Iterable[Path]) -> list[str]:
    """Returns which of the paths are images, relative to `root`, in order."""
    return sorted(
        p.relative_to(root).as_posix()
        for p in paths
        # A pipe or a device of that name would be read for ever.
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def split_folders(root: Path) -> dict[str, Path]:
    """Returns the folders of a folder's splits; itself under "all" where it has none."""
    return {SPLIT_WORDS[f.name.lower()]: f for f in _folders(root) if f.name.lower() in SPLIT_WORDS} or {"all": root}


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


@functools.lru_cache(maxsize=1)
def pool() -> ThreadPoolExecutor:
    """Returns the threads that decode."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="edgeopt-images")
