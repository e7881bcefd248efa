"""What a file lost is shown and named with its cause; of faithful files nothing is said."""

from __future__ import annotations

import math
from pathlib import Path

import fidelity_models as models
import numpy as np
import pytest
import scored_models
from command_line import edgeopt

import edgeopt as api
from edgeopt import frameworks
from edgeopt.data import Part
from edgeopt.errors import ConfigError, DataError, ModelError
from edgeopt.evaluation import Predictor, evaluate
from edgeopt.fidelity import SAMPLES, measure
from edgeopt.fidelity.structure import layouts
from edgeopt.plain import from_plain, to_plain
from edgeopt.report import fidelity as words
from edgeopt.report import read_report
from edgeopt.rounding.walk import stored_in
from edgeopt.runtimes import RUNTIMES
from edgeopt.schemes import SCHEMES
from edgeopt.tflite.pairing import pair_weights
from edgeopt.tflite.reader import read
from edgeopt.vocabulary import Fidelity, OutputFidelity, Problem

X = models.normal(models.SAMPLES, 8)
ROWS = models.part(X)
HEADS = {"standard", "small", "scores", "boxes", "unit", "rare", "logits", "constant"}


def measured(name: str, scheme: str, part: Part = ROWS, **options: object) -> Fidelity:
    folder = models.models()
    reference, file = folder / f"{name}.float32.tflite", folder / f"{name}.{scheme}.tflite"
    return measure(reference, file, part, isolate=False, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def heads() -> dict[str, Fidelity]:
    """Each scheme of the model of many outputs, beside the float file."""
    return {scheme: measured("heads", scheme) for scheme in models.SCHEMES["heads"][1:]}


def the_problem(found: Fidelity, output: str | None = None) -> Problem:
    (problem,) = (problem for problem in found.problems if output in (None, problem.output))
    return problem


def the_output(found: Fidelity, name: str) -> OutputFidelity:
    return next(output for output in found.outputs if output.name == name)


def columns(name: str) -> Part:
    return models.part(*models.columns(name))


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["int8", "int8-float-io"])
def test_a_column_that_its_inputs_step_swallows(scheme: str) -> None:
    found = measured("columns", scheme, columns("columns"))
    assert found.reference_metric is not None
    assert found.metric is not None
    assert found.reference_metric.value == 1.0
    assert found.metric.value < 0.7
    problem = the_problem(found)
    assert (problem.what, problem.cause, problem.input) == ("score", "input", "row")
    assert problem.measured == pytest.approx(100 * (1 - found.metric.value))
    # From below 0 to above 5000 in 255 steps.
    (row,) = found.inputs
    assert row.step == pytest.approx(5900 / 255, rel=0.1)
    assert [one.index for one in problem.columns] == [1, 2]
    assert problem.columns[0].spread == pytest.approx(0.004, rel=0.1)
    assert problem.columns[0].steps == pytest.approx(problem.columns[0].spread / row.step)
    assert problem.ways_out == ("normalize-outside",)
    assert words.problem(problem, found) == (
        f"top1 is {100 * found.metric.value:.2f} % where the float model's is 100.00 % (300 samples, p<0.001): "
        f"component 1 of input 'row' spans {problem.columns[0].steps:.2g} of a step, and less than a step is left of 2"
        ". Try: take the normalization out of the model and feed it normalized values."
    )


def test_without_labels_the_classes_show_it() -> None:
    found = measured("columns", "int8", models.part(models.columns("columns")[0]))
    problem = the_problem(found)
    assert (found.metric, problem.what, problem.cause) == (None, "classes", "input")
    assert found.outputs[0].agreement is not None
    assert problem.measured == found.outputs[0].agreement.value < 0.7
    assert words.problem(problem, found).startswith(
        f"output 'kind' decides as the float model's does for only {100 * problem.measured:.1f} % of 300 samples: "
    )


@pytest.mark.parametrize("scheme", ["int8", "int8-float-io"])
def test_small_targets_beside_a_large_one(heads: dict[str, Fidelity], scheme: str) -> None:
    labelled = measured("heads", scheme, models.part(*models.regression("targets")), output="targets")
    for found in (heads[scheme], labelled):
        problem = the_problem(found, "targets")
        assert (problem.what, problem.cause) == ("component", "output")
        assert [one.first for one in problem.components] == [1, 2]
        assert problem.measured == max(one.relative_error for one in problem.components) > 0.9
        assert all((one.levels or 0) <= 2 for one in problem.components)
        assert problem.ways_out == ("split", "scale", "dynamic")
        assert the_output(found, "targets").sqnr_db > 30  # the large one drowns the others
    small = problem.components[1]
    assert words.problem(problem, labelled) == (
        f"the errors of components 1 and 2 of output 'targets' are up to {problem.measured:.1f} times their spreads: "
        f"one step is {small.step:.3g}, and component 2 spreads over {small.spread:.3g}. Try one of: give each kind of "
        "value an output of its own; let the model give targets scaled to like spreads around 0, and scale them back "
        "outside of it; --scheme dynamic, which keeps outputs in float."
    )


def test_sixteen_bits_save_one_of_them(heads: dict[str, Fidelity]) -> None:
    problem = the_problem(heads["int16x8"], "targets")
    assert [(one.first, one.levels) for one in problem.components] == [(2, None)]
    assert problem.ways_out == ("split", "scale", "dynamic")
    assert "the error of component 2 of output 'targets' is " in words.problem(problem, heads["int16x8"])


def test_a_small_change_of_a_large_value(heads: dict[str, Fidelity]) -> None:
    problem = the_problem(heads["int8"], "offset")
    assert (problem.what, problem.cause) == ("component", "output")
    assert problem.ways_out == ("split", "scale", "int16x8", "dynamic")


@pytest.mark.parametrize("name", ["pixels", "pixels_first"])
def test_scores_beside_boxes_in_pixels(heads: dict[str, Fidelity], name: str) -> None:
    problem = the_problem(heads["int8"], name)
    assert (problem.what, problem.cause) == ("step", "output")
    (scores,) = problem.components
    assert (scores.first, scores.last, scores.levels) == (4, 6, 2)
    assert problem.measured == scores.step
    assert problem.ways_out == ("split", "int16x8", "dynamic")
    told = [(one.first, one.last) for one in the_output(heads["int8"], name).components]
    assert told == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 6)]
    assert words.problem(problem, heads["int8"]).startswith(
        f"scores (components 4 to 6 of output '{name}') keep 2 levels of 256: they are told in steps of "
        f"{problem.measured:.3g}, as wide as the larger values beside them need. Try one of: give each"
    )


def test_what_calibration_did_not_see() -> None:
    found = measured("unseen", "int8")
    problem = the_problem(found, "standard")
    assert (problem.what, problem.cause, problem.ways_out) == ("component", "range", ("calibrate",))
    assert found.inputs[0].components[0].outside > 0.3
    most = max(one.outside for one in problem.components)
    assert words.problem(problem, found).endswith(
        f": {100 * most:.0f} % of the values lie outside of what calibration saw. Try: calibrate with samples that are "
        "like the real ones."
    )


def test_a_loss_inside() -> None:
    bad = scored_models.models()
    found = measure(bad["bad-float32"], bad["bad-int8"], scored_models.digits().validation)
    problem = the_problem(found)
    assert (problem.what, problem.cause, problem.ways_out) == ("score", "inside", ("float16", "trace"))
    assert found.difference is not None
    assert problem.measured == found.difference.value > 20
    assert words.problem(problem, found).endswith(
        "p<0.001), and neither its inputs' nor its outputs' quantization alone does that. Try one of: --scheme "
        "float16; let `edgeopt compare` name the layer, with the float32 file as its reference."
    )


def test_what_few_bits_lose_is_for_repair_first(tmp_path: Path) -> None:
    bad = scored_models.models()
    floating, integers = (bad[name].read_bytes() for name in ("bad-float32", "bad-int8"))
    bits = {pair.name: 4 for pair in pair_weights(floating, integers).pairs}
    (tmp_path / "few.tflite").write_bytes(stored_in(floating, integers, bits))
    found = measure(bad["bad-float32"], tmp_path / "few.tflite", scored_models.digits().validation)
    problem = the_problem(found)
    assert (problem.cause, problem.ways_out) == ("inside", ("repair", "float16", "trace"))
    assert "Try one of: `edgeopt repair` in the same scheme, where that was not done; --scheme float16; let" in (
        words.problem(problem, found)
    )


def test_a_weight_that_float16_cannot_hold(heads: dict[str, Fidelity]) -> None:
    problem = the_problem(heads["float16"])
    assert (problem.output, problem.cause, problem.ways_out) == ("overflowing", "inside", ("float32", "trace"))
    assert [one.first for one in problem.components] == [1]


# --- what is faithful, and the ways out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "faithful"),
    [
        # "split" mends targets and pixels, "scale" targets and offset.
        ("int8", HEADS),
        ("int8-float-io", HEADS),
        ("int16x8", {*HEADS, "offset", "pixels", "pixels_first"}),
        ("dynamic", {*HEADS, "offset", "pixels", "pixels_first", "targets", "overflowing"}),
        ("float16", {*HEADS, "offset", "pixels", "pixels_first", "targets"}),
    ],
)
def test_nothing_is_said_of_faithful_outputs(heads: dict[str, Fidelity], scheme: str, faithful: set[str]) -> None:
    assert {output.name for output in heads[scheme].outputs} - {p.output for p in heads[scheme].problems} == faithful
    assert all(output.sqnr_db > 20 for output in heads[scheme].outputs if output.name in faithful)


@pytest.mark.parametrize(
    ("name", "scheme"), [("normalized", "int8"), ("mild", "int16x8"), ("columns", "dynamic"), ("picture", "int8")]
)
def test_nothing_is_said_of_a_faithful_file(name: str, scheme: str) -> None:
    part = columns(name) if name in models.COLUMNS else models.part(models.normal(models.SAMPLES, 64))
    assert measured(name, scheme, part).problems == ()


def test_int16_is_a_way_out_where_its_finer_step_is_enough() -> None:
    problem = the_problem(measured("mild", "int8", columns("mild")))
    assert (problem.cause, problem.ways_out) == ("input", ("normalize-outside", "int16x8"))


@pytest.mark.parametrize("scheme", ["int8", "int8-float-io"])
def test_trained_models_are_faithful(scheme: str) -> None:
    net = scored_models.models()
    found = measure(net["net-float32"], net[f"net-{scheme}"], scored_models.digits().validation, isolate=False)
    assert found.problems == ()
    assert found.notes == ()
    assert found.outputs[0].agreement is not None
    assert found.outputs[0].agreement.value > 0.95


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_outputs_themselves() -> None:
    part = models.part(*models.regression("targets")).head(SAMPLES)
    files = [models.models() / f"heads.{scheme}.tflite" for scheme in ("float32", "int8")]
    values = []
    for file in files:
        with Predictor(file, part, RUNTIMES["litert"]) as predictor:
            values.append(predictor.values(predictor.part.arrays())["targets"].astype(np.float64))
    a, b = values
    found = measured("heads", "int8", part, output="targets")
    output = the_output(found, "targets")
    assert output.size == 3
    assert output.sqnr_db == pytest.approx(10 * math.log10((a**2).sum() / ((a - b) ** 2).sum()))
    for i, one in enumerate(output.components):
        assert one.spread == pytest.approx(a[:, i].std())
        assert one.error == pytest.approx(np.sqrt(np.mean((a - b)[:, i] ** 2)))
        assert one.levels == len(np.unique(b[:, i]))
    step = output.components[0].step
    assert step is not None
    assert output.components[0].rounding == pytest.approx(step / math.sqrt(12), rel=0.1)
    assert found.samples == SAMPLES
    scores = tuple(evaluate(file, part, output="targets").metric for file in files)
    assert (found.reference_metric, found.metric) == scores


def test_only_some_of_many_samples_are_run(heads: dict[str, Fidelity]) -> None:
    assert len(ROWS) > SAMPLES
    assert heads["int8"].samples == SAMPLES


def test_equal_files_are_equal() -> None:
    found = measured("heads", "float32")
    assert {output.sqnr_db for output in found.outputs} == {math.inf}
    assert found.problems == found.inputs == ()
    assert words.summary(found) == "beside float32 on 300 samples: the same outputs"


def test_a_summary_has_score_and_classes() -> None:
    found = measured("normalized", "int8", columns("normalized"))
    (output,) = found.outputs
    assert output.agreement is not None
    assert found.metric is not None
    assert words.summary(found) == (
        f"beside float32 on 300 samples: SQNR {output.sqnr_db:.1f} dB, "
        f"same class {100 * output.agreement.value:.1f} %, "
        f"top1 {100 * found.metric.value:.2f} % (float32 100.00 %)"
    )


def test_it_can_be_written_and_read_again(heads: dict[str, Fidelity]) -> None:
    assert from_plain(Fidelity, to_plain(heads["int8"])) == heads["int8"]


def test_what_a_graph_joins_is_found_behind_what_carries_it() -> None:
    found = layouts(read(models.models() / "layouts.float32.tflite"))
    told = {name: (one.axis, [(part.first, part.last, part.kind) for part in one.parts]) for name, one in found.items()}
    assert told == {
        "anchors": (-1, [(0, 1, "value"), (2, 3, "value"), (4, 6, "score")]),
        "channels": (-2, [(0, 3, "value"), (4, 6, "score")]),
        "stacked": (-1, [(0, 0, "value"), (1, 1, "score")]),
        "nested": (-1, [(0, 6, "value"), (7, 13, "value")]),
        "whole": (-1, [(0, 55, "score")]),
        "flat": (-1, [(0, 447, "value")]),
    }


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_rows_of_a_table_that_rounding_mistakes_for_one_another(tmp_path: Path, dtype: str) -> None:
    """One array holds users and films; 300 numbers of users lie further apart than 255 steps."""
    keras = frameworks.load("tf_keras")
    layers = keras.layers
    ids = layers.Input((2,), dtype=dtype, name="ids")
    embedded = [layers.Embedding(300, 4)(ids[:, n]) for n in (0, 1)]
    keras.Model(ids, layers.Dense(1)(layers.Concatenate()(embedded))).save(tmp_path / "films.keras")
    x = np.random.default_rng(0).integers(0, [300, 20], (400, 2)).astype(dtype)
    x[0] = 299
    done = api.convert(tmp_path / "films.keras", tmp_path / "films.tflite", scheme="int8", data=(x, None))
    assert done.fidelity is not None
    if dtype == "int32":
        assert done.fidelity.problems == ()
        return
    problem = done.fidelity.problems[0]
    assert (problem.what, problem.input, problem.ways_out) == ("whole-numbers", "ids", ("integers", "dynamic"))
    assert problem.measured > 0.4
    assert words.problem(problem, done.fidelity).startswith(
        "input 'ids' holds whole numbers, as rows of a table, and the rounding to its steps makes "
        f"{100 * problem.measured:.1f} % of its values another one. Try one of: give the model an integer input"
    )
    done = api.convert(tmp_path / "films.keras", tmp_path / "d.tflite", scheme="dynamic", data=(x, None))
    assert done.fidelity is not None
    assert done.fidelity.problems == ()


# --- where it is told ------------------------------------------------------------------------------------------------


def test_convert_tells_what_the_file_has_lost(tmp_path: Path) -> None:
    x, y = models.columns("columns")
    np.savez(tmp_path / "columns.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    words = ("--data", "columns.npz", "--scheme", "int8")
    shown = edgeopt("convert", models.models() / "columns.h5", "-o", "columns.tflite", *words, folder=tmp_path)
    assert shown.returncode == 0
    assert "  beside float32 on 100 samples: SQNR " in shown.stdout
    assert "(float32 100.00 %)" in shown.stdout
    assert "PROBLEM: top1 is " in shown.stdout
    assert "of input 'row' spans 0.00" in shown.stdout


def test_convert_tells_it_to_python_as_numbers(tmp_path: Path) -> None:
    x, y = models.columns("normalized")
    model = models.models() / "normalized.h5"
    done = api.convert(model, tmp_path / "with.tflite", scheme="int8", data=(x, y))
    assert done.fidelity is not None
    assert done.fidelity.problems == ()
    assert done.fidelity.metric is not None
    assert done.fidelity.metric.samples == done.fidelity.samples
    assert api.convert(model, tmp_path / "float.tflite", data=(x, y)).fidelity is None
    assert api.convert(model, tmp_path / "without.tflite", scheme="dynamic").fidelity is None


def test_a_run_does_not_recommend_in_silence_what_has_lost_something(tmp_path: Path) -> None:
    """Of the small targets nothing is left, and the metric, in the unit of the large one, does not show it."""
    x, y = models.regression("targets")
    np.savez(tmp_path / "targets.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    words = ("--data", "targets.npz", "--metric", "mse", "--max-drop", "50")
    words += ("--scheme", "int8", "--scheme", "int8-float-io")
    shown = edgeopt("optimize", models.models() / "targets.h5", "-o", "run", *words, folder=tmp_path)
    assert shown.returncode == 0
    report = read_report(tmp_path / "run")
    told = [[problem.what for problem in v.fidelity.problems] if v.fidelity else None for v in report.variants]
    assert told == [None, ["component"], ["component"]]
    assert report.best == "float32"
    assert "and is faithful to float32" in report.best_reason
    lost = "the errors of components 1 and 2 of output"
    assert shown.stdout.count(lost) == 1
    assert f"PROBLEM of int8, int8-float-io: {lost}" in shown.stdout
    assert lost in (tmp_path / "run" / "report.md").read_text()
    assert lost in (tmp_path / "run" / "report.html").read_text()


def test_what_steps_made_is_held_against_their_own_float_model(tmp_path: Path) -> None:
    """Half of its weights are gone: beside the model as it came little would be the same."""
    data, model = models.columns("normalized"), models.models() / "normalized.h5"
    done = api.compress(model, data, tmp_path / "pruned.tflite", [{"prune": {"sparsity": 0.5}}], scheme="int8")
    assert done.after.fidelity is not None
    assert done.after.fidelity.outputs[0].sqnr_db > 20
    assert done.after.fidelity.problems == ()


# --- no verdict without evidence -------------------------------------------------------------------------------------


def test_a_few_samples_show_nothing() -> None:
    assert measured("heads", "int8", ROWS.head(1)).problems == ()
    assert measured("heads", "int8", ROWS.head(7)).problems == ()
    assert "targets" in {problem.output for problem in measured("heads", "int8", ROWS.head(8)).problems}


def test_what_the_float_model_itself_misses_is_not_lost() -> None:
    x, y = models.regression("targets")
    y[:, 1:] = 30 * models.normal(models.SAMPLES, 2, seed=9)  # far from what the model gives
    found = measured("heads", "int8", models.part(x, y), output="targets")
    assert "targets" not in {problem.output for problem in found.problems}


def test_values_that_are_no_numbers() -> None:
    x = X.copy()
    x[5], x[6] = np.nan, np.inf
    found = measured("heads", "float32", models.part(x))
    assert found.problems == ()
    assert all(np.isfinite(one.spread) for output in found.outputs for one in output.components)


def test_labels_that_fit_no_metric_are_a_note() -> None:
    labels = models.part(X, np.zeros((models.SAMPLES, 5), np.float32))
    found = measured("heads", "int8", labels, output="standard")
    assert found.metric is None
    assert found.notes[0].startswith("not scored: Expected labels that fit outputs (3,), got float32 labels (5,)")
    with pytest.raises(DataError, match=r"Expected labels \(3,\) like the outputs for mse"):
        measured("heads", "int8", labels, output="standard", metric="mse")
    beyond = models.part(X, np.arange(models.SAMPLES) % 11)
    note = measured("heads", "int8", beyond, output="logits").notes[0]
    assert note.startswith("not scored: Expected labels 0..9 for 10 outputs")
    note = measured("heads", "int8", beyond).notes[0]
    assert note.startswith("not scored: the labels are for one output (--output-name ")


def test_what_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of the model's outputs as --output-name, got 'none'"):
        measured("heads", "int8", models.part(*models.regression("standard")), output="none")
    with pytest.raises(DataError, match="Expected samples"):
        measured("heads", "int8", ROWS.head(0))
    net = scored_models.models()
    with pytest.raises(ModelError, match="outputs of the same shapes"):
        measure(net["net-float32"], net["even-int8"], scored_models.digits().validation, isolate=False)


def test_every_way_out_has_words() -> None:
    schemes = {way for way in words.WAYS_OUT if way in SCHEMES}
    assert schemes == {"int16x8", "dynamic", "float16", "float32"}
    assert all(words.WAYS_OUT[way].startswith(f"--scheme {way}") for way in schemes)
