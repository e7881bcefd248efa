"""Scores of real files on real runtimes: the same predictions as one sample at a time, whatever the batch."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import compressed_models
import numpy as np
import pytest
import runtime_models
import scored_models
import sklearn.metrics

from edgeopt import data, evaluation, formats, frameworks, parity, progress, runtimes
from edgeopt.comparison import compare
from edgeopt.data import Part
from edgeopt.errors import ConfigError, DataError, ModelError, UnavailableError
from edgeopt.evaluation import Evaluation, Predictor, evaluate
from edgeopt.runtimes import RUNTIMES, Delegate
from edgeopt.runtimes.numbers import quantize
from edgeopt.store import Store
from edgeopt.vocabulary import Quantization, TensorSpec


@pytest.fixture(scope="module")
def models() -> dict[str, Path]:
    return scored_models.models()


@pytest.fixture(scope="module")
def digits() -> Part:
    return scored_models.digits().validation


@pytest.fixture(scope="module")
def even() -> Part:
    return scored_models.even_digits().validation


def plain_loop(file: Path, part: Part) -> np.ndarray:
    """What everybody writes: one sample at a time on LiteRT; outputs as they are stored."""
    interpreter = frameworks.load("litert").Interpreter(str(file))
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = inputs["quantization"]
    dtype = np.dtype(inputs["dtype"]).name
    spec = TensorSpec("x", tuple(inputs["shape"]), dtype, Quantization((scale,), (zero_point,)) if scale else None)
    results = []
    for sample in part.arrays().inputs["x"]:
        interpreter.set_tensor(inputs["index"], quantize(sample[None], spec))
        interpreter.invoke()
        results.append(interpreter.get_tensor(outputs["index"]))
    return np.concatenate(results)


@pytest.mark.parametrize(
    "name", ["net-float32", "net-int8", "net-int8-float-io", "stuck-float32", "autoencoder-float32"]
)
@pytest.mark.parametrize(("threads", "batch_size"), [(None, None), (1, 1), (2, 7), (3, 359)])
def test_outputs_are_those_of_a_plain_loop(
    models: dict[str, Path], digits: Part, name: str, threads: int | None, batch_size: int | None
) -> None:
    expected = plain_loop(models[name], digits)
    with Predictor(models[name], digits, RUNTIMES["litert"], threads=threads, batch_size=batch_size) as predictor:
        (output,) = (spec.name for spec in predictor.outputs)
        batches = predictor.part.batches(predictor.chunk_size)
        got = [raw[output] for raw in evaluation.in_threads(predictor.raw, batches, threads=predictor.threads)]
        assert predictor.batch_size == (1 if name.startswith("stuck") else batch_size or predictor.batch_size)
    assert np.concatenate(got).tobytes() == expected.tobytes()


@pytest.mark.parametrize("runtime", ["litert-builtin", "litert-reference", "tflite-runtime", "tflm"])
@pytest.mark.parametrize("name", ["net-float32", "net-int8"])
def test_batches_are_used_only_where_they_are_their_samples(
    models: dict[str, Path], digits: Part, runtime: str, name: str
) -> None:
    if not (found := runtimes.available(RUNTIMES[runtime])).available:
        pytest.skip(found.reason)
    few = digits.head(60)
    session = runtimes.open_session(models[name], RUNTIMES[runtime])
    spec = session.inputs[0]
    expected = np.concatenate(
        [session.run({spec.name: quantize(x[None], spec)})["kind"] for x in few.arrays().inputs["x"]]
    )
    with Predictor(models[name], few, RUNTIMES[runtime], batch_size=16) as predictor:
        assert predictor.raw(predictor.part.arrays())["kind"].tobytes() == expected.tobytes()
        assert (predictor.batch_size == 16) == (not predictor.notes)
        for note in predictor.notes:
            assert re.search("one sample at a time: (outputs of a batch of 16 differ|the graph or runtime)", note)


def test_a_score_is_the_share_of_a_plain_loop(models: dict[str, Path], digits: Part) -> None:
    labels = digits.arrays().labels
    for name in ("net-float32", "net-int8"):
        expected = plain_loop(models[name], digits).argmax(axis=1) == labels
        result = evaluate(models[name], digits)
        assert result.metric.name == "top1"
        assert result.metric.value == expected.mean() > 0.5
        assert result.metric.low < result.metric.value < result.metric.high
        assert (result.samples, result.runtime, result.notes) == (359, "litert", ())
        np.testing.assert_array_equal(result.rows[0], expected)


def test_threads_batches_and_the_process_change_nothing(models: dict[str, Path], digits: Part) -> None:
    first = evaluate(models["net-int8"], digits, metric="f1")
    for threads, batch_size, isolate in ((1, 1, False), (2, 50, False), (4, None, True)):
        other = evaluate(
            models["net-int8"], digits, metric="f1", threads=threads, batch_size=batch_size, isolate=isolate
        )
        assert other.metric == first.metric
        assert other.threads == threads
        np.testing.assert_array_equal(other.rows, first.rows)


def test_a_file_for_one_sample_says_so(models: dict[str, Path], digits: Part) -> None:
    result = evaluate(models["stuck-float32"], digits, batch_size=32, isolate=False)
    assert result.batch_size == 1
    assert result.notes == ("evaluated one sample at a time: the graph or runtime takes one sample at a time",)


def test_of_a_first_dimension_that_is_fixed_no_more_is_said_than_is_known() -> None:
    file = runtime_models.models()["time-major"]
    part = data.load((np.zeros((9, 1, 4), np.float32), np.zeros((9, 1, 4))), validation_share=1).validation
    (note,) = evaluate(file, part, metric="mse", isolate=False).notes
    assert re.search("first dimension of the inputs is fixed at 5.*does not say whether they are steps in time", note)
    (note,) = formats.facts(file).notes
    assert "first dimension, samples or steps in time, is fixed at 5" in note


@pytest.mark.parametrize("runtime", ["litert", "litert-builtin", "litert-reference", "tflite-runtime", "tflm"])
def test_no_sample_sees_the_state_that_another_left(runtime: str) -> None:
    if not (found := runtimes.available(RUNTIMES[runtime])).available:
        pytest.skip(found.reason)
    frames = np.random.default_rng(0).normal(size=(50, 1, 2)).astype(np.float32)
    part = data.load((frames, runtime_models.ring_output(frames)), validation_share=1).validation
    result = evaluate(runtime_models.models()["ring"], part, runtime=runtime, threads=2)
    assert (result.metric.name, result.metric.value) == ("mse", 0)


@pytest.mark.parametrize("runtime", ["litert", "litert-reference", "tflite-runtime"])
def test_a_file_of_any_size_takes_that_of_the_data(runtime: str) -> None:
    if not (found := runtimes.available(RUNTIMES[runtime])).available:
        pytest.skip(found.reason)
    file = runtime_models.models()["any-size"]
    photos = np.random.default_rng(0).normal(size=(9, 12, 10, 3)).astype(np.float32)
    session = runtimes.open_session(file, RUNTIMES["litert-builtin"])
    session.reshape({"photo": (1, 12, 10, 3)})
    targets = np.concatenate([next(iter(session.run({"photo": photo[None]}).values())) for photo in photos])
    part = data.load((photos, targets), validation_share=1).validation
    result = evaluate(file, part, runtime=runtime, threads=2)
    assert (result.metric.name, result.samples) == ("mse", 9)
    assert result.metric.value < 1e-10
    rows = parity.check(file, runtimes.to_try([], form="tflite")[:4], part)
    assert [row.matches_reference for row in rows] == [True] * 4
    assert all(row.matches_reference for row in parity.check(file, runtimes.to_try([], form="tflite")[:4]))
    found = compare(file, file, part, runtime_b=runtime)
    assert found.outputs[0].sqnr_db > 100


def test_two_files_are_compared_in_pairs(models: dict[str, Path], digits: Part) -> None:
    good = evaluate(models["bad-float32"], digits, isolate=False)
    bad = evaluate(models["bad-int8"], digits, isolate=False)
    found = bad.difference(good)
    assert found.value == pytest.approx(100 * (good.metric.value - bad.metric.value))
    assert found.value > 20
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert good.difference(good).p_value == 1.0
    with pytest.raises(ConfigError, match=r"two scores by one metric, got top1 and top5\. Try --metric top1"):
        evaluate(models["bad-int8"], digits, metric="top5", isolate=False).difference(good)


@pytest.mark.parametrize(("name", "threshold"), [("even-float32", 0.5), ("even-int8", 0.5), ("logit-float32", 0.0)])
def test_one_sigmoid_or_logit(models: dict[str, Path], even: Part, name: str, threshold: float) -> None:
    part = even
    with Predictor(models[name], part, RUNTIMES["litert"]) as predictor:
        (scores,) = predictor.values(predictor.part.arrays()).values()
    labels = part.arrays().labels
    result = evaluate(models[name], part, isolate=False)
    assert result.metric.name == "top1"
    assert result.metric.value == pytest.approx(((scores[:, 0] > threshold) == labels).mean())
    auc = evaluate(models[name], part, metric="auc", isolate=False)
    assert auc.metric.value == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores[:, 0]))


def test_an_autoencoder(models: dict[str, Path], digits: Part, even: Part) -> None:
    x = digits.arrays().inputs["x"]
    errors = ((plain_loop(models["autoencoder-float32"], digits) - x) ** 2).mean(axis=(1, 2, 3))
    unlabelled = data.load((x,), validation_share=1).validation
    result = evaluate(models["autoencoder-float32"], unlabelled, isolate=False)
    assert result.metric.name == "reconstruction"
    assert result.metric.value == pytest.approx(errors.mean(), rel=1e-5)
    result = evaluate(models["autoencoder-float32"], even, isolate=False)
    assert result.metric.name == "auc-reconstruction"
    assert result.metric.value == pytest.approx(sklearn.metrics.roc_auc_score(even.arrays().labels, errors))


def test_an_output_of_several(models: dict[str, Path], digits: Part) -> None:
    file = models["heads-float32"]
    with Predictor(file, digits, RUNTIMES["litert"]) as predictor:
        names = [spec.name for spec in predictor.outputs]
        scores = predictor.values(predictor.part.arrays())
    (kind,) = (name for name, values in scores.items() if values.shape[1] == 10)
    result = evaluate(file, digits, output=kind, isolate=False)
    assert result.metric.value == (scores[kind].argmax(axis=1) == digits.arrays().labels).mean()
    with pytest.raises(
        ConfigError, match=f"which of the outputs {', '.join(names)} the labels are for. Try --output-name"
    ):
        evaluate(file, digits, isolate=False)
    bare = data.load({"x": digits.arrays().inputs["x"]}, validation_share=1).validation
    with pytest.raises(DataError, match=f"labels for one of the outputs {', '.join(names)}, got none. Try data with y"):
        evaluate(file, bare, isolate=False)
    with pytest.raises(ConfigError, match=r"one of the model's outputs as --output-name, got 'kinds'"):
        evaluate(file, digits, output="kinds", isolate=False)
    bare = data.load({"x": digits.arrays().inputs["x"]}, validation_share=1).validation
    words = rf"labels for one of the outputs {', '.join(names)}, got none\. Try .*y_test_{names[0]}.*`edgeopt compare`"
    with pytest.raises(DataError, match=words):
        evaluate(file, bare, isolate=False)
    with pytest.raises(DataError, match=r"got no labels and outputs \(10,\)\. Try .*`edgeopt compare` holds two files"):
        evaluate(file, bare, output=kind, isolate=False)
    # What needs none scores them all the same.
    assert evaluate(file, bare, metric="my_metrics:agreeing", isolate=False).metric.value == 1


def test_ones_own_metric_of_all_outputs_at_once(models: dict[str, Path], digits: Part, tmp_path: Path) -> None:
    file, x, y = models["heads-float32"], digits.arrays().inputs["x"], digits.arrays().labels
    kind = evaluate(file, digits, output="kind", isolate=False)
    found = evaluate(file, digits, metric="my_metrics:both")
    assert (found.metric.name, found.metric.value, found.outputs) == ("my_metrics:both", kind.metric.value, ())
    named = {"x": x, "y_kind": y, "y_late": np.zeros((len(y), 16))}
    several = evaluate(
        file, data.load(named, validation_share=1).validation, metric="my_metrics:both_rate", isolate=False
    )
    assert several.metric.value == pytest.approx(found.metric.value)
    assert several.metric.low < several.metric.value < several.metric.high
    assert several.difference(several).p_value == 1
    for _ in range(2):  # as it was made, and as it was stored
        kept = Store(tmp_path).remember("evaluate", {}, Evaluation, lambda: several)
        assert kept.difference(several).value == 0
    with pytest.raises(ConfigError, match=r"Expected my_metrics:both alone as --metric, which takes all 2 outputs at"):
        evaluate(file, digits, metric="my_metrics:both,kind=top1", isolate=False)
    with pytest.raises(ConfigError, match=r"The metric my_metrics:both failed: IndexError"):
        evaluate(file, digits, metric="my_metrics:both", output="kind", isolate=False)


def test_ones_own_metric_is_found_by_the_worker(models: dict[str, Path], digits: Part) -> None:
    top1 = evaluate(models["net-int8"], digits)
    own = evaluate(models["net-int8"], digits, metric="my_metrics:hits")
    assert own.metric.value == top1.metric.value


def test_a_float_file_scores_as_the_keras_model(models: dict[str, Path], digits: Part) -> None:
    model = frameworks.load("tf_keras").models.load_model(models["keras2"], compile=False)
    float32 = evaluate(models["net-float32"], digits)
    assert float32.metric.value == compressed_models.accuracy(model, digits)


def test_outputs_that_are_not_finite_are_noted(models: dict[str, Path], digits: Part) -> None:
    batch = digits.arrays()

    def told(value: float) -> str:
        x = batch.inputs["x"].copy()
        x[7:12] = value
        part = data.load((x, batch.labels), validation_share=1).validation
        result = evaluate(models["net-float32"], part, isolate=False)
        assert not result.rows[0][7:12].any()
        (note,) = result.notes
        return note

    begins = "outputs of 5 samples are not finite; in the first of them it begins with "
    assert told(np.inf) == f"{begins}the input 'picture'"
    # Sums of such are more than a float32 holds, in one layer or the next.
    assert re.fullmatch(rf"{begins}the tensor 'model/(early|middle|late)/\S*'", told(3e38))


def test_progress_reaches_the_listener_from_the_worker(models: dict[str, Path], digits: Part) -> None:
    news: list[progress.Progress] = []
    with progress.listening(news.append):
        evaluate(models["net-int8"], digits)
    assert [(n.task, n.total) for n in news] == [("evaluate", 359)] * len(news)
    assert (news[0].done, news[-1].done) == (0, 359)


def test_memory_does_not_hold_the_data(models: dict[str, Path], tmp_path: Path) -> None:
    count, seen = 20_000, []
    np.savez(tmp_path / "many.npz", x=np.zeros((count, 8, 8, 1), np.float32), y=np.zeros(count, np.int64))
    part = data.load(tmp_path / "many.npz", validation_share=1).validation
    with Predictor(models["net-int8"], part, RUNTIMES["litert"], threads=2) as predictor:

        def watched() -> object:
            for number, batch in enumerate(predictor.part.batches(predictor.chunk_size)):
                seen.append(number)
                yield batch

        for done, _ in enumerate(evaluation.in_threads(predictor.raw, watched(), threads=2)):
            assert seen[-1] - done <= 2 * 2 + 1  # read ahead of what was handed on
        assert predictor.chunk_size * 8 * 8 * 4 < 4 << 20


def test_errors_in_threads_come_out() -> None:
    with pytest.raises(ZeroDivisionError):
        list(evaluation.in_threads(lambda n: 1 // n, [1, 0, 1], threads=2))


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"metric": "top_1"}, ConfigError, "Expected a metric, got 'top_1'. Did you mean 'top1'?"),
        ({"runtime": "litterrt"}, ConfigError, "Did you mean 'litert'?"),
        ({"runtime": "litert==0.1"}, UnavailableError, "Expected litert==0.1, got litert "),
        ({"threads": 0}, ConfigError, "Expected a positive number as --threads, got 0"),
        ({"batch_size": -1}, ConfigError, "Expected a positive number as --batch-size, got -1"),
        ({"delegate": Delegate(Path("missing.so"))}, UnavailableError, "missing.so, which does not exist"),
    ],
)
def test_options_that_name_nothing(
    models: dict[str, Path], digits: Part, settings: dict, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        evaluate(models["net-int8"], digits, **settings)


def test_data_that_do_not_fit(models: dict[str, Path], digits: Part) -> None:
    batch = digits.arrays()
    x, y = batch.inputs["x"], batch.labels

    def part(*arrays: np.ndarray) -> Part:
        return data.load(arrays, validation_share=1).validation

    with pytest.raises(DataError, match=r"Expected labels 0\.\.9 for 10 outputs, got up to 11"):
        evaluate(models["net-int8"], part(x, y + 2))
    with pytest.raises(DataError, match="Expected labels, or outputs shaped like an input"):
        evaluate(models["net-int8"], part(x), isolate=False)
    with pytest.raises(DataError, match=r"Expected \(8, 8, 1\) per sample as input 'picture', got \(4, 8, 1\)"):
        evaluate(models["net-int8"], part(x[:, :4], y), isolate=False)
    with pytest.raises(DataError, match="Expected samples to evaluate on, got none"):
        evaluate(models["net-int8"], digits.head(0), isolate=False)


def test_files_that_are_none(tmp_path: Path, digits: Part) -> None:
    text = tmp_path / "text.tflite"
    text.write_text("a model, honestly")
    with pytest.raises(ModelError, match="whose bytes 4 to 8 are not 'TFL3'"):
        evaluate(text, digits)
    with pytest.raises(ModelError, match="No such file"):
        evaluate(tmp_path / "missing.tflite", digits)


def die(predictions: np.ndarray, labels: np.ndarray) -> float:
    """A metric that takes the process with it, as a runtime may."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0.0


def test_a_death_in_the_worker_is_an_error_here(models: dict[str, Path], digits: Part) -> None:
    with pytest.raises(ModelError, match=r"litert died on net-int8.tflite \(segmentation fault\)"):
        evaluate(models["net-int8"], digits, metric="test_evaluation:die")
    assert evaluate(models["net-int8"], digits).samples == 359


@pytest.mark.shared
def test_files_of_others(shared: Path) -> None:
    features = np.random.default_rng(0).normal(size=(50, 640)).astype(np.float32)
    part = data.load((features, np.arange(50) % 2), validation_share=1).validation
    for name in ("ad01_fp32.tflite", "ad01_int8.tflite"):
        result = evaluate(shared / "models" / name, part)
        assert result.metric.name == "auc-reconstruction"
        assert 0 <= result.metric.low <= result.metric.value <= result.metric.high <= 1
