"""A path, a name or arrays go in, with the options of the command line; a Dataset comes out."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.data import SOURCES, Source
from edgeopt.data.dataset import Dataset, Origin, Part, share_of_each_class
from edgeopt.data.labels import recognize
from edgeopt.data.masks import are_pairs
from edgeopt.data.table import CONTEXT, Options, Splits, reading
from edgeopt.errors import ConfigError, DataError, suggestion
from edgeopt.vocabulary import Preprocessing

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_COLORS = ("rgb", "grayscale")


def load(
    spec: Any = None,
    *,
    train: Any = None,
    calibration: Any = None,
    preprocessing: Preprocessing | None = None,
    calibration_samples: int = 200,
    validation_share: float = 0.2,
    seed: int = 0,
    labels: str = "auto",
    labels_column: str | None = None,
    color: str | None = None,
    tokenizer: Path | str | None = None,
    context: int = CONTEXT,
) -> Dataset:
    """Opens data and says which samples calibrate, train, tune and validate. Nothing is read but labels.

    Validation is the source's test split, or its val split; a source without splits is divided, by class where
    there are classes. Training is its train split. Tuning is a val split beside the test split. Calibration is a
    class-balanced choice of training samples.

    Args:
        spec: a path, `package.module:function`, a name of SOURCES, arrays, or a Dataset, which is handed back.
        train: trains instead of `spec`, which then validates only (the whole of it, where it has no splits).
        calibration: calibrates instead of the training samples (its train split, where it has splits).
        preprocessing: done to every sample of every part.
        calibration_samples: how many at most.
        validation_share: of a source without splits, 0 to 1; with 1 all samples validate and none trains.
        seed: of the splits and choices.
        labels: key of `labels.KINDS`.
        labels_column: name or number (from 0) of the CSV column or TFRecord feature that holds the labels.
        color: "rgb" or "grayscale" for image files.
        tokenizer: of a text: a JSON file, or "bytes".
        context: tokens of a text that make a sample: as many as the model takes.

    Raises:
        ConfigError: an option cannot be used.
        DataError: the data are missing, damaged or not what they should be.
    """
    if isinstance(spec, Dataset):
        if train is not None or calibration is not None:
            raise ConfigError(
                "Expected paths or arrays beside the training or calibration data, got a loaded Dataset. "
                "Try giving all of them to data.load at once."
            )
        return spec
    if not 0 <= validation_share <= 1:
        raise ConfigError(f"Expected a share from 0 to 1 as validation_share, got {validation_share}. Try 0.2.")
    if calibration_samples < 1:
        raise ConfigError(f"Expected at least 1 as --calibration-samples, got {calibration_samples}. Try 200.")
    if color is not None and color not in _COLORS:
        raise ConfigError(f"Expected a colour mode as --color, got {color!r}.{suggestion(color, _COLORS)}")
    if spec is None and train is None and calibration is None:
        raise ConfigError("Expected data, got none. Try --data FILE.npz, or --data digits to look around.")
    steps = preprocessing or Preprocessing()
    if context < 1:
        raise ConfigError(f"Expected at least 1 token as --context, got {context}. Try {CONTEXT}.")
    read_as = Options(labels_column, color, steps.resize, None if tokenizer is None else str(tokenizer), context)
    opener = _Opener(read_as, labels, steps)

    if spec is None and train is None:
        lone = opener.open("calibration", calibration)
        chosen = lone.whole(("train", "all"))
        nothing, calibrating = chosen.head(0), chosen.take(calibration_samples, seed=seed)
        notes = (*lone.notes, "training, validation: none, only calibration data were given")
        return Dataset(calibrating, nothing, nothing, nothing, (lone.origin,), notes, seed)

    if train is not None and spec is not None:
        trainer, validator = opener.open("train", train), opener.open("data", spec)
        training, validation = trainer.whole(("train", "all")), validator.whole(("test", "val", "all"))
        tuning = validator.beside(validation) or trainer.beside(training)
        opened = [validator, trainer]
        notes = (*trainer.notes, *validator.notes)
    else:
        lone = opener.open("train", train) if spec is None else opener.open("data", spec)
        training, validation, said = lone.divided(validation_share, seed)
        tuning = lone.beside(training, validation)
        opened, notes = [lone], (*lone.notes, *said)
    if tuning is not None:
        notes = (*notes, f"tuning: the val split, {len(tuning)} samples that choices are made on")
    if calibration is not None:
        calibrator = opener.open("calibration", calibration)
        opened.append(calibrator)
        source, notes = calibrator.whole(("train", "all")), (*notes, *calibrator.notes)
    else:
        source = training
        notes = (*notes, f"calibration: {min(calibration_samples, len(source))} of the training samples")
    calibrating = source.take(calibration_samples, seed=seed)
    origins = tuple(one.origin for one in opened)
    return Dataset(calibrating, training, validation, tuning or validation.head(0), origins, notes, seed)


def source_of(spec: Any) -> Source:
    """Returns the kind of source that `spec` names.

    Raises:
        DataError: there is no such file, or its kind is not known.
    """
    if not isinstance(spec, (str, Path)):
        return SOURCES["arrays"]
    text, path = str(spec), Path(spec)
    for source in SOURCES.values():
        if text in source.names and not path.exists():
            return source
    with reading(path):
        if path.is_dir():
            records = any(_has_suffix(child.name, SOURCES["tfrecord"]) for child in path.iterdir())
            return SOURCES["tfrecord" if records else "masks" if are_pairs(path) else "images"]
        exists = path.exists()
    if exists:
        for source in SOURCES.values():
            if _has_suffix(path.name, source):
                return source
        known = ", ".join(suffix for source in SOURCES.values() for suffix in source.suffixes)
        raise DataError(
            f"Expected a data file ending in {known}, or a folder of images, got {text}. "
            "Try numpy.savez(file, x_train=..., y_train=..., x_test=..., y_test=...)."
        )
    if _FUNCTION.fullmatch(text):
        return SOURCES["function"]
    near = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
    names = [name for source in SOURCES.values() for name in source.names]
    raise DataError(
        f"Expected a file, a folder, package.module:function or one of {', '.join(names)} as data, got {text}, "
        f"which does not exist. Try another path.{_nearest(path.name, near)}"
    )


@dataclass(frozen=True)
class _Opened:
    """An opened source: its splits as parts that hold all of their samples."""

    origin: Origin
    parts: Mapping[str, Part]
    notes: tuple[str, ...]

    def whole(self, preferred: tuple[str, ...]) -> Part:
        """Returns the first of the preferred splits that is there, or the first of all."""
        return self.parts[next((name for name in preferred if name in self.parts), next(iter(self.parts)))]

    def beside(self, *used: Part) -> Part | None:
        """Returns the val split where it is none of the parts in use, and has samples."""
        part = self.parts.get("val")
        return part if part is not None and len(part) and all(part is not one for one in used) else None

    def divided(self, share: float, seed: int) -> tuple[Part, Part, tuple[str, ...]]:
        """Returns training, validation and what is to be said about them."""
        if len(self.parts) == 1:
            ((name, part),) = self.parts.items()
            validating = share_of_each_class(part, share, seed=seed)
            training = part.subset(np.flatnonzero(~validating))
            validation = part.subset(np.flatnonzero(validating))
            what = "the samples" if name == "all" else f"the {name} split, the only one"
            note = f"training, validation: {len(training)} and {len(validation)} of {what}, divided with seed {seed}"
            return training, validation, (note,)
        training_name = next(name for name in ("train", "all", "val") if name in self.parts)
        validation_name = next(n for n in ("test", "val", "all") if n in self.parts and n != training_name)
        unused = [name for name in self.parts if name not in (training_name, validation_name, "val")]
        notes = [f"validation: the {validation_name} split"]
        if unused:
            notes.append(f"not used: the {', '.join(unused)} split")
        return self.parts[training_name], self.parts[validation_name], tuple(notes)


@dataclass(frozen=True)
class _Opener:
    options: Options
    labels: str
    preprocessing: Preprocessing

    def open(self, role: str, spec: Any) -> _Opened:
        source = source_of(spec)
        splits: Splits = importlib.import_module(source.module).open_source(
            str(spec) if isinstance(spec, Path) else spec, self.options
        )
        kinds = recognize(splits.tables, kind=self.labels, class_names=splits.class_names)
        parts = {
            name: Part(table, preprocessing=self.preprocessing, labels=kinds[name])
            for name, table in splits.tables.items()
        }
        _require_one_layout(parts, str(spec))
        named = str(spec) if isinstance(spec, (str, Path)) else "arrays"
        path = str(Path(named).resolve()) if source.suffixes or Path(named).is_dir() else None
        return _Opened(Origin(role, source.name, named, path), parts, splits.notes)


def _require_one_layout(parts: Mapping[str, Part], where: str) -> None:
    layouts = {name: {s.name: s.shape for s in part.own_specs} for name, part in parts.items()}
    (first, expected), *others = layouts.items()
    for name, got in others:
        if got != expected:
            raise DataError(
                f"Expected samples of one shape in all splits of {where}, got {expected} in {first} and {got} in "
                f"{name}. "
                "Try saving them alike, or --resize for images."
            )


def _has_suffix(name: str, source: Source) -> bool:
    # Sharded records are called NAME.tfrecord-00000-of-00010.
    whole = re.sub(r"-\d+-of-\d+(?=$|\.gz$)", "", name.lower())
    return bool(source.suffixes) and whole.endswith(source.suffixes)


def _nearest(name: str, known: list[str]) -> str:
    hint = suggestion(name, known)
    return hint if "Did you mean" in hint else ""
