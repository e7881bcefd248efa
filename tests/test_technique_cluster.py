"""Clustering leaves few distinct weights in the Keras model and in the converted files, and keeps zeros."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import compressed_models
import numpy as np
import pytest

from edgeopt.data import Dataset
from edgeopt.errors import ConfigError
from edgeopt.frameworks import load
from edgeopt.inspection.keras_layers import KerasCount
from edgeopt.techniques import cluster
from edgeopt.techniques.cluster import Cluster
from edgeopt.techniques.cluster_values import first_values, symmetric_values
from edgeopt.techniques.contract import Carried
from edgeopt.vocabulary import Promise, Property, StepRecord


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return compressed_models.digits()


@pytest.fixture(scope="module")
def model() -> Any:
    return compressed_models.cnn()


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Callable[..., tuple[Any, StepRecord]]:
    def run(model: Any, properties: Any = frozenset(), **choices: Any) -> tuple[Any, StepRecord]:
        step = Cluster(**{"epochs": 1, "batch_size": 32, **choices})
        return cluster.apply(step, model, dataset, Carried(tmp_path, properties=frozenset(properties)))

    return run


@pytest.fixture(scope="module")
def clustered(model: Any, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, StepRecord]:
    step = Cluster(clusters=8, epochs=2, batch_size=32)
    return cluster.apply(step, model, dataset, Carried(tmp_path_factory.mktemp("clustered")))


def change(record: StepRecord, layer: str) -> Any:
    return next(change for change in record.layers if change.layer == layer)


def distinct(values: Any) -> int:
    return len(np.unique(np.asarray(values)))


def test_every_layer_has_so_many_values_and_the_rest_is_left_alone(model: Any, clustered: Any) -> None:
    result, record = clustered
    found = {name: distinct(result.get_layer(name).kernel) for name in ("stem", "point", "hidden", "scores")}
    assert all(2 < count <= 8 for count in found.values())
    assert distinct(result.get_layer("depth").depthwise_kernel) == 3 * 3 * 8
    assert change(record, "hidden").done == "8 values in the layer"
    assert change(record, "depth").reason.startswith("depthwise kernels are few and fragile")
    assert all(promise.kept for promise in record.promises)
    assert [(type(a), a.name) for a in result.layers] == [(type(b), b.name) for b in model.layers]


def test_values_are_trained(model: Any, clustered: Any) -> None:
    first = np.unique(model.get_layer("hidden").kernel.numpy())
    assert len(first) > 1000
    assert clustered[1].history[-1]["loss"] < clustered[1].history[0]["loss"]


@pytest.mark.parametrize("scheme", ["float32", "int8", "float16"])
def test_values_are_counted_in_the_file(clustered: Any, dataset: Dataset, scheme: str) -> None:
    result, record = clustered
    promises = cluster.check(Cluster(), record, compressed_models.converted(result, scheme, dataset))
    assert [promise.kept for promise in promises] == [True] * 4
    # Normalization is folded into the stem alone; int8 gives every channel a scale of its own.
    whole = "distinct weights in a channel" if scheme == "int8" else "distinct weights"
    assert [promise.kind for promise in promises[:3]] == ["distinct weights in a channel", whole, whole]


def test_a_file_of_the_model_before_breaks_the_promise(model: Any, clustered: Any, dataset: Dataset) -> None:
    promises = cluster.check(Cluster(), clustered[1], compressed_models.converted(model, "float32", dataset))
    # A channel of the stem has 9 weights, one of the 1x1 convolution 8.
    assert [promise.kept for promise in promises] == [False] * 4


def test_a_kernel_that_cannot_be_told_is_vouched_for_by_all_weights(clustered: Any, dataset: Dataset) -> None:
    result, record = clustered
    lost = replace(record, promises=(Promise("distinct weights", "gone/kernel", limit=8, of=7),))
    promise = cluster.check(Cluster(), lost, compressed_models.converted(result, "float32", dataset))[0]
    assert promise.kept is False  # the depthwise kernels have nine in each channel
    assert promise.note == "its tensor cannot be told in the file: counted in all weights"


def test_binary_weights_in_each_channel(model: Any, dataset: Dataset, run: Any) -> None:
    result, record = run(model, clusters=2, per_channel=True)
    kernel = result.get_layer("hidden").kernel.numpy()
    assert {distinct(channel) for channel in kernel.T} == {2}
    assert distinct(kernel) > 2
    assert any("weights are binary: no runtime here computes with them faster" in note for note in record.notes)
    for scheme in ("float32", "int8"):
        promises = cluster.check(Cluster(), record, compressed_models.converted(result, scheme, dataset))
        assert all(promise.kept for promise in promises)
        assert (promises[-1].kind, promises[-1].measured) == ("distinct weights in a channel", 2)


@pytest.mark.parametrize("clusters", [2, 3, 5])
def test_symmetric_values_in_each_channel(clusters: int, model: Any, dataset: Dataset, run: Any) -> None:
    result, record = run(model, clusters=clusters, per_channel=True, symmetric=True)
    kernel = result.get_layer("hidden").kernel.numpy()
    for channel in kernel.T:
        values = np.unique(channel)
        assert len(values) <= clusters
        np.testing.assert_allclose(values, -values[::-1], rtol=1e-6)
        assert (clusters % 2 == 1) == (0 in values)
    promises = cluster.check(Cluster(), record, compressed_models.converted(result, "int8", dataset))
    assert all(promise.kept for promise in promises)


@pytest.mark.parametrize("clusters", [2, 3])
def test_the_first_and_the_last_layer_are_spared_so_few_values(clusters: int, model: Any, run: Any) -> None:
    _, record = run(model, clusters=clusters, per_channel=True)
    for name in ("stem", "scores"):
        assert change(record, name).reason == (
            f"the first and the last layer bear no {clusters} values: name the layer to cluster it"
        )
    _, record = run(model, clusters=clusters, per_channel=True, layers=("stem", "hidden"))
    assert change(record, "stem").done == f"{clusters} values in each channel"


def test_channels_are_those_of_the_kernels_kind(dataset: Dataset, run: Any) -> None:
    layers = load("tf_keras").layers
    x = inputs = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, name="plain")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depth")(x)
    x = layers.Conv2DTranspose(5, 3, name="up")(x)
    model = load("tf_keras").Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    result, record = run(model, clusters=3, per_channel=True, layers=("plain", "depth", "up"))
    depth = result.get_layer("depth").depthwise_kernel.numpy()
    assert {distinct(depth[..., c, m]) for c in range(6) for m in range(2)} == {3}
    up = result.get_layer("up").kernel.numpy()
    assert {distinct(up[:, :, channel]) for channel in range(5)} == {3}
    for scheme in ("float32", "int8"):
        promises = cluster.check(Cluster(), record, compressed_models.converted(result, scheme, dataset))
        assert [promise.kept for promise in promises] == [True] * 3


def test_zeros_stay_and_are_one_of_the_values(model: Any, dataset: Dataset, run: Any) -> None:
    sparse = load("tf_keras").models.clone_model(model)
    sparse.set_weights([np.where(np.abs(w) < 0.1, 0, w) if w.ndim > 1 else w for w in model.get_weights()])
    result, record = run(sparse, {Property.SPARSE}, clusters=4)
    before, after = (m.get_layer("hidden").kernel.numpy() for m in (sparse, result))
    assert (after[before == 0] == 0).all()
    assert distinct(after) == 4
    promises = cluster.check(Cluster(), record, compressed_models.converted(result, "int8", dataset))
    assert all(promise.kept for promise in promises)


def test_binary_weights_of_a_pruned_model_are_refused(model: Any, run: Any) -> None:
    with pytest.raises(ConfigError, match="at least 3 clusters for a pruned model, whose zeros are one of them"):
        run(model, {Property.SPARSE}, clusters=2)


def test_a_layer_of_fewer_weights_than_clusters_is_left_alone(model: Any, run: Any) -> None:
    _, record = run(model, clusters=100)
    assert change(record, "stem").reason == "it has no more weights than 100 clusters (72 in all)"
    assert change(record, "hidden").done == "100 values in the layer"


def test_a_model_with_nothing_to_cluster_is_refused(model: Any, run: Any) -> None:
    with pytest.raises(ConfigError, match=r"layers to cluster, got none: .*it has no kernels; it was not asked for"):
        run(model, layers=("norm",))


@pytest.mark.parametrize("initialization", ["linear", "random", "density", "kmeans++"])
def test_every_initialization_starts_inside_the_weights(initialization: str) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 500)).astype(np.float32)
    counted = rows != rows.max()
    values = first_values(rows, counted, 7, initialization, seed=0)
    assert values.shape == (3, 7)
    assert (np.diff(values) >= 0).all()
    assert (values >= rows.min(axis=1, keepdims=True)).all()
    assert (values <= rows.max(axis=1, keepdims=True)).all()


def test_binary_values_start_at_the_mean_and_ternary_ones_beyond_a_threshold() -> None:
    row = np.float32([-4, -1, 0.5, 2, 0.1, 9])
    counted = row < 9
    two = symmetric_values(row[None], counted[None], 2)[0]
    mean = (4 + 1 + 0.5 + 2 + 0.1) / 5
    np.testing.assert_allclose(two, [-mean, mean], rtol=1e-6)
    three = symmetric_values(row[None], counted[None], 3)[0]
    np.testing.assert_allclose(three, [-(4 + 2) / 2, 0, (4 + 2) / 2], rtol=1e-6)  # 0.7 * 1.52 is 1.064
    assert symmetric_values(np.zeros((1, 5), np.float32), np.ones((1, 5), bool), 3).tolist() == [[0, 0, 0]]
    assert symmetric_values(row[None], np.zeros((1, 6), bool), 2).tolist() == [[0, 0]]


def test_what_is_clustered_already_starts_from_its_own_values() -> None:
    rows = np.random.default_rng(0).choice(np.float32([-1, 0.5, 2]), size=(1, 100))
    assert set(first_values(rows, rows < 9, 4, "kmeans++", seed=0)[0]) == {-1.0, 0.5, 2.0}


def test_a_killed_run_goes_on_with_its_values(model: Any, dataset: Dataset, tmp_path: Path) -> None:
    step = Cluster(clusters=8, epochs=1, batch_size=32)
    whole, _ = cluster.apply(step, model, dataset, Carried(tmp_path))
    again, record = cluster.apply(step, model, dataset, Carried(tmp_path))
    assert len(record.history) == 1
    for before, after in zip(whole.get_weights(), again.get_weights()):
        assert np.array_equal(before, after)


def test_the_prediction_says_what_will_and_what_will_not_be(model: Any) -> None:
    facts = KerasCount(model).facts("")
    told = cluster.predict(Cluster(clusters=16), facts)
    assert told.gain.startswith("16 clusters: the gzipped int8 weights shrink to about")
    assert "4 bits a weight" in told.reason
    assert "the file stays as large, and LiteRT multiplies with every weight" in told.reason
    binary = cluster.predict(Cluster(clusters=2, per_channel=True), facts)
    assert "binary weights cost points of accuracy on small models" in binary.reason
    ternary = cluster.predict(Cluster(clusters=3, per_channel=True), facts)
    assert "1.58 bits a weight" in ternary.reason
    assert "ternary weights cost points" in ternary.reason
