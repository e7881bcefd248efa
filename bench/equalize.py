"""What int8 leaves of networks whose channels differ a thousandfold, before and after `equalize`.

    python -m bench.equalize MODEL DATA

MODEL is a trained chain of convolutions, normalizations and ReLU, such as a DS-CNN. Its channels are multiplied by
known factors, and the next layers' weights divided by them (`bench/uneven.py`): the float model computes what it did,
so what equalization has to reach is known. The table goes to docs/equalization.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench import common, uneven
from edgeopt import data, files, frameworks, graph
from edgeopt.conversion import Converter, ConvertOptions
from edgeopt.evaluation import evaluate
from edgeopt.loading import LoadedModel, load_model
from edgeopt.schemes import SCHEMES
from edgeopt.techniques import Carried, technique

PAGE = Path(__file__).parents[1] / "docs" / "equalization.md"
_SCHEMES = ("float32", "int8", "int8-per-tensor")


def main() -> None:
    """Prints the table and puts it into the page, in the place of its last edition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--title", help="the page's section; the model's name when not given")
    said = parser.parse_args()
    table = measured(said.model, data.load(said.data))
    print(table)
    title = said.title or said.model.stem
    files.atomic_write(PAGE, common.with_measured(PAGE.read_text(encoding="utf-8"), title, table))


def measured(path: Path, dataset: data.Dataset) -> str:
    """Returns the scores of a model, the same with uneven channels, and that equalized."""
    loaded = load_model(path)
    dataset = data.bind(dataset, loaded.inputs)
    trained = graph.flatten(loaded.keras)
    ruined = graph.flatten(trained)
    uneven.undo(ruined, uneven.SPREAD)
    row = technique("equalize")
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as name:
        folder = Path(name)
        even, _ = row.apply(row.typical, ruined, dataset, Carried(folder))
        for title, model in (("as trained", trained), (f"{uneven.SPREAD:g}-fold", ruined), ("then `equalize`", even)):
            made = _files(model, loaded, dataset, folder)
            rows.append([title, *(f"{100 * _score(made[kind], dataset):.2f}" for kind in (*_SCHEMES, "static"))])
        repair = technique("correct-bias")
        carried = Carried(folder, converted=made["int8-per-tensor"])
        scheme = SCHEMES["int8-per-tensor"]
        mended, _ = repair.apply(repair.typical, made["float32"], scheme, dataset.calibration, carried)
        rows.append(["and `correct-bias`", "", "", f"{100 * _score(mended, dataset):.2f}", ""])
    return common.markdown(["channels", *_SCHEMES, "ai-edge-quantizer, static int8"], rows)


def _files(model: Any, loaded: LoadedModel, dataset: data.Dataset, folder: Path) -> dict[str, Path]:
    """Returns the model in every scheme, and as ai-edge-quantizer's recipe makes it."""
    held = LoadedModel(loaded.path, loaded.source_format, loaded.inputs, loaded.outputs, model)
    converter = Converter(held, ConvertOptions(calibration=dataset.calibration))
    made = {}
    for name in _SCHEMES:
        made[name] = folder / f"{name}.tflite"
        made[name].write_bytes(converter.to_bytes(SCHEMES[name]))
    made["static"] = folder / "static.tflite"
    made["static"].write_bytes(_by_recipe(made["float32"], dataset))
    return made


def _by_recipe(file: Path, dataset: data.Dataset) -> bytes:
    """Returns the file quantized by ai-edge-quantizer's own static recipe, on the same samples."""
    package = frameworks.load("ai_edge_quantizer")
    from ai_edge_quantizer import recipe

    work = package.Quantizer(str(file), recipe.static_wi8_ai8())
    runner = frameworks.load("litert").Interpreter(model_path=str(file))
    ((key, signature),) = runner.get_signature_list().items()
    samples = [
        dict(zip(signature["inputs"], batch.inputs.values(), strict=True)) for batch in dataset.calibration.batches(1)
    ]
    return bytes(work.quantize(work.calibrate({key: samples})).quantized_model)


def _score(file: Path, dataset: data.Dataset) -> float:
    return evaluate(file, dataset.validation).metric.value


if __name__ == "__main__":
    main()
