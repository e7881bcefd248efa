"""A folder of `images/` and `masks/` goes in; tables of pictures with the class number of each pixel come out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt.data.images import CHANNELS, FORMATS, decode, decoding, image_files, pool, sized, split_folders
from edgeopt.data.preprocessing import resize_nearest
from edgeopt.data.table import Options, Splits, Table, combined, content_hash, reading
from edgeopt.errors import DataError
from edgeopt.vocabulary import Batch, TensorSpec

IMAGES, MASKS = "images", "masks"
# Looked at to tell black-and-white masks from class numbers; the others have to be of the same kind.
_LOOKED_AT = 16


def are_pairs(root: Path) -> bool:
    """Whether a folder, or one of its splits, holds pictures and masks."""
    return any((folder / IMAGES).is_dir() and (folder / MASKS).is_dir() for folder in split_folders(root).values())


def open_source(spec: str, options: Options) -> Splits:
    """Pairs pictures with masks; some masks are looked at, and of pictures the first.

    A picture and its mask have one name but for what follows the last dot. A mask is a palette or grey picture whose
    values are class numbers; one of 0 and 255 alone says no and yes.

    Raises:
        DataError: there is no picture, one has no mask or two, or one cannot be read.
    """
    root = Path(spec).resolve()
    with reading(root):
        pairs = {split: _pairs(root, folder) for split, folder in split_folders(root).items()}
    found = {split: some for split, some in pairs.items() if some}
    if not found:
        raise DataError(f"Expected pictures in {IMAGES}/ of {spec}, got none. Try a PNG or JPEG for each mask.")
    first = next(iter(found.values()))
    height, width, channels = decode(root / first[0][0], CHANNELS.get(options.color or "")).shape
    shape = (*(options.resize or (height, width)), channels)
    looked_at = [first[n][1] for n in np.unique(np.linspace(0, len(first) - 1, _LOOKED_AT).astype(int))]
    values = np.unique(np.concatenate([np.unique(decode_mask(root / file)) for file in looked_at]))
    yes_or_no = bool(np.isin(values, (0, 255)).all()) and 255 in values
    size = options.resize
    tables = {split: MaskTable(str(root), tuple(some), shape, size, yes_or_no) for split, some in found.items()}
    return Splits(tables, (), ("masks: 0 and 255 are read as the classes 0 and 1",) if yes_or_no else ())


@dataclass(frozen=True, eq=False)
class MaskTable(Table):
    """Pictures and their masks, decoded by some threads as they are needed.

    Attributes:
        root: the folder.
        files: paths below it, of each picture and its mask.
        shape: of a picture: height, width, channels.
        size: what each is resized to, masks to the nearest pixel; None where all must have the shape of the first.
        yes_or_no: whether masks hold 0 and 255 for the classes 0 and 1.
    """

    root: str
    files: tuple[tuple[str, str], ...]
    shape: tuple[int, int, int]
    size: tuple[int, int] | None
    yes_or_no: bool

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:  # type: ignore[override]
        """One input, `x`."""
        return (TensorSpec("x", self.shape, "float32" if self.size else "uint8"),)

    def __len__(self) -> int:
        return len(self.files)

    def rows(self, numbers: np.ndarray) -> Batch:
        found = list(pool().map(self._pair, (self.files[n] for n in numbers)))
        return Batch({"x": np.stack([image for image, _ in found])}, np.stack([mask for _, mask in found]))

    @property
    def has_targets(self) -> bool:
        return True

    def digest(self) -> str:
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        names = (name for pair in self.files for name in pair)
        return combined(content_hash(self.root), *names, str(self.shape), str(self.size), str(self.yes_or_no))

    def _pair(self, files: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
        image_file, mask_file = (Path(self.root, name) for name in files)
        image, mask = decode(image_file, self.shape[2]), decode_mask(mask_file)
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"Expected a mask of {image.shape[0]}x{image.shape[1]} pixels as its picture, got {mask.shape[0]}x"
                f"{mask.shape[1]} in {mask_file}. Try one of the same size."
            )
        if self.yes_or_no:
            if (odd := np.setdiff1d(mask, (0, 255))).size:
                raise DataError(
                    f"Expected 0 and 255 alone in {mask_file}, as in other masks, got {odd[0]}. "
                    "Try masks that hold class numbers from 0."
                )
            mask = (mask == 255).astype(np.uint8)
        return (
            sized(image, image_file, shape=self.shape, size=self.size),
            resize_nearest(mask, self.size) if self.size else mask,
        )


def decode_mask(file: Path) -> np.ndarray:
    """Returns class numbers, uint8 [height, width]; 255 is nobody's.

    Raises:
        DataError: it is no palette or grey picture, or has more than 256 classes.
    """
    from PIL import Image

    with decoding(file), Image.open(file, formats=FORMATS) as image:
        mode, values = image.mode, np.asarray(image)
    if mode not in ("1", "L", "P", "I", "I;16") or values.ndim != 2:
        raise DataError(
            f"Expected a palette or grey picture of class numbers as a mask, got {mode} colours in {file}. Try saving "
            "the class of each pixel as a number, in a PNG."
        )
    if values.min() < 0 or values.max() > 255:
        raise DataError(
            f"Expected class numbers from 0 to 255 in {file}, got {values.min()} to {values.max()}. Try fewer classes."
        )
    return values.astype(np.uint8)


def _pairs(root: Path, folder: Path) -> list[tuple[str, str]]:
    """Returns the paths of each picture and its mask, below `root`."""
    masks: dict[str, str] = {}
    for file in image_files(root, (folder / MASKS).rglob("*")):
        name = _name(root, folder / MASKS, file)
        if name in masks:
            raise DataError(f"Expected one mask called {name} in {folder / MASKS}, got two. Try removing one.")
        masks[name] = file
    found = []
    for file in image_files(root, (folder / IMAGES).rglob("*")):
        name = _name(root, folder / IMAGES, file)
        if name not in masks:
            raise DataError(
                f"Expected a mask for each picture, got none for {root / file}. Try adding "
                f"{folder / MASKS / name}.png, or removing the picture."
            )
        found.append((file, masks[name]))
    return found


def _name(root: Path, folder: Path, file: str) -> str:
    return (root / file).relative_to(folder).with_suffix("").as_posix()
