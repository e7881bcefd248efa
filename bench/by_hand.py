"""What one writes by hand with tfmot, after its tutorials: a Keras 2 model, data and a technique go in, int8 comes out.

    python -m bench.by_hand prune model.h5 data.npz out.tflite --sparsity 0.8 --epochs 6 --work work

Every technique trains for the same number of epochs as ours, with the optimizer of its tutorial, on the labels alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

BATCH = 64


def fit(model: Any, x: Any, y: Any, epochs: int, rate: float, callbacks: Any = ()) -> None:
    """Trains as the tutorials do."""
    model.compile(tf_keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=BATCH, epochs=epochs, callbacks=list(callbacks), verbose=0)


def prune(model: Any, x: Any, y: Any, epochs: int, sparsity: float) -> Any:
    """The pruning tutorial: polynomial decay to the end of the training."""
    steps = -(-len(x) // BATCH) * epochs
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=steps)
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    fit(wrapped, x, y, epochs, 1e-3, [tfmot.sparsity.keras.UpdatePruningStep()])
    return tfmot.sparsity.keras.strip_pruning(wrapped)


def cluster(model: Any, x: Any, y: Any, epochs: int, clusters: int, *, sparse: bool = False) -> Any:
    """The clustering tutorial, or, of a sparse model, the collaborative one."""
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as experimental

    centroids = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    options: dict[str, Any] = {"number_of_clusters": clusters, "cluster_centroids_init": centroids}
    if sparse:
        wrapped = experimental.cluster_weights(model, preserve_sparsity=True, **options)
    else:
        wrapped = tfmot.clustering.keras.cluster_weights(model, **options)
    fit(wrapped, x, y, epochs, 1e-5)
    return tfmot.clustering.keras.strip_clustering(wrapped)


def qat(model: Any, x: Any, y: Any, epochs: int, scheme: Any = None) -> Any:
    """The quantization-aware training tutorial, or one of the collaborative ones."""
    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    wrapped = tfmot.quantization.keras.quantize_apply(annotated, scheme) if scheme else None
    wrapped = wrapped or tfmot.quantization.keras.quantize_model(model)
    fit(wrapped, x, y, epochs, 1e-4)
    return wrapped


def student(model: Any, x: Any, y: Any, epochs: int, width: float) -> Any:
    """A network of the same kind with fewer channels, trained from scratch."""
    config = model.get_config()
    for layer in config["layers"]:
        for size in {"filters", "units"} & set(layer["config"]):
            if layer["name"] != config["output_layers"][0][0]:
                layer["config"][size] = round(width * layer["config"][size])
    narrower = tf_keras.Model.from_config(config)
    fit(narrower, x, y, epochs, 1e-3)
    return narrower


def once(path: Path, make: Callable[[], Any]) -> Any:
    """Returns the model in `path`; where there is none yet, `make` makes it: PQAT goes on from what was pruned."""
    if path.exists():
        return tf_keras.models.load_model(path, compile=False)
    model = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def without_rescaling(model: Any) -> tuple[Any, float, float]:
    """Returns the model without its Rescaling, which tfmot refuses, and what that did: scale and offset."""
    layer = next((one for one in model.layers if isinstance(one, tf_keras.layers.Rescaling)), None)
    if layer is None:
        return model, 1.0, 0.0
    inputs = tf_keras.Input(model.input_shape[1:])
    outputs = {layer.output.ref(): inputs}
    for one in model.layers[model.layers.index(layer) + 1 :]:
        given = one.input if isinstance(one.input, list) else [one.input]
        values = [outputs[tensor.ref()] for tensor in given]
        outputs[one.output.ref()] = one(values if len(values) > 1 else values[0])
    return tf_keras.Model(inputs, outputs[model.output.ref()]), float(layer.scale), float(layer.offset)


def convert(model: Any, x: Any, *, trained_ranges: bool) -> bytes:
    """Returns the model in int8, calibrated with 200 samples where its ranges were not trained."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if not trained_ranges:
        converter.representative_dataset = lambda: ([sample[None]] for sample in x[:200])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return bytes(converter.convert())


def main() -> None:
    """Runs one technique, or several in the order of the collaborative tutorials."""
    parser = argparse.ArgumentParser()
    for name in ("technique", "model", "data", "output"):
        parser.add_argument(name)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--clusters", type=int, default=16)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="keeps what was pruned or clustered")
    said = parser.parse_args()
    tf_keras.utils.set_random_seed(said.seed)
    model = tf_keras.models.load_model(said.model, compile=False)
    with np.load(said.data) as data:
        x, y = data["x_train"].astype(np.float32), data["y_train"].astype(np.int64)
    model, scale, offset = without_rescaling(model)
    x = x * scale + offset
    combine = tfmot.experimental.combine
    if said.technique in ("prune", "pqat", "pcqat"):
        model = once(said.work / "pruned.h5", partial(prune, model, x, y, said.epochs, said.sparsity))
    if said.technique in ("cluster", "cqat"):
        model = once(said.work / "clustered.h5", partial(cluster, model, x, y, said.epochs, said.clusters))
    elif said.technique == "pcqat":
        model = cluster(model, x, y, said.epochs, said.clusters, sparse=True)
    if said.technique == "student":
        model = student(model, x, y, said.epochs, said.width)
    schemes = {
        "pqat": combine.Default8BitPrunePreserveQuantizeScheme,
        "cqat": combine.Default8BitClusterPreserveQuantizeScheme,
        "pcqat": lambda: combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True),
    }
    if "qat" in said.technique:
        scheme = schemes[said.technique]() if said.technique in schemes else None
        model = qat(model, x, y, said.epochs, scheme)
    with open(said.output, "wb") as file:
        file.write(convert(model, x, trained_ranges="qat" in said.technique))
    print(json.dumps({"scale": scale, "offset": offset}))


if __name__ == "__main__":
    main()
