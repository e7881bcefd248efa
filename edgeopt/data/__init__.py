"""Samples to calibrate, train, tune and validate with: a path, a name or arrays go in, one streaming Dataset comes out.

Every kind of source is one module with `open_source(spec, options) -> Splits`; the table below is all that is known
of it elsewhere.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeopt.data.binding import bind, match_inputs
    from edgeopt.data.checks import check, guessing, refuted
    from edgeopt.data.dataset import Dataset, Part, fingerprint
    from edgeopt.data.loading import load, source_of
    from edgeopt.data.preprocessing import describe_preprocessing, parse_preprocessing, preprocess


@dataclass(frozen=True)
class Source:
    """A row of SOURCES.

    Attributes:
        name: as in reports.
        module: where `open_source()` is.
        summary: one line for help and docs, with what to write after `--data`.
        suffixes: files ending so belong to it.
        names: it is asked for by one of these words instead of a path.
    """

    name: str
    module: str
    summary: str
    suffixes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("npz", "edgeopt.data.npz", "F.npz with x_train, y_train, x_test, y_test, or x (and y)", (".npz",)),
        Source("npy", "edgeopt.data.npz", "F.npy: one array of samples without labels", (".npy",)),
        Source("images", "edgeopt.data.images", "a folder of images in class folders, also under train/, test/, val/"),
        Source(
            "masks",
            "edgeopt.data.masks",
            "a folder with images/ and masks/ of one name each, also under train/, test/, val/",
        ),
        Source("csv", "edgeopt.data.csv", "F.csv: numbers, one sample a line, and a label column", (".csv", ".tsv")),
        Source(
            "text",
            "edgeopt.data.text",
            "F.txt with --tokenizer: contexts of tokens and what follows each",
            (".txt",),
        ),
        Source(
            "tfrecord",
            "edgeopt.data.tfrecord",
            "F.tfrecord, or a folder of them: tf.train.Example records",
            (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz"),
        ),
        Source(
            "function", "edgeopt.data.function", "package.module:function giving arrays, batches or a tf.data.Dataset"
        ),
        Source(
            "digits", "edgeopt.data.digits", "digits: scikit-learn's 1797 digits, 8x8x1 in 0 to 1", names=("digits",)
        ),
        Source(
            "keras-datasets",
            "edgeopt.data.keras_datasets",
            "mnist, fashion_mnist, cifar10 or cifar100: downloaded by Keras once",
            names=("mnist", "fashion_mnist", "cifar10", "cifar100"),
        ),
        Source(
            "arrays", "edgeopt.data.arrays", "arrays at hand (Python only): x, (x, y), or a dict named as in an .npz"
        ),
    )
}

_HOMES = {
    "Dataset": "dataset",
    "Part": "dataset",
    "bind": "binding",
    "check": "checks",
    "describe_preprocessing": "preprocessing",
    "fingerprint": "dataset",
    "guessing": "checks",
    "load": "loading",
    "match_inputs": "binding",
    "parse_preprocessing": "preprocessing",
    "preprocess": "preprocessing",
    "refuted": "checks",
    "source_of": "loading",
}

__all__ = [
    "SOURCES",
    "Dataset",
    "Part",
    "Source",
    "bind",
    "check",
    "describe_preprocessing",
    "fingerprint",
    "guessing",
    "load",
    "match_inputs",
    "parse_preprocessing",
    "preprocess",
    "refuted",
    "source_of",
]


def __getattr__(name: str) -> Any:
    # NumPy is imported with the first use of data, not with the table that help texts read.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
