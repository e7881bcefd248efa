"""Outputs and labels go in, one number that says how good a model is comes out.

A metric works on a batch at a time and keeps a few numbers of each sample, its rows, so that outputs can be
streamed; `combine` makes the value of the rows of all samples, and `statistics` its doubt.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from edgeopt.errors import ConfigError, suggestion
from edgeopt.metrics import boxes, classes, embeddings, positions, values
from edgeopt.metrics.contract import Metric, Rows, share
from edgeopt.metrics.own import own
from edgeopt.metrics.reading import class_scores, decide
from edgeopt.tasks.losses import by_output

__all__ = ["METRICS", "NUMBERED", "Metric", "Rows", "class_scores", "decide", "for_outputs", "metric"]

METRICS: dict[str, Metric] = {
    one.name: one
    for one in (
        classes.top(1),
        classes.top(5),
        Metric(
            "f1",
            "F1 score, the mean over classes (of samples, or of positions) or over labels",
            classes.f1,
            per_sample=classes.f1_per_sample,
            by="classes",
            is_share=True,
            settle=classes.f1_settle,
        ),
        Metric(
            "auc",
            "area under the ROC curve of two classes",
            classes.auc,
            per_sample=classes.auc_per_sample,
            by="classes",
            is_share=True,
            why_undefined=classes.why_no_auc,
        ),
        Metric(
            "average-precision",
            "area under the precision-recall curve, the mean over labels that may be there together",
            classes.average_precision,
            per_sample=classes.average_precision_per_sample,
            by="classes",
            is_share=True,
            resamples=classes.AVERAGE_PRECISION_RESAMPLES,
        ),
        Metric(
            "mean-iou",
            "intersection over union of what is predicted and labelled, the mean over classes (segmentation)",
            positions.mean_iou,
            per_sample=positions.confusion_per_sample("mean-iou"),
            by="classes",
            is_share=True,
            settle=positions.settle,
            why_undefined=positions.why_nothing_counts,
        ),
        Metric(
            "pixel-accuracy",
            "share of labelled pixels of the right class (segmentation)",
            share,
            per_sample=positions.hits_per_sample("pixel-accuracy"),
            by="classes",
            is_share=True,
            settle=positions.settle,
            why_undefined=positions.why_nothing_counts,
        ),
        Metric(
            "tag-accuracy",
            "share of labelled steps of the right class (tagging)",
            share,
            per_sample=positions.hits_per_sample("tag-accuracy"),
            by="classes",
            is_share=True,
            settle=positions.settle,
            why_undefined=positions.why_nothing_counts,
        ),
        Metric(
            "perplexity",
            "e to the mean of -log p of the right class, over labelled steps (next token)",
            positions.perplexity,
            per_sample=positions.perplexity_per_sample,
            higher_is_better=False,
            why_undefined=positions.why_nothing_counts,
        ),
        boxes.mean_average_precision("map"),
        embeddings.recall_at(1),
        Metric(
            "auc-pairs",
            "area under the ROC curve of pairs of one class or of two, by the cosine of embeddings (verification; of "
            f"more than {embeddings.LARGEST_VERIFICATION:,} samples, so many)",
            embeddings.verification,
            per_sample=embeddings.verification_per_sample,
            is_share=True,
            settle=embeddings.verification_settle,
            resamples=embeddings.VERIFICATION_RESAMPLES,
            free_labels=True,
            why_undefined=embeddings.why_no_pairs,
        ),
        Metric(
            "mse",
            "mean squared error",
            values.mean,
            per_sample=values.mse_per_sample,
            higher_is_better=False,
            by="targets",
        ),
        Metric(
            "rmse",
            "root of the mean squared error",
            values.root_mean,
            per_sample=values.rmse_per_sample,
            higher_is_better=False,
            by="targets",
        ),
        Metric(
            "mae",
            "mean absolute error",
            values.mean,
            per_sample=values.mae_per_sample,
            higher_is_better=False,
            by="targets",
        ),
        Metric(
            "r2",
            "share of the targets' variance that is explained, the mean over targets",
            values.r2,
            per_sample=values.r2_per_sample,
            by="targets",
            is_share=True,
            why_undefined=values.why_no_r2,
        ),
        Metric(
            "reconstruction",
            "mean squared error between output and input (autoencoders)",
            values.mean,
            per_sample=values.reconstruction_per_sample,
            higher_is_better=False,
            free_labels=True,
        ),
        Metric(
            "auc-reconstruction",
            "area under the ROC curve of the reconstruction error, labels 1 = anomaly (autoencoders)",
            classes.auc,
            per_sample=values.auc_reconstruction_per_sample,
            is_share=True,
            apart=values.spread_of_scores,
            free_labels=True,
            why_undefined=classes.why_no_auc,
        ),
    )
}
# Families of metrics: what stands before the number, and what makes one of it.
NUMBERED: dict[str, Callable[[int], Metric]] = {"top": classes.top, "recall@": embeddings.recall_at}


def for_outputs(words: str | None) -> dict[str, str]:
    """Returns what is said of metrics, "NAME" or "OUTPUT=NAME,OUTPUT=NAME", by output, "" for all.

    Raises:
        ConfigError: there is no such metric, or two for one output.
    """
    found = by_output(words.split(","), "--metric") if words else {}
    for name in found.values():
        metric(name)
    return found


def metric(name: str) -> Metric:
    """Returns the metric called `name`: a key of METRICS, "topK", "recall@K" or "module:function".

    "map@module:function" decodes the model's outputs by a function of one's own first; see `boxes`. Any other
    function is called as f(predictions, labels), or f(y_true, y_pred) where its first argument is called so, with
    float32 predictions [N, ...] and the labels of all samples (None where there are none), and returns one number, or
    one per sample. Of a model with several outputs it gets dicts of all of them, and of labels where these have names,
    unless it is said of one output. One that gives a number per sample is called once; of one that gives a single
    number the interval takes 21 calls, and each comparison 42 more. Its attributes `higher_is_better` and `is_share`
    are heeded. A metric of Keras, a class or one that is made, is asked for its result.

    Raises:
        ConfigError: there is none of that name, or the function cannot be imported.
    """
    if name in METRICS:
        return METRICS[name]
    if (match := re.fullmatch(r"(\D+)([1-9]\d{0,5})", name)) and match[1] in NUMBERED:
        return NUMBERED[match[1]](int(match[2]))
    if name.startswith("map@"):
        return boxes.mean_average_precision(name)
    if ":" in name:
        return own(name)
    raise ConfigError(
        f"Expected a metric, got {name!r}.{suggestion(name, METRICS)} Try one of {', '.join(METRICS)}, topK or "
        "recall@K for any K, map@module:function or module:function."
    )
